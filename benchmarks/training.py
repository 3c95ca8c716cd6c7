"""Training many models: ``helpers.ensemble`` beside what readers would use instead.

One thread: processor seconds. Two threads, or two processes: wall clock. Every contender must
have reached the weights of ``helpers.ensemble`` before it is timed.
"""

import contextlib
import functools
import importlib
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from matplotlib import ticker
from matplotlib.figure import Figure
from torch import nn

from benchmarks import ROOT, cases, install, peers
from benchmarks.cases import TOLERANCE, Case, with_seed_noise
from benchmarks.kernel import run_notebook
from benchmarks.page import middle, number, table
from benchmarks.timing import clocked, in_turn, ratios
from helpers import ensemble, setup
from helpers.ensemble import member

OURS, VALIDATED = "helpers.ensemble", "helpers.ensemble, validated"
PLAIN, D2L, D2L_VALIDATED = "plain loop", "d2l.Trainer", "d2l.Trainer, validated"
D2L_PLOT, LIGHTNING, SKORCH = "d2l.Trainer, live plot", "Lightning", "skorch"
SCIKIT_LEARN, JOBLIB, BARE = "scikit-learn", "joblib, two processes", "bare products"

ALONE = {
    PLAIN: peers.plain_loop,
    D2L: peers.d2l_trainer,
    D2L_VALIDATED: functools.partial(peers.d2l_trainer, validate=True),
    LIGHTNING: peers.lightning,
    SKORCH: peers.skorch,
    SCIKIT_LEARN: peers.scikit_learn,
}
ALL = [OURS, VALIDATED, PLAIN, D2L, D2L_VALIDATED, D2L_PLOT, LIGHTNING, SKORCH, JOBLIB, BARE]
FEW, ORDER = [OURS, PLAIN, BARE], [*ALL[:-1], SCIKIT_LEARN, BARE]
WHO = {  # scikit-learn has no dropout, and its Adam puts ε elsewhere
    "linear": ORDER,
    "dropout": ALL,
    "sgd": [OURS, PLAIN, SCIKIT_LEARN, BARE],
} | {f"full{width}": FEW for width in cases.WIDTHS}
PACKAGES = {LIGHTNING: "lightning", SKORCH: "skorch"}


# --- the run -----------------------------------------------------------------------------


def run(quick: bool) -> dict:
    setup()
    names = ["linear", "sgd", "full16"] if quick else list(WHO)
    return {"cases": {name: measure(cases.named(name, quick), quick) for name in names}}


def measure(case: Case, quick: bool) -> dict:
    """Correctness first; then times per model, with one thread and with two."""
    runs, wanted = (1 if quick else 7), WHO[case.name]
    gone = {who: why for who, name in PACKAGES.items() if who in wanted and (why := absent(name))}
    there = [who for who in wanted if who not in gone]
    found = {
        "widths": list(case.widths), "members": case.members, "steps": case.steps,
        "batch": case.batch_size or case.train.y.shape[1], "operations": peers.operations(case),
        "absent": gone, "differences": differences(case, there, quick), "threads": {},
    }
    for threads, left_out in ((1, [D2L_PLOT, JOBLIB]), (2, [D2L_PLOT, SCIKIT_LEARN])):
        with use_threads(threads):
            names = [who for who in there if who not in left_out]
            found["threads"][str(threads)] = times(case, names, runs, quick)
    if D2L_PLOT in there:
        plotted = live_plot_times(case, 1 if quick else 3, quick)
        found["threads"]["1"][D2L_PLOT] = plotted["times"]
        found["differences"][D2L_PLOT] = require_close(case, D2L_PLOT, plotted["difference"])
    return found | {"parts": parts(case, runs)}


def absent(package: str) -> str | None:
    """Why a package can't be imported, or None if it can."""
    importlib.import_module("helpers.d2l_bridge")  # imports torchvision, which Lightning wants
    try:
        importlib.import_module(package)
    except Exception as error:  # one that is broken is as absent as one that isn't there
        return install.refused(package) or str(error).splitlines()[0]  # first pip's reason
    return None


def times(case: Case, names: list[str], runs: int, quick: bool) -> dict:
    """Seconds per model: {contender: {"processor": [a value per run], "wall": […]}}."""
    counts = {who: models_trained(case, who) for who in names}
    contenders = {who: contender(case, who, quick) for who in names}
    for warm_up in contenders.values():
        warm_up()
    found = in_turn(contenders, runs)
    return {
        who: {clock: [value / counts[who] for value in values] for clock, values in times.items()}
        for who, times in found.items()
    }


def models_trained(case: Case, who: str) -> int:
    """By one call of a contender."""
    if who in (OURS, VALIDATED, BARE):
        return case.members
    return len(two_for_each(case)) if who == JOBLIB else 1


def two_for_each(case: Case) -> list[tuple[int, int]]:
    """Setting and seed of the models that two processes share."""
    pairs = [(h, s) for s in range(len(case.seeds)) for h in range(len(case.settings))]
    return pairs[: min(16, len(pairs) // 2 * 2)]


def contender(case: Case, who: str, quick: bool) -> Callable[[], object]:
    """What is timed: one call that trains, from building the models on."""
    if who == OURS or who == VALIDATED:
        return lambda: peers.together(case, validate=who == VALIDATED)
    if who == BARE:
        return peers.bare_products(case)
    if who == JOBLIB:
        return lambda: peers.in_two_processes(case, quick, two_for_each(case))
    h, s = len(case.settings) - 1, 0  # the strongest dropout or decay, which does all the work
    return lambda: ALONE[who](case, case.build(case.settings[h], case.seeds[s]), h, s)


@contextlib.contextmanager
def use_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- correctness -------------------------------------------------------------------------


def differences(case: Case, names: list[str], quick: bool) -> dict[str, float]:
    """The largest difference of any weight from helpers.ensemble's, for each contender.

    Raises AssertionError if one is above the tolerance.
    """
    net, _ = peers.together(case)
    found = {}
    for who in names:
        if who in ALONE:
            found[who] = max(difference(case, net, who, h) for h in to_check(case, who))
        elif who == VALIDATED:
            again, history = peers.together(case, validate=True)
            value = apart(member(net, 0, 0), member(again, 0, 0))
            found[who] = require_close(case, who, value)
            require_same_validation(case, history)
        elif who == JOBLIB:
            members = [(0, 0), (0, 1)]  # setting 0 has no dropout
            states = peers.in_two_processes(case, quick, members)
            found[who] = max(apart(member(net, h, s), state)
                             for (h, s), state in zip(members, states, strict=True))
    return {who: require_close(case, who, value) for who, value in found.items()}


def require_close(case: Case, who: str, value: float) -> float:
    assert value <= TOLERANCE, f"{case.name}: {who} reaches other weights, by {value:.1e}"
    return value


def to_check(case: Case, who: str) -> list[int]:
    """The first setting and the last; scikit-learn decays no biases, so only where λ = 0."""
    decays = case.varies == "weight_decay"
    return [0] if who == SCIKIT_LEARN and decays else [0, len(case.settings) - 1]


def difference(case: Case, net: nn.Module, who: str, h: int, s: int = 0) -> float:
    """Of one model, with the dropout noise that its seed has in helpers.ensemble."""
    model = case.build(case.settings[h], case.seeds[s])
    ALONE[who](case, with_seed_noise(model, case.seeds[s]), h, s)
    return apart(member(net, h, s), model.state_dict())


def apart(state: Mapping, other: Mapping) -> float:
    assert set(state) == set(other), f"parameters {set(state)} and {set(other)}"
    worst = [(state[k] - torch.as_tensor(other[k])).abs().max().item() for k in state]
    return max(float("inf") if value != value else value for value in worst)


def require_same_validation(case: Case, history: Mapping) -> None:
    """d2l's last validation loss is that of helpers.ensemble."""
    model = case.build(case.settings[0], case.seeds[0])
    board = peers.d2l_trainer(case, with_seed_noise(model, case.seeds[0]), 0, 0, validate=True)
    theirs, ours = board["val_loss"][-1].y, history["validation_loss"][0, 0, -1].item()
    assert abs(theirs - ours) <= TOLERANCE, f"validation losses {theirs} and {ours}"


# --- the live plot -----------------------------------------------------------------------


def live_plot(case: Case, h: int, s: int, quick: bool) -> dict:
    """d2l.Trainer with its plot, validated, in a notebook: times of the kernel, and weights."""
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        cells = [
            "from benchmarks.training import in_notebook",
            f"in_notebook({case.name!r}, {h}, {s}, {quick}, {str(result)!r})",
        ]
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        run_notebook(nb, ROOT, env=os.environ | {"PYTHONPATH": path})
        pictures = [out for out in nb.cells[1].outputs if "image/svg+xml" in out.get("data", {})]
        assert pictures, "d2l.Trainer has shown no plot"
        return json.loads(result.read_text("utf-8"))


def in_notebook(name: str, h: int, s: int, quick: bool, result: str) -> None:
    """What a cell of that notebook calls; the plot is d2l's own, drawn in the kernel."""
    setup()
    importlib.import_module("helpers.d2l_bridge")  # before the clock starts
    case = cases.named(name, quick)
    model = case.build(case.settings[h], case.seeds[s])

    assert "inline" in matplotlib.get_backend(), matplotlib.get_backend()
    times = clocked(lambda: peers.d2l_trainer(case, model, h, s, display=True, validate=True))
    weights = {key: value.tolist() for key, value in model.state_dict().items()}
    Path(result).write_text(json.dumps(times | {"weights": weights}), "utf-8")


def live_plot_times(case: Case, runs: int, quick: bool) -> dict:
    """Of setting 0, which has no dropout, so that its weights can be compared."""
    net, _ = peers.together(case)
    found = [live_plot(case, 0, 0, quick) for _ in range(runs)]
    return {
        "times": {clock: [one[clock] for one in found] for clock in ("processor", "wall")},
        "difference": max(apart(member(net, 0, 0), one["weights"]) for one in found),
    }


# --- where the time goes -----------------------------------------------------------------


def parts(case: Case, runs: int) -> dict[str, list[float]]:
    """Processor seconds per model of what helpers.ensemble does, each alone, on one thread."""
    net, _ = peers.together(case._replace(epochs=1))  # which leaves gradients
    optimizer = getattr(ensemble, case.rule)(net.parameters(), **case.options(case.settings))
    B, drops = len(case.rows(0, 1)[0]), [la for la in net if isinstance(la, ensemble.Dropout)]
    S, H = len(case.seeds), len(case.settings)
    inputs = [torch.ones(S, H, width, B).mT for width in case.widths[1:-1]]  # as Linear gives them
    work = {
        "building the models": lambda: ensemble.stack(case.build, case.settings, case.seeds),
        "bare products": peers.bare_products(case),
        "optimizer": lambda: [optimizer.step() for _ in range(case.steps)],
    }
    if drops:
        work["dropout, forward"] = lambda: [
            drop(x) for _ in range(case.steps) for drop, x in zip(drops, inputs, strict=True)
        ]
    found = in_turn(work, runs)
    return {name: [v / case.members for v in times["processor"]] for name, times in found.items()}


# --- the page ----------------------------------------------------------------------------


CLOCK = {"1": "processor", "2": "wall"}
TITLES = {
    "linear": "### Linear regression in high dimension",
    "dropout": "### Digits with dropout",
    "sgd": "### Digits without dropout, under SGD",
}


class Goal(NamedTuple):
    """At least so many times as fast as the other, or at most so many times slower."""

    case: str
    other: str
    ours: str
    factor: float

    def text(self) -> str:
        how = "within" if self.other == BARE else "at least"
        return f"{NAMES[self.case]}, {how} {self.factor:,} × {self.other}"


NAMES = {"linear": "linear regression", "dropout": "digits 64-32-32-10, batches of 20"} | {
    f"full{width}": f"digits 64-{width}-{width}-10, full batch" for width in cases.WIDTHS
}
GOALS = [
    Goal("linear", PLAIN, OURS, 50),
    Goal("linear", D2L_VALIDATED, VALIDATED, 300),
    Goal("linear", D2L, OURS, 300),
    Goal("linear", D2L_PLOT, VALIDATED, 10_000),
    Goal("dropout", PLAIN, OURS, 12),
    Goal("dropout", D2L_VALIDATED, VALIDATED, 20),
    Goal("dropout", D2L, OURS, 20),
    Goal("full64", PLAIN, OURS, 2),
    Goal("full64", BARE, OURS, 4),
]


def page(results: dict) -> str:
    cases = results["cases"]
    several = [name for name in cases if name.startswith("full")]
    return "\n\n".join([
        INTRODUCTION,
        *(_section(name, case) for name, case in cases.items() if name in TITLES),
        _by_width({name: cases[name] for name in several}),
        _goals(cases),
    ])


INTRODUCTION = f"""## Training many models

Many models of one architecture, in float64: how long does one take? `{OURS}` trains them side by
side, the others one after the other. The plain loop is the usual one over `torch.optim`; d2l is
without its plot unless it says so; Lightning is without logger, checkpoints and progress bar;
skorch is silent; joblib runs the plain loop in two processes that wait for work. *Validated* means
that the loss (and of classes the accuracy) on other data is measured after every epoch, as D2L's
readers see it. With its live plot, d2l runs in a notebook; its kernel is counted, the browser
isn't. *Bare products* is the limit: the matrix products of all layers and steps as `torch.bmm`
does them, and nothing else.

All start from the same weights and get the same minibatches in the same order. Before anything is
timed, each must reach the same weights as `{OURS}` to {TOLERANCE:.0e}; where there is dropout, it
is given the same noise for that. Times are for one trained model. *Slower by* divides within each
round by `{OURS}`, or by its validated form where the other is validated."""


def _section(name: str, case: dict) -> str:
    one, two = (case["threads"][threads] for threads in "12")
    rows = [_row(who, case, one, two) for who in ORDER if who in WHO[name]]
    head = ["contender", "ms", "models × steps per s", "slower by",
            "two threads: ms", "models × steps per s", "slower by"]
    worst = max(case["differences"].values())
    return f"""{TITLES[name]}

{_what(case)} One thread: processor time. Two threads, or two processes: time on the clock.
{SAID.get(name, "")}
{table(head, rows)}
The largest difference of any weight from `{OURS}`: {worst:.0e}.

![](training_{name})

{_shares(case)}"""


SAID = {
    "linear": """scikit-learn's is `MLPRegressor` without hidden layers, an epoch a `partial_fit`
on rows in the common order; it decays no bias, so its weights are compared where λ = 0.
""",
    "sgd": """This is what scikit-learn's `MLPClassifier` can do: it has no dropout, and its Adam
puts ε elsewhere. An epoch is a `partial_fit` on rows in the common order.
""",
}


def _what(case: dict) -> str:
    widths = "-".join(map(str, case["widths"]))
    return (f"{case['members']} models {widths}, {case['steps']} steps each on "
            f"{case['batch']} samples.")


def _row(who: str, case: dict, one: Mapping, two: Mapping) -> list[str]:
    if who in case["absent"]:
        return [f"{who}: absent ({case['absent'][who]})", *["–"] * 6]
    return [who, *_cells(who, case, one, "processor"), *_cells(who, case, two, "wall")]


def _cells(who: str, case: dict, times: Mapping, clock: str) -> list[str]:
    if who not in times:
        return ["–"] * 3
    seconds = times[who][clock]
    speed = case["steps"] / statistics.median(seconds)
    return [middle([1e3 * value for value in seconds]), number(speed),
            middle(slower(who, times, clock))]


def slower(who: str, times: Mapping, clock: str, ours: str | None = None) -> list[float]:
    """How many times as long as helpers.ensemble takes, round by round."""
    ours = ours or (VALIDATED if who in (D2L_VALIDATED, D2L_PLOT) else OURS)
    base = times[ours][clock]
    if who == D2L_PLOT:  # took no part in the rounds
        base = [statistics.median(base)] * len(times[who][clock])
    return ratios(times[who][clock], base)


def _shares(case: dict) -> str:
    whole = statistics.median(case["threads"]["1"][OURS]["processor"])
    found = [f"{name} {100 * statistics.median(values) / whole:.0f} %"
             for name, values in case["parts"].items()]
    return (f"Measured alone, parts of what `{OURS}` does take these shares of its time: "
            f"{', '.join(found)}.")


def _by_width(cases: dict) -> str:
    rows = []
    for case in cases.values():
        times = case["threads"]["1"]
        ours, plain, bare = (times[who]["processor"] for who in FEW)
        rows.append([
            "-".join(map(str, case["widths"])),
            *(middle([1e3 * value for value in values]) for values in (ours, plain, bare)),
            middle(ratios(plain, ours)), middle(ratios(ours, bare)),
        ])
    head = ["widths", f"{OURS}: ms", f"{PLAIN}: ms", f"{BARE}: ms",
            f"{PLAIN} slower by", "ours over bare products"]
    one = next(iter(cases.values()))
    wide = list(cases.values())[-1]
    return f"""### Wider nets, full batch

{one['members']} models with dropout under AdamW, {one['steps']} steps each on all
{one['batch']} samples; processor time on one thread. The wider a net, the less of its time is
overhead that training side by side can save.

{table(head, rows)}
![](training_widths)

{_shares(wide)} This is of the widest."""


def _goals(cases: dict) -> str:
    rows, bounds = [], []
    for goal in (goal for goal in GOALS if goal.case in cases):
        case = cases[goal.case]
        found = goal_ratios(goal, case["threads"]["1"])
        rows.append([goal.text(), middle(found), "met" if met(goal, found) else "**not met**"])
        bounds += [] if met(goal, found) else [_bound(goal, case)]
    parts = [f"""### Goals

One thread, processor time.

{table(["goal", "measured", "its median"], rows)}""", *bounds]
    return "\n\n".join(part.strip() for part in parts)


def _bound(goal: Goal, case: dict) -> str:
    """What the ratio would be if helpers.ensemble did only what it can't do without."""
    least = sum(statistics.median(case["parts"][name]) for name in ("bare products", "optimizer"))
    other = statistics.median(case["threads"]["1"][goal.other]["processor"])
    best = least / other if goal.other == BARE else other / least
    return (f"Not met: {goal.text()}. With nothing but its matrix products and its optimizer it "
            f"would be {number(best)}. {_shares(case)}")


def goal_ratios(goal: Goal, times: Mapping) -> list[float]:
    if goal.other == BARE:
        return ratios(times[goal.ours]["processor"], times[BARE]["processor"])
    return slower(goal.other, times, "processor", goal.ours)


def met(goal: Goal, found: list[float]) -> bool:
    median = statistics.median(found)
    return median <= goal.factor if goal.other == BARE else median >= goal.factor


# --- figures -----------------------------------------------------------------------------


def figures(results: dict) -> dict:
    cases = results["cases"]
    found = {f"training_{name}": _speeds(case) for name, case in cases.items() if name in TITLES}
    several = [case for name, case in cases.items() if name.startswith("full")]
    return found | {"training_widths": _widths(several)}


def _speeds(case: dict) -> Figure:
    """Dots in a row for each contender, on a logarithmic scale."""
    from matplotlib import pyplot as plt

    here = [who for who in ORDER if any(who in t for t in case["threads"].values())]
    fig, ax = plt.subplots(figsize=(7, 1.4 + 0.3 * len(here)))
    for threads, marker, label in (("1", "o", "one thread"), ("2", "s", "two threads")):
        times = case["threads"][threads]
        there = [who for who in here if who in times]
        speeds = [case["steps"] / statistics.median(times[who][CLOCK[threads]]) for who in there]
        ax.plot(speeds, [here.index(who) for who in there], marker, linestyle="none", label=label)
    ax.set_yticks(range(len(here)), here)
    ax.invert_yaxis()
    ax.set(xlabel="models × steps per second", xscale="log", ylabel="contender")
    ax.legend()
    return fig


def _widths(cases: list[dict]) -> Figure:
    from matplotlib import pyplot as plt

    fig, ax = plt.subplots()
    widths = [case["widths"][1] for case in cases]
    for who, marker in zip(FEW, "osD", strict=True):
        seconds = [statistics.median(case["threads"]["1"][who]["processor"]) for case in cases]
        ax.plot(widths, [1e3 * value for value in seconds], marker=marker, label=who)
    ax.set(xlabel="width of both hidden layers", ylabel="ms per model", xscale="log", yscale="log")
    ax.set_xticks(widths, map(str, widths))
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    ax.legend()
    return fig
