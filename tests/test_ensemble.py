"""Each member of an ensemble equals the same model trained alone with plain torch.optim."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers import ensemble
from helpers.data import Data, batches, corrupt_labels, digits, split
from helpers.ensemble import SGD, Adam, AdamW, evaluate, fit, member, stack
from helpers.models import cnn, mlp
from helpers.rng import generator, seeded

SEEDS, EPOCHS, BATCH = [3, 8], 3, 16
LRS, DECAYS, RATES = [0.02, 0.05, 0.01], [0.0, 0.1, 1.0], [0.1, 0.5, 0.3]


@pytest.fixture(scope="module")
def train() -> Data:
    return split(digits(), (64, 1), SEEDS)[0]


class NamedDropout(nn.Module):
    """Plain inverted dropout of one model, with the noise of a named stream."""

    draws = slice(None)  # all axes have noise of their own

    def __init__(self, p, seed, name):
        super().__init__()
        self.p, self.generator = p, generator(seed, f"dropout/{name}")

    def forward(self, x):
        if not self.training:
            return x
        noise = torch.rand(x.shape[self.draws], generator=self.generator)
        noise = noise.view(*noise.shape, *[1] * (x.dim() - noise.dim()))
        return x * (noise >= self.p) / (1 - self.p)


class NamedDropout2d(NamedDropout):
    draws = slice(2)  # one draw for each sample and channel


NAMED = {nn.Dropout: NamedDropout, nn.Dropout2d: NamedDropout2d}


def alone(model, optimizer, X, y, seed, loss=F.cross_entropy):
    """The training loop as anybody writes it."""
    model = nn.Sequential(*(
        NAMED[type(layer)](layer.p, seed, f"model.{i}") if type(layer) in NAMED else layer
        for i, layer in enumerate(model)
    ))
    optimizer = optimizer(model)
    for epoch in range(1, EPOCHS + 1):
        for rows in batches(len(y), BATCH, seed, epoch):
            optimizer.zero_grad()
            loss(model(X[rows]), y[rows]).backward()
            optimizer.step()
    return model


def groups(model, lr, decay):
    """Weights are decayed, biases and norm gains aren't, and learn at half the rate."""
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    others = [p for name, p in model.named_parameters() if not name.endswith("weight")]
    return [
        {"params": weights, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0, "lr": lr},
    ]


OPTIMIZERS = {
    "sgd": (SGD, torch.optim.SGD, {}),
    "momentum": (SGD, torch.optim.SGD, {"momentum": 0.9}),
    "adam": (Adam, torch.optim.Adam, {}),
    "adamw": (AdamW, torch.optim.AdamW, {}),
}
MODELS = {
    "mlp": lambda p, seed: mlp(64, 12, 8, 10, seed=seed),
    "dropout": lambda p, seed: mlp(64, 12, 8, 10, p=p, seed=seed),
    "batch norm": lambda p, seed: mlp(64, 12, 8, 10, p=p, batch_norm=True, seed=seed),
    "cnn": lambda p, seed: cnn(1, 3, 4, p=p, batch_norm=True, seed=seed),
    "channels": lambda p, seed: channels(p, seed),
}


def channels(p, seed):
    """A small CNN that drops whole channels after its first layer."""
    first, *others = cnn(1, 3, 4, seed=seed)
    return nn.Sequential(first, nn.Dropout2d(p), *others)


def largest_difference(model, state) -> float:
    """Of parameters and running statistics, relative to the largest of each tensor."""
    expected = model.state_dict()
    assert list(expected) == list(state)
    return max(
        ((state[k] - v).abs().max() / v.abs().max().clamp(min=1e-3)).item()
        for k, v in expected.items()
    )


@pytest.mark.parametrize("one_lr", [True, False], ids=["same lr", "lr per member"])
@pytest.mark.parametrize("grouped", [False, True], ids=["one group", "groups"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_member_equals_the_model_trained_alone(optimizer, model, grouped, one_lr, train):
    ours, torchs, options = OPTIMIZERS[optimizer]
    X = train.X.unflatten(-1, (1, 8, 8)) if model in ("cnn", "channels") else train.X
    lrs, decays = ([0.02] * 3, [0.1] * 3) if one_lr else (LRS, DECAYS)
    lr, decay = (0.02, 0.1) if one_lr else (lrs, decays)

    net = stack(MODELS[model], RATES, SEEDS)
    half = 0.01 if one_lr else [value / 2 for value in lrs]
    params = groups(net, half, decay) if grouped else net.parameters()
    fit(net, ours(params, lr, weight_decay=decay, **options), Data(X, train.y),
        seeds=SEEDS, epochs=EPOCHS, batch_size=BATCH)

    for h in range(len(RATES)):
        for s, seed in enumerate(SEEDS):
            def make(model, h=h):
                params = groups(model, lrs[h] / 2, decays[h]) if grouped else model.parameters()
                return torchs(params, lr=lrs[h], weight_decay=decays[h], **options)

            twin = alone(MODELS[model](RATES[h], seed), make, X[s], train.y[s], seed)
            assert largest_difference(twin, member(net, h, s)) < 1e-10


def test_regression_member_equals_the_model_trained_alone():
    X, y = torch.randn(2, 20, 7, generator=generator(0, "X")), torch.ones(2, 20)

    def build(_, seed):
        with seeded(seed):
            return nn.Sequential(nn.Linear(7, 1))

    net = stack(build, DECAYS, SEEDS)
    fit(net, SGD(net.parameters(), 0.1, weight_decay=DECAYS), Data(X, y), seeds=SEEDS,
        epochs=EPOCHS, batch_size=BATCH, loss=ensemble.half_mse)
    for h, decay in enumerate(DECAYS):
        for s, seed in enumerate(SEEDS):
            twin = alone(
                build(None, seed),
                lambda m, decay=decay: torch.optim.SGD(m.parameters(), 0.1, weight_decay=decay),
                X[s], y[s], seed, lambda out, t: F.mse_loss(out[:, 0], t) / 2,
            )
            assert largest_difference(twin, member(net, h, s)) < 1e-10


def test_a_member_does_not_depend_on_the_others(train):
    def trained(rates, decays, seeds, data):
        net = stack(MODELS["dropout"], rates, seeds)
        fit(net, AdamW(net.parameters(), weight_decay=decays), data, seeds=seeds, epochs=2,
            batch_size=BATCH)
        return net

    both = trained([0.1, 0.5], [0.0, 0.3], SEEDS, train)
    one = trained([0.5], [0.3], SEEDS[1:], Data(train.X[1:], train.y[1:]))
    for name, value in member(one, 0, 0).items():
        assert torch.allclose(value, member(both, 1, 1)[name], rtol=0, atol=1e-13)


def test_dropout2d_drops_whole_channels():
    layer = stack(lambda p, _: nn.Dropout2d(p), [0.5, 0.0], SEEDS)
    out = layer(torch.ones(2, 1, 40, 6, 3, 3))
    each = out.flatten(-2)
    assert (each == each[..., :1]).all() and (out[:, 1] == 1).all()
    assert set(out[:, 0].unique().tolist()) == {0, 2}
    assert not torch.equal(out[0], out[1])  # seeds differ


def test_frozen_parameters_stay(train):
    def build(_, seed):
        model = mlp(64, 8, 10, seed=seed)
        model[0].weight.requires_grad_(False)
        return model

    net = stack(build, [0], SEEDS)
    before = copy.deepcopy(net.state_dict())
    fit(net, AdamW(net.parameters()), train, seeds=SEEDS, epochs=1, batch_size=BATCH)
    assert torch.equal(net[0].weight, before["0.weight"])
    assert not torch.equal(net[2].weight, before["2.weight"])
    groups = [{"params": [net[0].weight]}, {"params": [net[2].weight]}]
    fit(net, AdamW(groups), train, seeds=SEEDS, epochs=1, batch_size=BATCH)
    assert torch.equal(net[0].weight, before["0.weight"])


def test_each_setting_may_have_labels_of_its_own(train):
    y = torch.stack([corrupt_labels(train.y, f, SEEDS) for f in (0.0, 0.5)], dim=1)
    net = stack(lambda _, seed: mlp(64, 8, 10, seed=seed), [0.0, 0.5], SEEDS)
    fit(net, SGD(net.parameters(), 0.1), Data(train.X.unsqueeze(1), y), seeds=SEEDS, epochs=EPOCHS,
        batch_size=BATCH)
    for h in range(2):
        twin = alone(mlp(64, 8, 10, seed=SEEDS[0]),
                     lambda m: torch.optim.SGD(m.parameters(), 0.1),
                     train.X[0], y[0, h], SEEDS[0])
        assert largest_difference(twin, member(net, h, 0)) < 1e-10


def test_layers_that_work_on_each_sample():
    def build(_, seed):
        with seeded(seed):
            return nn.Sequential(
                nn.Conv2d(1, 2, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(),
                nn.Sequential(nn.Linear(18, 3), nn.Identity()),
            )

    net, X = stack(build, [0, 1], SEEDS), torch.randn(2, 5, 1, 8, 8, generator=generator(0, "X"))
    out = net(X.unsqueeze(1))
    assert out.shape == (2, 2, 5, 3)
    for s, seed in enumerate(SEEDS):
        assert torch.allclose(out[s, 1], build(1, seed)(X[s]), rtol=0, atol=1e-14)


def test_fit_returns_settings_by_seeds_by_epochs(train):
    net = stack(MODELS["mlp"], RATES, SEEDS)
    history = fit(net, SGD(net.parameters(), 0.1), train, seeds=SEEDS, epochs=5, batch_size=BATCH,
                  watch={"train": train}, eval_every=2)
    assert set(history) == {"epoch", "train_loss", "train_accuracy"}
    assert history["epoch"].tolist() == [2, 4, 5]
    assert history["train_loss"].shape == (3, 2, 3)
    last = evaluate(net, train)
    assert torch.equal(history["train_loss"][..., -1], last["loss"])
    model = mlp(64, 12, 8, 10, seed=0)
    model.load_state_dict(member(net, 2, 1))
    outputs = model(train.X[1])
    assert torch.isclose(F.cross_entropy(outputs, train.y[1]), last["loss"][2, 1], atol=1e-13)
    right = (outputs.argmax(1) == train.y[1]).double().mean()
    assert torch.isclose(right, last["accuracy"][2, 1], atol=1e-13)


def test_evaluation_keeps_the_mode_and_draws_no_noise(train):
    net = stack(MODELS["dropout"], RATES, SEEDS)
    assert torch.equal(evaluate(net, train)["loss"], evaluate(net, train)["loss"])
    assert net.training and not (net.eval() and evaluate(net, train) and net.training)


def test_a_long_fit_shows_its_progress_and_a_silenced_one_nothing(train, monkeypatch, capsys):
    def long_fit():
        net = stack(MODELS["mlp"], [0], SEEDS)
        fit(net, SGD(net.parameters(), 0.1), train, seeds=SEEDS, epochs=3, batch_size=BATCH)
        return "".join(capsys.readouterr())

    bar = ensemble.tqdm
    monkeypatch.setattr(ensemble, "tqdm", lambda *a, **k: bar(*a, **k | {"delay": 0, "disable": 0}))
    assert "training" in long_fit()
    monkeypatch.setattr(ensemble, "tqdm", lambda *a, **k: bar(*a, **k | {"disable": True}))
    assert long_fit() == ""


@pytest.mark.parametrize(("build", "error", "says"), [
    (lambda h, s: nn.Sequential(nn.LayerNorm(4)), TypeError, "model.0 is LayerNorm"),
    (lambda h, s: mlp(4, 3 + h, 2, seed=s), ValueError, "model.0 is .*out_features=3.*=4"),
    (lambda h, s: mlp(4, *[3] * (h + 1), 2, seed=s), ValueError, "3 layers and .* 5 layers"),
    (lambda h, s: nn.Sequential(nn.ReLU() if h else nn.Tanh()), ValueError, "ReLU.. and Tanh"),
    (lambda h, s: nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), ValueError, "zeros"),
    (lambda h, s: [nn.Dropout(), nn.Dropout2d()][h], ValueError, "Dropout.* and Dropout2d"),
    (lambda h, s: nn.Dropout(h / 1), ValueError, r"p of model must be in \[0, 1\), got 1"),
    (lambda h, s: nn.Sequential(*[nn.Linear(2, 2)] * 2), ValueError,
     "0.weight and 1.weight are one parameter"),
])
def test_stack_names_what_it_cannot_do(build, error, says):
    with pytest.raises(error, match=says):
        stack(build, [0, 1], SEEDS)


def test_stack_needs_a_member():
    with pytest.raises(ValueError, match="at least one"):
        stack(MODELS["mlp"], [], SEEDS)


@pytest.mark.parametrize(("values", "says"), [
    ({"lr": -1.0}, "lr must be at least 0"),
    ({"lr": 0.1, "weight_decay": [0.1, -0.1, 0.0]}, "weight_decay must be at least 0"),
    ({"lr": 0.1, "weight_decay": [0.1, 0.1]}, "one per setting"),
    ({"lr": float("nan")}, "lr must be at least 0"),
    ({"lr": 0.1, "momentum": 1.0}, "momentum must be in"),
])
def test_optimizers_check_their_values(values, says):
    net = stack(MODELS["mlp"], RATES, SEEDS)
    with pytest.raises(ValueError, match=says):
        SGD(net.parameters(), **values)


def test_optimizers_check_their_groups():
    params = list(stack(MODELS["mlp"], RATES, SEEDS).parameters())
    with pytest.raises(ValueError, match="no parameters"):
        SGD([{"params": params}, {"params": []}], lr=0.1)
    with pytest.raises(ValueError, match="in two groups"):
        SGD([{"params": params}, {"params": params[:1]}], lr=0.1)
    with pytest.raises(ValueError, match="no parameters"):
        SGD([], lr=0.1)


def test_fit_checks_the_shapes_of_its_data(train):
    net = stack(MODELS["mlp"], RATES, SEEDS)
    opt = SGD(net.parameters(), 0.1)
    for data in (Data(train.X[0], train.y[0]), Data(train.X, train.y[:, :-1]),
                 Data(train.X[:1], train.y[:1])):
        with pytest.raises(ValueError, match="data must have X"):
            fit(net, opt, data, seeds=SEEDS, epochs=1)
    with pytest.raises(ValueError, match=r"at least one sample \(n ≥ 1\), got none"):
        evaluate(net, Data(train.X[:, :0], train.y[:, :0]))
    with pytest.raises(TypeError, match="X must be floating point, got torch.int64"):
        evaluate(net, Data(train.X.long(), train.y))
    with pytest.raises(TypeError, match="whole numbers"):
        fit(net, opt, Data(train.X, train.y.double()), seeds=SEEDS, epochs=1)
    for counts in ({"epochs": 0}, {"epochs": 1, "eval_every": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            fit(net, opt, train, seeds=SEEDS, **counts)
    with pytest.raises(ValueError, match="batch_size must be"):
        fit(net, opt, train, seeds=SEEDS, epochs=1, batch_size=65)


def test_losses_equal_torchs():
    g = generator(0, "losses")
    out, y = torch.randn(4, 3, 6, 5, generator=g), torch.randint(0, 5, (4, 3, 6), generator=g)
    assert torch.isclose(ensemble.cross_entropy(out, y)[1, 2], F.cross_entropy(out[1, 2], y[1, 2]))
    assert torch.isclose(ensemble.cross_entropy(out[0, 0], y[0, 0]),
                         F.cross_entropy(out[0, 0], y[0, 0]))
    z = torch.randn(4, 3, 6, generator=g)
    assert torch.isclose(ensemble.half_mse(out[..., :1], z)[1, 2],
                         F.mse_loss(out[1, 2, :, 0], z[1, 2]) / 2)
    with pytest.raises(ValueError, match="outputs must have shape"):
        ensemble.half_mse(out, z)


@pytest.mark.parametrize("loss", [ensemble.half_mse, ensemble.cross_entropy, ensemble.accuracy])
def test_targets_in_a_column_are_refused(loss):
    """They would be subtracted from each other in all pairs."""
    y = torch.zeros(6, 1, dtype=torch.long)
    with pytest.raises(ValueError, match=r"must agree in B, got \(6, 1\) and \(6, 1\)"):
        loss(torch.zeros(6, 1), y)
