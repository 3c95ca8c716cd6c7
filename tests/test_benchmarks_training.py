"""The benchmarks of training: contenders that compute something else are found, and named."""

import importlib.util
import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import cases, growth, lasso, peers, timing, training
from benchmarks.training import BARE, D2L_PLOT, JOBLIB, LIGHTNING, OURS, PLAIN, VALIDATED

LINEAR, DROPOUT, SGD = (cases.named(name, quick=True) for name in ("linear", "dropout", "sgd"))
HERE = [who for who in training.ALONE
        if not (name := training.PACKAGES.get(who)) or importlib.util.find_spec(name)]
CASES = {"linear": LINEAR, "dropout": DROPOUT, "sgd": SGD}
PAIRS = [(name, who) for name in CASES for who in HERE
         if name != "dropout" or who != training.SCIKIT_LEARN]


# --- timing ------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_exponent_finds_exact_powers(power):
    sizes = [1, 3, 10, 30]
    found, error = timing.exponent(sizes, [7 * n**power for n in sizes])
    assert found == pytest.approx(power, abs=1e-12) and error < 1e-12


def test_exponent_has_the_error_of_a_straight_line():
    """Slope and standard error by torch's least squares on the same logarithms."""
    sizes, values = [1, 2, 4, 8, 16], [1.0, 2.5, 3.0, 9.0, 15.0]
    A = torch.stack([torch.tensor(sizes).log(), torch.ones(5)], dim=1)
    y = torch.tensor(values).log()
    fit = torch.linalg.lstsq(A, y.unsqueeze(1)).solution[:, 0]
    variance = (y - A @ fit).square().sum() / 3 * torch.linalg.inv(A.T @ A)[0, 0]
    assert timing.exponent(sizes, values) == pytest.approx((fit[0].item(), variance.sqrt().item()))


@pytest.mark.parametrize("sizes, values", [([1, 2], [1, 2]), ([1, 2, 3], [1, 0, 2]),
                                           ([1, 2, 3], [1, 2])])
def test_exponent_says_what_it_needs(sizes, values):
    with pytest.raises(ValueError, match="three or more pairs above 0"):
        timing.exponent(sizes, values)


def test_contenders_take_turns():
    called = []
    found = timing.in_turn({n: lambda n=n: called.append(n) for n in "ab"}, 3)
    assert called == list("ababab")
    assert all(len(found[n][clock]) == 3 for n in "ab" for clock in ("processor", "wall"))


def test_the_processor_clock_stands_still_while_waiting():
    import time

    times = timing.clocked(lambda: time.sleep(0.2))
    assert times["wall"] >= 0.2 > 2 * times["processor"]


def test_peak_memory_is_that_of_the_call():
    assert 155 < timing.peak_memory("torch", "ones", [20_000_000], [1]) < 200
    with pytest.raises(RuntimeError, match="torch.ones.* failed:"):
        timing.peak_memory("torch", "ones", ["many"], [1])


# --- the same weights --------------------------------------------------------------------


@pytest.mark.parametrize("name, who", PAIRS)
def test_every_contender_reaches_the_weights_of_the_ensemble(name, who):
    found = training.differences(CASES[name], [who], quick=True)
    assert found[who] <= 1e-10


def other_order(case):
    return case._replace(seeds=[seed + 1 for seed in case.seeds], build=lambda p, seed:
                         case.build(p, seed - 1))


WRONG = {
    "learning rate": lambda case: case._replace(lr=case.lr * 1.001, settings=[
        value * 1.001 for value in case.settings] if case.varies == "lr" else case.settings),
    "an epoch too few": lambda case: case._replace(epochs=case.epochs - 1),
    "another order": other_order,
    "another batch size": lambda case: case._replace(batch_size=case.batch_size * 2),
    "other images": lambda case: case._replace(train=case.validation),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name, who", PAIRS)
def test_a_contender_that_does_something_else_is_found(name, who, wrong, monkeypatch):
    right, case = training.ALONE[who], CASES[name]
    mistaken = WRONG[wrong](case)

    def peer(case, model, h, s):
        return right(mistaken, model, h, s)

    monkeypatch.setitem(training.ALONE, who, peer)
    with pytest.raises(AssertionError, match=f"{name}: {who} reaches other weights, by"):
        training.differences(case, [who], quick=True)


def test_one_step_too_few_is_found(monkeypatch):
    def peer(case, model, h, s):
        steps = [(epoch, rows) for epoch in range(1, case.epochs + 1)
                 for rows in case.rows(s, epoch)][:-1]
        (X, y), optimizer = case.data(s), case.optimizer(model, h)
        for _, rows in steps:
            optimizer.zero_grad()
            case.criterion(model(X[rows]), y[rows]).backward()
            optimizer.step()

    monkeypatch.setitem(training.ALONE, PLAIN, peer)
    with pytest.raises(AssertionError, match="plain loop reaches other weights"):
        training.differences(LINEAR, [PLAIN], quick=True)


def test_other_dropout_noise_is_found(monkeypatch):
    monkeypatch.setattr(training, "with_seed_noise", lambda model, seed: model)
    with pytest.raises(AssertionError, match="dropout: plain loop reaches other weights"):
        training.differences(DROPOUT, [PLAIN], quick=True)


def test_weights_that_are_not_numbers_are_found(monkeypatch):
    def peer(case, model, h, s):
        torch.nn.init.constant_(model[0].weight, float("nan"))

    monkeypatch.setitem(training.ALONE, PLAIN, peer)
    with pytest.raises(AssertionError, match="reaches other weights, by inf"):
        training.differences(LINEAR, [PLAIN], quick=True)


def test_validation_must_not_change_training_and_must_be_d2ls(monkeypatch):
    right = peers.together
    assert training.differences(LINEAR, [VALIDATED], quick=True)[VALIDATED] == 0

    def longer(case, validate=False):
        return right(case._replace(epochs=case.epochs + validate), validate)

    monkeypatch.setattr(peers, "together", longer)
    with pytest.raises(AssertionError, match="helpers.ensemble, validated reaches other"):
        training.differences(LINEAR, [VALIDATED], quick=True)

    def elsewhere(case, validate=False):
        return right(case._replace(validation=case.train) if validate else case, validate)

    monkeypatch.setattr(peers, "together", elsewhere)
    with pytest.raises(AssertionError, match="validation losses"):
        training.differences(LINEAR, [VALIDATED], quick=True)


def test_two_processes_are_compared(monkeypatch):
    def in_this_one(case, quick, members):
        model = case.build(None, case.seeds[0])
        return [model.state_dict() for _ in members]  # untrained

    monkeypatch.setattr(peers, "in_two_processes", in_this_one)
    with pytest.raises(AssertionError, match="two processes reaches other weights"):
        training.differences(LINEAR, [JOBLIB], quick=True)


def test_the_live_plot_is_compared(monkeypatch):
    weights = {k: v.tolist() for k, v in LINEAR.build(None, 0).state_dict().items()}
    monkeypatch.setattr(training, "WHO", {"linear": [OURS, VALIDATED, D2L_PLOT]})
    monkeypatch.setattr(training, "live_plot", lambda *_: {
        "processor": 1.0, "wall": 1.0, "weights": weights  # untrained
    })
    with pytest.raises(AssertionError, match="live plot reaches other weights"):
        training.measure(LINEAR, quick=True)


# --- what is timed -----------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bare_products_are_those_of_the_training(case):
    with FlopCounterMode(display=False) as bare:
        peers.bare_products(case)()
    preparing = FlopCounterMode(display=False)
    with preparing:
        peers.bare_products(case)
    counted = bare.get_total_flops() - preparing.get_total_flops()
    with FlopCounterMode(display=False) as ours:
        peers.together(case)
    assert counted == ours.get_total_flops() == case.members * peers.operations(case)


@pytest.fixture(scope="module")
def measured():
    """A case with a contender that isn't there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "WHO", {"linear": [OURS, PLAIN, LIGHTNING, BARE]})
        patch.setattr(training, "PACKAGES", {LIGHTNING: "lightning_that_is_nowhere"})
        return json.loads(json.dumps(training.measure(LINEAR, quick=True)))


def test_an_absent_peer_is_a_row_that_says_why(measured):
    row = "| Lightning: absent (No module named 'lightning_that_is_nowhere') | – |"
    assert row in training._section("linear", measured)
    assert LIGHTNING not in measured["threads"]["1"] and LIGHTNING not in measured["differences"]


def test_times_are_those_of_one_model(monkeypatch):
    monkeypatch.setattr(training, "in_turn", lambda contenders, runs: {
        who: {"processor": [6.0], "wall": [12.0]} for who in contenders
    })
    found = training.times(LINEAR, [OURS, PLAIN], 1, quick=True)
    assert LINEAR.members == 6
    assert found == {OURS: {"processor": [1.0], "wall": [2.0]},
                     PLAIN: {"processor": [6.0], "wall": [12.0]}}


# --- the page ----------------------------------------------------------------------------


def results(goal_factor: float) -> dict:
    """As if every contender were so many times as slow as the goal asks for."""
    found = {}
    for name in ("linear", "dropout", "sgd", "full64"):
        times = {who: {"processor": [2.0, 2.0], "wall": [1.0, 1.0]} for who in training.ALL}
        for goal in training.GOALS:
            if goal.case == name:
                factor = goal.factor * goal_factor
                value = 2 / factor if goal.other == BARE else 2 * factor
                times[goal.other]["processor"] = [value, value]
        found[name] = {
            "widths": [64, 64, 10], "members": 6, "steps": 3, "batch": 5, "operations": 1,
            "absent": {}, "differences": {PLAIN: 1e-17}, "threads": {"1": times, "2": times},
            "parts": {"bare products": [0.5], "optimizer": [1.0]},
        }
    return {"cases": found}


def test_goals_are_judged_by_what_was_measured():
    lines = {factor: [line for line in training._goals(results(factor)["cases"]).splitlines()
                      if line.startswith("| ")][2:] for factor in (0.9, 1.1)}
    for slow, fast, goal in zip(lines[0.9], lines[1.1], training.GOALS, strict=True):
        met, missed = (slow, fast) if goal.other == BARE else (fast, slow)
        assert "| met |" in met and "| **not met** |" in missed
        assert goal.text() in met


def test_a_goal_that_is_not_met_has_a_bound():
    """Products and optimizer take half of what the whole takes, so twice the ratio is possible."""
    found = results(0.5)["cases"]["linear"]
    found["parts"] = {"bare products": [0.25], "optimizer": [0.75]}
    said = training._goals({"linear": found}).replace("\u202f", " ")
    assert "Not met: linear regression, at least 50 × plain loop. With nothing but its matrix " \
           "products and its optimizer it would be 50.0. " in said
    assert "Not met" not in training._goals({"linear": results(1.1)["cases"]["linear"]})


def test_the_page_has_the_members_and_steps_per_second():
    page = training.page(results(1.1))
    assert f"| {OURS} | 2 000 (2 000–\u20602 000) | 1.50 |" in page.replace("\u202f", " ")
    assert "optimizer 50 %" in page


# --- growth and lasso --------------------------------------------------------------------


def test_growth_is_fitted(monkeypatch):
    sizes = list(growth.SIZES)
    found = {"widths": [64, 10], "batch": 20, "steps": 40, "members": sizes,
             "seconds": [[0.001 * n] for n in sizes], "megabytes": [[n**0.5] for n in sizes]}
    page = growth.page(found)
    assert "Time grows, from 100 to 1000 members, as their number to the power 1.00 ±" in page
    assert "Memory grows, from 100 to 1000 members, as their number to the power 0.500 ±" in page


def test_growth_asks_for_a_first_member_that_is_always_the_same():
    states = {n: growth.trained(n) for n in (1, 3)}
    growth.require_same(states)
    states[3]["0.weight"] += 1e-9
    with pytest.raises(AssertionError, match="with 3 members the first one is another"):
        growth.require_same(states)


def test_lasso_paths_are_compared():
    data, lams = lasso.problem(20, 50, 1, 10)
    theirs = lasso.coordinate_descent(data, lams, 1e-4, precompute=False)
    goal = lasso.largest_gap(data, lams, theirs)
    ours = lasso.fista(*data, lams, goal)
    lasso.require_same(data, lams, {lasso.OURS: ours, lasso.THEIRS: theirs}, goal)
    with pytest.raises(AssertionError, match="fista's largest gap"):
        lasso.require_same(data, lams, {lasso.OURS: 1.01 * ours, lasso.THEIRS: theirs}, goal)
    with pytest.raises(AssertionError, match="scikit-learn: predictions differ"):
        wrong = {lasso.OURS: ours, lasso.THEIRS: theirs.roll(1, 0)}
        monkey = pytest.MonkeyPatch()
        monkey.setattr(lasso, "duality_gap", lambda *_: torch.zeros(()))
        try:
            lasso.require_same(data, lams, wrong, 1.0)
        finally:
            monkey.undo()
