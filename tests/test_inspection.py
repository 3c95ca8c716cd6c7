import dataclasses
import json
import random
import subprocess
import sys
from contextlib import nullcontext
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import helpers
from helpers import checkup, ensemble, inspection
from helpers.d2l_bridge import DataModule, d2l
from helpers.data import digits, split
from helpers.ensemble import stack
from helpers.inspection import Finding, Findings
from helpers.models import cnn, decay_groups, mlp
from helpers.rng import generator, seeded
from studies import mnist

ROOT = Path(__file__).parents[1]


def normal(*shape, stream="inspection"):
    return torch.randn(*shape, generator=generator(0, stream))


def loader(*shape, stream="inspection"):
    """Twelve samples in two batches."""
    return DataLoader(TensorDataset(normal(12, *shape, stream=stream), torch.arange(12) % 3), 6)


def faults(model, optimizer=None, X=(4,), **options):
    """What the check-up says of a model; without an optimizer, by one that is right."""
    optimizer = optimizer or torch.optim.AdamW(decay_groups(model, 0.1))
    return checkup(model, optimizer, loader(*X) if isinstance(X, tuple) else X, **options)


def require_one(found, fault, where):
    assert [finding.fault for finding in found] == [fault] and where == found[0].where, found


def weights(model):
    return [p for p in model.parameters() if p.dim() > 1]


# --- no false alarm ----------------------------------------------------------------------

BUILDERS = {
    f"{name}, p={p}, batch_norm={norm}": (build, p, norm)
    for name, build in {
        "mlp": lambda **options: mlp(4, 5, 6, 3, seed=0, **options),
        "cnn": lambda **options: cnn(1, 2, 3, seed=0, **options),
    }.items()
    for p in (None, 0.0, 0.5)
    for norm in (False, True)
}
OPTIMIZERS = {
    "AdamW": lambda model: torch.optim.AdamW(decay_groups(model, 0.1)),
    "SGD": lambda model: torch.optim.SGD(decay_groups(model, 0.1), lr=0.1, momentum=0.9),
    "Adam": lambda model: torch.optim.Adam(model.parameters()),
    "Adam, decoupled": lambda model: torch.optim.Adam(
        decay_groups(model, 0.1), decoupled_weight_decay=True
    ),
    "SGD without decay": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    "LBFGS": lambda model: torch.optim.LBFGS(model.parameters()),
}
PENALTIES = {
    "none": None,
    "L1": lambda model: 0.1 * sum(w.abs().sum() for w in weights(model)),
    "L2": lambda model: 0.1 * sum(w.square().sum() for w in weights(model)),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize(("build", "p", "norm"), BUILDERS.values(), ids=BUILDERS)
def test_no_false_alarm_on_the_books_own_models(build, p, norm, optimizer):
    model = build(p=p, batch_norm=norm)
    X = (4,) if isinstance(model[0], nn.Linear) else (1, 8, 8)
    for name, penalty in PENALTIES.items():
        step = optimizer(model)
        if name == "L2" and isinstance(step, inspection.ADAPTIVE):
            continue  # a fault: decay is meant to be decoupled there
        validation = loader(*X, stream="validation")
        found = faults(model, step, X, validation=validation, penalty=penalty)
        assert str(found) == "Nothing found." and not found


@cache
def chapter(name, *ids):
    """What the setup and these cells of a chapter define."""
    cells = json.loads((ROOT / f"notebooks/{name}.ipynb").read_text("utf-8"))["cells"]
    sources = {cell["id"]: "".join(cell["source"]) for cell in cells}
    namespace: dict = {"__name__": name}
    for cell in ("setup", *ids):
        exec(sources[cell], namespace)
    return namespace


def between(layer):
    return nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, 3))


def of_chapter_8(name):
    """With the groups that the chapter asks for."""
    model, decayed = chapter("08_parameter_groups", "scratch-attention", "scratch-networks")[
        "networks"][name]
    others = [n for n, _ in model.named_parameters() if n not in decayed]
    groups = decay_groups(model, 0.1, decay=sorted(decayed), no_decay=others)
    return model, torch.optim.AdamW(groups)


def of_chapter_10(kind, *p):
    model = between(chapter("10_dropout_by_hand", "scratch-torch", "scratch-reach")[kind](*p))
    return model, torch.optim.AdamW(decay_groups(model, 0.1))


def of_chapter_11(build, rates, *options):
    model = chapter("11_dropout_in_networks", "scratch-perceptron", "scratch-channels",
                    "scratch-shift")[build](rates, *options)
    return model, torch.optim.AdamW(decay_groups(model, 0.1))


def of_d2l(name, kind, *options, cells=()):
    model = chapter(name, *cells)[kind](*options)
    model(normal(3, 64))  # some layers are lazy until then
    return model, model.configure_optimizers()


def of_chapter_14():
    model = chapter("14_other_regularizers", "scratch-loop", "scratch-norm", "scratch-normed")[
        "normed"]([8, 40], [0, 1])
    return model, torch.optim.Adam(model.parameters())


def of_the_study(build, p):
    model = build(p, 0)
    return model, torch.optim.SGD(decay_groups(model, 0.1), lr=0.1, momentum=0.9)


TOKENS = torch.randint(60, (6, 5), generator=generator(0, "tokens"))
CHAPTERS = {  # as a chapter builds it, and inputs
    "8, convolution": (lambda: of_chapter_8("convolution, norm"), normal(6, 1, 8, 8)),
    "8, embedding": (lambda: of_chapter_8("embedding"), TOKENS),
    "8, attention": (lambda: of_chapter_8("attention"), normal(6, 5, 8)),
    "8, names": (lambda: of_chapter_8("debiased layer"), normal(6, 8)),
    "8, side by side": (lambda: of_chapter_8("side by side"), normal(1, 1, 6, 8)),
    "8, tied": (lambda: of_chapter_8("tied"), TOKENS),
    "10, by hand": (lambda: of_chapter_10("Dropout", 0.5), normal(6, 4)),
    "10, mode handed on": (lambda: of_chapter_10("ModeHandedOn"), normal(6, 4)),
    "10, registered": (lambda: of_chapter_10("Registered"), normal(6, 4)),
    "11, perceptron": (
        lambda: of_chapter_11("perceptron", (0.1, 0.2, 0.5, 0.1), 0), normal(6, 64)),
    "11, channels": (lambda: of_chapter_11("small_cnn", (0.1, 0.5), 0), normal(6, 1, 8, 8)),
    "11, normalised": (lambda: of_chapter_11("normalised", (0, 0.5), 0), normal(6, 64)),
    "14, normed": (of_chapter_14, normal(2, 1, 40, 64)),
    "3, D2L": (lambda: of_d2l("03_holding_out", "Net", 0, cells=["d2l-model"]), normal(6, 64)),
    "4, D2L": (lambda: of_d2l("04_l2", "Concise", 0.1, cells=["d2l-scratch"]), normal(6, 64)),
    "7, D2L": (
        lambda: of_d2l("07_weight_decay", "Concise", 0.1, 3, cells=["d2l-models"]), normal(6, 64)),
    "11, D2L": (lambda: of_d2l("11_dropout_in_networks", "DropoutMLP", 0.5, cells=["d2l-class"]),
                normal(6, 64)),
    "13, CNN": (lambda: of_the_study(mnist.small_cnn, 0.25), normal(6, 1, 28, 28)),
    "13, one hidden layer": (lambda: of_the_study(mnist.one_hidden_layer, 0), normal(6, 784)),
}


@pytest.mark.parametrize(("build", "X"), CHAPTERS.values(), ids=CHAPTERS)
def test_no_false_alarm_on_models_as_the_chapters_build_them(build, X):
    with seeded(0):
        model, optimizer = build()
    assert not checkup(model, optimizer, [(X, None)], validation=[(X + 1, None)])


@pytest.mark.parametrize(("build", "X", "fault"), [
    (lambda: of_chapter_10("Functional"), normal(6, 4), "dropout is active in evaluation mode"),
    (lambda: of_chapter_10("BuiltInForward"), normal(6, 4), "dropout is active in evaluation mode"),
    (lambda: of_chapter_11("normalised", (0.5, 0), 0), normal(6, 64), "batch norm after dropout"),
], ids=["10, F.dropout", "10, built in forward", "11, dropout first"])
def test_faults_as_the_chapters_build_them_are_found(build, X, fault):
    with seeded(0):
        model, optimizer = build()
    (finding,) = checkup(model, optimizer, [(X, None)])
    assert finding.fault == fault


class Language(nn.Module):
    """Attention, an embedding that is also the last layer, a bias for each position."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.pos = nn.Parameter(torch.zeros(5, 4))
        self.block = nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, batch_first=True)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.block(self.embed(x) + self.pos))


class Residual(nn.Module):
    """Batch norm first in the branch, dropout last, and weights between one and the next."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(4) for _ in range(2))
        self.W = nn.ParameterList(normal(4, 4, stream=f"W{i}") for i in range(2))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        for norm, W in zip(self.norms, self.W, strict=True):
            x = F.dropout(norm(x).relu() @ W.T, 0.3, self.training) @ W.T
        return {"logits": self.head(x), "features": [x]}


def residual_groups(model):
    groups = decay_groups(model, 0.1, decay=["W.*"])
    return torch.optim.AdamW(groups)


def frozen():
    model = mlp(4, 3, 2, seed=0)
    model[0].requires_grad_(False)
    return model


def frozen_backbone():
    """In evaluation mode on purpose, dropout and batch norm too."""
    backbone = mlp(4, 5, 6, p=0.5, batch_norm=True, seed=0).requires_grad_(False).eval()
    return nn.Sequential(backbone, nn.Linear(6, 3))


class Skipping(nn.Module):
    """Training skips the middle, and has a second head."""

    def __init__(self):
        super().__init__()
        self.first, self.middle, self.last = (nn.Linear(4, 4) for _ in range(3))
        self.second = nn.Linear(4, 2)

    def forward(self, x):
        x = self.first(x)
        return (self.last(x), self.second(x)) if self.training else self.last(self.middle(x))


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    attention: object = None


class Returning(nn.Module):
    """A linear layer, and whatever one makes of its output."""

    def __init__(self, make):
        super().__init__()
        self.layer, self.make = nn.Linear(4, 4), make

    def forward(self, x):
        return self.make(self.layer, x)


OTHERS = {  # model, optimizer, shape of a sample
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.PReLU(), nn.Dropout(),
                              nn.Linear(4, 3)), OPTIMIZERS["AdamW"], (4,)),
    "attention": (
        lambda: nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, batch_first=True),
        OPTIMIZERS["AdamW"], (5, 4)),
    "recurrent": (lambda: nn.LSTM(4, 3, num_layers=2, dropout=0.5, batch_first=True),
                  OPTIMIZERS["AdamW"], (5, 4)),
    "residual": (Residual, residual_groups, (4,)),
    "frozen": (frozen, OPTIMIZERS["AdamW"], (4,)),
    "frozen backbone": (frozen_backbone, OPTIMIZERS["AdamW"], (4,)),
    "skipping": (Skipping, OPTIMIZERS["AdamW"], (4,)),
    "data class": (lambda: Returning(lambda f, x: Output(f(x))), OPTIMIZERS["AdamW"], (4,)),
    "distribution": (
        lambda: Returning(lambda f, x: torch.distributions.Categorical(logits=f(x))),
        OPTIMIZERS["AdamW"], (4,)),
    "complex": (lambda: Returning(lambda f, x: torch.fft.fft(f(x))), OPTIMIZERS["AdamW"], (4,)),
    "checkpoint": (
        lambda: Returning(lambda f, x: checkpoint(f, x.requires_grad_(), use_reentrant=True)),
        OPTIMIZERS["AdamW"], (4,)),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
        lambda model: torch.optim.AdamW(model.parameters(), weight_decay=0), (4,)),
    "transformer": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, batch_first=True), 2),
        OPTIMIZERS["AdamW"], (5, 4)),
    "frozen, in the optimizer": (
        frozen, lambda model: torch.optim.AdamW(model.parameters(), weight_decay=0), (4,)),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.ReLU(), nn.Dropout2d(),
                              nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.Flatten()),
        OPTIMIZERS["SGD"], (1, 8, 8)),
    "zeros at the start": (
        lambda: nn.utils.skip_init(nn.Linear, 4, 1, bias=False).requires_grad_(),
        OPTIMIZERS["SGD"], (4,)),
}


@pytest.mark.parametrize(("build", "optimizer", "shape"), OTHERS.values(), ids=OTHERS)
def test_no_false_alarm_on_other_models(build, optimizer, shape):
    with seeded(0):
        model = build()
    if isinstance(model, nn.Linear):
        nn.init.zeros_(model.weight)
    for penalty in (None, PENALTIES["L1"]):
        assert not faults(model, optimizer(model), shape, penalty=penalty)


def test_a_part_in_evaluation_mode_stays_there():
    model = frozen_backbone()  # its batch norm could not train on one sample
    assert not checkup(model, OPTIMIZERS["AdamW"](model), [(normal(1, 4), None)])
    require_one(faults(frozen_backbone().eval()[0].requires_grad_()),
                "dropout is switched off while the model trains", "3 (Dropout)")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_precision_does_not_matter(dtype):
    model = mlp(4, 5, 3, p=0.5, batch_norm=True, seed=0).to(dtype)
    X = [(normal(6, 4).to(dtype), None)]
    optimizer = OPTIMIZERS["SGD without decay"](model)
    assert not checkup(model, optimizer, X, penalty=PENALTIES["L1"])
    found = checkup(model, optimizer, X, penalty=PENALTIES["L1"], zeros_expected=True,
                    validation=X)
    assert [finding.where for finding in found] == ["0.weight, 4.weight", "6 of 6 samples"]


@pytest.mark.parametrize("switch", [torch.no_grad, torch.inference_mode])
def test_the_callers_gradient_mode_does_not_matter(switch):
    model = mlp(4, 5, 3, p=0.5, batch_norm=True, seed=0)
    with switch():
        assert not faults(model, OPTIMIZERS["SGD"](model), penalty=PENALTIES["L1"])
        assert not torch.is_grad_enabled()


def test_a_compiled_model_is_looked_at_as_it_is_without_the_compiler():
    model = torch.compile(between(nn.Dropout()), backend="eager")
    assert not faults(model)
    model = torch.compile(BEFORE_NORM["layers"](), backend="eager")
    require_one(faults(model), "batch norm after dropout", "_orig_mod.3 (BatchNorm1d)")


def test_no_false_alarm_on_tied_weights():
    with seeded(0):
        model = Language()
    tokens = DataLoader(TensorDataset(torch.randint(7, (6, 5)), torch.zeros(6)), 3)
    for patterns in ({"no_decay": ["pos", "embed.*"]}, {"decay": ["head.*"], "no_decay": ["pos"]}):
        optimizer = torch.optim.AdamW(decay_groups(model, 0.1, **patterns))
        assert not checkup(model, optimizer, tokens)


def test_no_false_alarm_on_d2ls_layers_and_loaders():
    train, validation = split(digits(), (60, 60), 0)
    data = DataModule(train, validation)
    with seeded(0):
        model = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), d2l.Residual(2, use_1x1conv=True, strides=4),
            nn.Flatten(), nn.Dropout(), nn.LazyLinear(10),
        )
        model(train.X)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loaders = data.train_dataloader(), data.val_dataloader()
    assert not checkup(model, optimizer, loaders[0], validation=loaders[1])
    require_one(checkup(model, optimizer, loaders[0], validation=loaders[0]),
                "validation data that are training data too", "60 of 60 samples")


# --- the optimizer -----------------------------------------------------------------------

MODEL = mlp(4, 5, 3, seed=0, batch_norm=True)  # 0 linear, 1 batch norm, 3 linear
PARAMS = list(MODEL.parameters())
GROUPS = {
    "in no group of the optimizer, so never trained": (PARAMS[1:], "0.weight"),
    "in the optimizer, but not the model's": (
        [*PARAMS, nn.Parameter(torch.zeros(2, 3))], "shape (2, 3)"),
}


@pytest.mark.parametrize(("fault", "params", "where"), [(k, *v) for k, v in GROUPS.items()])
def test_parameters_are_in_exactly_one_group(fault, params, where):
    require_one(faults(MODEL, torch.optim.SGD(params, lr=0.1)), fault, where)


def test_a_parameter_in_two_groups_is_found():
    optimizer = torch.optim.SGD(PARAMS, lr=0.1)
    optimizer.param_groups.append(optimizer.param_groups[0] | {"params": PARAMS[:1]})
    require_one(faults(MODEL, optimizer), "in several groups, or twice in one", "0.weight")


def test_an_optimizer_of_another_model_is_found():
    found = faults(MODEL, torch.optim.SGD(deepcopy(MODEL).parameters(), lr=0.1))
    assert [finding.fault for finding in found] == list(GROUPS)
    assert found[0].where == "0.weight, 1.weight, 1.bias, 3.weight, and 1 more"


def test_decayed_biases_gains_and_embeddings_are_found():
    found = faults(MODEL, torch.optim.SGD(PARAMS, lr=0.1, weight_decay=0.1))
    assert [finding[:2] for finding in found] == [
        ("decayed biases", "1.bias, 3.bias"), ("decayed gains and slopes", "1.weight")
    ]
    with seeded(0):
        model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 2, bias=False))
    tokens = [(torch.tensor([[1, 2], [3, 4]]), None)]
    optimizer = torch.optim.AdamW(model.parameters())
    require_one(checkup(model, optimizer, tokens), "decayed embeddings", "0.weight")


@pytest.mark.parametrize(
    "name", ["Adam", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta"]
)
def test_adaptive_steps_with_an_l2_penalty_are_found(name):
    groups = decay_groups(MODEL, 0.1)
    optimizer = getattr(torch.optim, name)(groups)
    fault = f"{name} rescales an L2 penalty; AdamW probably meant"
    require_one(faults(MODEL, optimizer), fault, "group 0 has weight_decay=0.1")
    groups = decay_groups(MODEL, 0.0)
    assert not faults(MODEL, getattr(torch.optim, name)(groups))


@pytest.mark.parametrize("name", ["Adam", "AdamW", "RMSprop"])
def test_adaptive_steps_with_l2_in_the_loss_are_found(name):
    optimizer = getattr(torch.optim, name)(decay_groups(MODEL, 0.0))
    fault = f"{name} rescales L2 in the loss; AdamW's decay probably meant"
    require_one(faults(MODEL, optimizer, penalty=PENALTIES["L2"]), fault, "0.weight, 3.weight")
    norm = faults(MODEL, optimizer, penalty=lambda model: model[0].weight.norm())
    require_one(norm, fault, "0.weight")  # the norm itself shrinks all weights by one factor too
    for penalty in (PENALTIES["L1"], elastic, lambda model: model[0].weight.pow(4).sum()):
        assert not faults(MODEL, optimizer, penalty=penalty)


# --- dropout -----------------------------------------------------------------------------


class Net(nn.Module):
    """Two layers, and whatever one does between them."""

    def __init__(self, between, **layers):
        super().__init__()
        with seeded(0):
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.between = between

    def forward(self, x):
        return self.last(self.between(self, self.first(x)))


class ByHand(nn.Module):
    def forward(self, x):
        return x * (torch.rand_like(x) > 0.5) * 2


class AlwaysOn(nn.Dropout):
    def train(self, mode=True):
        return super().train(True)


def forced(net, x):
    return net.drop.train()(x)


ACTIVE = {  # what is done between the layers, further layers, where it is found
    "F.dropout": (lambda net, x: F.dropout(x), {}, "the model (Net)"),
    "F.dropout1d": (lambda net, x: F.dropout1d(x.unsqueeze(0), 0.3)[0], {}, "the model (Net)"),
    "torch.dropout": (lambda net, x: torch.dropout(x, 0.5, True), {}, "the model (Net)"),
    "made in forward": (lambda net, x: nn.Dropout(0.5)(x), {}, "the model (Net)"),
    "alpha dropout": (lambda net, x: nn.AlphaDropout(0.5)(x), {}, "the model (Net)"),
    "forced on": (forced, {"drop": nn.Dropout()}, "drop (Dropout)"),
    "ignores eval()": (lambda net, x: net.drop(x), {"drop": AlwaysOn()}, "drop (AlwaysOn)"),
}


@pytest.mark.parametrize(("between", "layers", "where"), ACTIVE.values(), ids=ACTIVE)
def test_dropout_that_ignores_the_mode_is_found(between, layers, where):
    require_one(
        faults(Net(between, **layers)), "dropout is active in evaluation mode", where
    )


def test_dropout_is_found_also_where_the_outputs_do_not_show_it():
    model = Net(lambda net, x: F.dropout(x))
    nn.init.zeros_(model.last.weight)
    require_one(faults(model), "dropout is active in evaluation mode", "the model (Net)")
    assert not faults(Net(lambda net, x: F.dropout(x, 0.0)))


NOISE = {
    "by hand": (lambda net, x: net.drop(x), {"drop": ByHand()}, "drop (ByHand)"),
    "in place": (lambda net, x: net.relu(x.mul_(net.drop(x))), {
        "drop": ByHand(), "relu": nn.ReLU(inplace=True)}, "drop (ByHand)"),
    "Bernoulli": (lambda net, x: x * torch.bernoulli(x * 0 + 0.5), {}, "last (Linear)"),
    "attention": (
        lambda net, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5), {},
        "last (Linear)"),
    "NumPy": (lambda net, x: x * torch.tensor(np.random.rand(8)), {}, "last (Linear)"),
}


@pytest.mark.parametrize(("between", "layers", "where"), NOISE.values(), ids=NOISE)
def test_outputs_that_differ_in_evaluation_mode_are_found(between, layers, where):
    fault = "outputs differ between two passes in evaluation mode, first"
    require_one(faults(Net(between, **layers)), fault, where)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_rounding_is_no_difference_and_noise_is(dtype):
    t = torch.linspace(1, 2, 100).to(dtype)
    assert inspection._same([t, t > 1], [t * (1 + 2 * torch.finfo(dtype).eps), t > 1])
    for other in ([t * 1.2, t > 1], [t, t > 2], [t], [t[1:], t > 1]):
        assert not inspection._same([t, t > 1], other)


def test_dropout_that_evaluation_left_off_is_found():
    model = mlp(4, 5, 3, p=0.5, seed=0)
    fault = "dropout is switched off while the model trains"
    require_one(faults(model.eval()), fault, "2 (Dropout)")
    model.train()[2].eval()
    require_one(faults(model), fault, "2 (Dropout)")
    assert not faults(mlp(4, 5, 3, p=0.0, seed=0).eval())  # nothing to switch off


BEFORE_NORM = {
    "layers": lambda: nn.Sequential(
        nn.Linear(4, 3), nn.Dropout(), nn.ReLU(), nn.BatchNorm1d(3), nn.Linear(3, 2)),
    "slopes": lambda: nn.Sequential(
        nn.Linear(4, 3), nn.Dropout(), nn.PReLU(), nn.BatchNorm1d(3), nn.Linear(3, 2)),
    "images": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 1), nn.Dropout2d(), nn.MaxPool2d(2),
        nn.BatchNorm2d(2)),
    "functions": lambda: Net(
        lambda net, x: net.norm(x + torch.tanh(F.dropout(x, 0.5, net.training))),
        norm=nn.BatchNorm1d(8)),
}


@pytest.mark.parametrize("name", BEFORE_NORM)
def test_batch_norm_that_sees_dropouts_noise_is_found(name):
    with seeded(0):
        model = BEFORE_NORM[name]()
    (finding,) = faults(model)
    assert finding.fault == "batch norm after dropout" and "(BatchNorm" in finding.where


def test_batch_norm_in_another_branch_than_dropout_is_fine():
    def branches(net, x):
        dropped = F.dropout(x, 0.5, net.training)  # runs first, but doesn't lead to the norm
        return net.norm(x) + dropped

    assert not faults(Net(branches, norm=nn.BatchNorm1d(8)))


# --- the graph ---------------------------------------------------------------------------


def test_parameters_that_the_outputs_do_not_depend_on_are_found():
    fault = "without effect on the outputs, by the graph"
    require_one(faults(Net(lambda net, x: x, spare=nn.Linear(2, 2))), fault,
                "spare.weight, spare.bias")
    require_one(faults(Net(lambda net, x: x.detach())), fault, "first.weight, first.bias")
    broken = mlp(4, 3, seed=0)
    broken.register_forward_hook(lambda module, args, out: torch.tensor(out.tolist()))
    require_one(faults(broken), fault, "0.weight, 0.bias")


# --- the penalty -------------------------------------------------------------------------


def no_match(model):
    return 0.1 * sum(p.abs().sum() for name, p in model.named_parameters() if "kernel" in name)


def masked(model):
    return sum(p.abs().sum() * ("kernel" in name) for name, p in model.named_parameters())


ELSEWHERE = nn.Linear(2, 2)
NOTHING = "it is 0, and no gradient reaches a parameter of the model"
MISSED = {
    "no name matches": (no_match, "the penalty matches no parameter", NOTHING),
    "a mask of zeros": (masked, "the penalty matches no parameter", NOTHING),
    "a number": (lambda model: PENALTIES["L1"](model).item() * 0 + 2.5, "left the graph", "2.5"),
    "detached": (lambda model: PENALTIES["L1"](model).detach() * 0 + 2, "left the graph", "is 2,"),
    "no_grad": (torch.no_grad()(lambda model: PENALTIES["L1"](model)), "left the graph", "it is"),
    "another model": (lambda model: ELSEWHERE.weight.abs().sum(), "left the graph", "it is"),
}


@pytest.mark.parametrize(("penalty", "fault", "where"), MISSED.values(), ids=MISSED)
def test_a_penalty_that_reaches_no_parameter_is_found(penalty, fault, where):
    (finding,) = faults(MODEL, penalty=penalty)
    assert fault in finding.fault and where in finding.where and "06_pen" in finding.chapter


def test_a_penalty_on_biases_and_gains_is_found():
    model = mlp(4, 5, 3, seed=0, batch_norm=True)
    found = faults(model, penalty=lambda net: sum(p.abs().sum() for p in net.parameters()))
    assert [finding[:2] for finding in found] == [
        ("penalised biases", "3.bias"), ("penalised gains and slopes", "1.weight")
    ]


LASSO = "zeros expected, and L1 in the loss makes none"


def elastic(model):
    return PENALTIES["L1"](model) + PENALTIES["L2"](model)


@pytest.mark.parametrize("penalty", [PENALTIES["L1"], elastic], ids=["L1", "elastic net"])
def test_l1_by_subgradient_with_zeros_expected_is_found(penalty):
    optimizer = OPTIMIZERS["SGD without decay"](MODEL)
    found = faults(MODEL, optimizer, penalty=penalty, zeros_expected=True)
    require_one(found, LASSO, "0.weight, 3.weight")
    assert not faults(MODEL, optimizer, penalty=penalty)
    assert not faults(MODEL, optimizer, penalty=PENALTIES["L2"], zeros_expected=True)


def test_l1_on_a_large_layer_in_float32_is_found():
    model = nn.Linear(1000, 500, dtype=torch.float32)
    X = [(torch.ones(2, 1000, dtype=torch.float32), None)]
    found = checkup(model, OPTIMIZERS["SGD without decay"](model), X, zeros_expected=True,
                    penalty=PENALTIES["L1"])
    require_one(found, LASSO, "weight")


def test_zeros_expected_from_weight_decay_are_found():
    found = faults(MODEL, OPTIMIZERS["SGD"](MODEL), zeros_expected=True)
    require_one(found, "zeros expected, and weight decay makes none", "group 0")


class ProximalSGD(torch.optim.SGD):
    def step(self, closure=None):
        super().step(closure)


def test_a_proximal_step_may_expect_zeros():
    hooked = torch.optim.SGD(PARAMS, lr=0.1)
    hooked.register_step_post_hook(lambda *_: None)
    for optimizer in (ProximalSGD(PARAMS, lr=0.1), hooked):
        assert not faults(MODEL, optimizer, penalty=PENALTIES["L1"], zeros_expected=True)


# --- the data ----------------------------------------------------------------------------


def test_equal_samples_are_counted_whatever_their_labels():
    X = normal(20, 4)
    train = DataLoader(TensorDataset(X[:12], torch.zeros(12)), 5, shuffle=True)
    validation = DataLoader(TensorDataset(X[9:], torch.ones(11)), 4)
    found = faults(MODEL, X=train, validation=validation)
    require_one(found, "validation data that are training data too", "3 of 11 samples")
    assert not faults(MODEL, X=train, validation=[(X[12:], None)])
    close = [(X[:12] + 1e-12, None)]  # equal means equal
    assert not faults(MODEL, X=train, validation=close)


def test_what_repeats_within_one_part_is_no_overlap_and_counts_in_the_other():
    X, Z = normal(3, 4), normal(3, 4, stream="validation")
    assert not faults(MODEL, X=[(X.repeat(3, 1), 0)], validation=[(Z.repeat(2, 1), 0)])
    found = faults(MODEL, X=[(X, 0)], validation=[(torch.cat([X[:1], X[:1], Z]), 0)])
    assert found[0].where == "2 of 5 samples"


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.rand(4), 0


def test_loaders_without_an_end_are_searched_to_a_limit(monkeypatch):
    monkeypatch.setattr(inspection, "SAMPLES", 50)
    endless = DataLoader(Endless(), 8)
    assert not faults(MODEL, X=endless, validation=endless)


@pytest.mark.parametrize("rest", [[], [0], [0, 1], [{}]])
def test_what_comes_after_the_inputs_does_not_matter(rest):
    for kind in (list, tuple):
        assert not faults(MODEL, X=[kind([normal(3, 4), *rest])])


# --- nothing is changed ------------------------------------------------------------------


class Restless(nn.Module):
    """Everything that a forward pass may change."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4, max_norm=0.1)
        self.norm, self.drop, self.out = nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3)
        self.own, self.log = generator(0, "own"), []
        self.register_buffer("mean", torch.zeros(4))
        self.plain, self.calls = torch.zeros(4), 0

    def forward(self, x):
        x = self.norm(x.add_(1) + self.embed(torch.arange(len(x)) % 5))
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        self.plain += x.detach().mean(0)
        self.calls += 1
        self.log.append(len(x))
        return self.drop(self.out(x * torch.rand(4, generator=self.own)))


class Augmented(Dataset):
    def __init__(self):
        self.reads, self.own = 0, generator(0, "data")
        self.numpys, self.pythons = np.random.default_rng(0), random.Random(0)
        self.old, self.dataset = np.random.RandomState(0), self  # a ring

    def __len__(self):
        return 8

    def __getitem__(self, i):
        self.reads += 1
        noise = random.random() + np.random.rand() + torch.rand(4, generator=self.own)
        more = self.numpys.random() + self.pythons.random() + self.old.rand()
        return normal(8, 4)[i] + noise + more, 0


def set_up():
    """A model half-way through training, and a loader with a generator of its own."""
    with seeded(0):
        model = Restless()
        loader = DataLoader(Augmented(), 4, shuffle=True, generator=generator(0, "shuffle"))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(normal(6, 4)).sum().backward()
        optimizer.step()
    model.norm.eval()
    with torch.no_grad():
        model.embed.weight.mul_(100)  # so that max_norm shrinks it again
    return model, optimizer, loader


def state(model, optimizer, loader):
    """All that must stay, as bytes and plain values."""
    tensors = [*model.state_dict().values(), model.plain, *(p.grad for p in model.parameters())]
    momenta = [s["momentum_buffer"] for s in optimizer.state.values()]
    streams = [torch.get_rng_state(), model.own.get_state(), loader.generator.get_state(),
               loader.dataset.own.get_state()]
    return [
        *(t.detach().numpy().tobytes() for t in (*tensors, *momenta, *streams)),
        [m.training for m in model.modules()], model.calls, len(model.log), loader.dataset.reads,
        str(loader.dataset.numpys.bit_generator.state), loader.dataset.pythons.getstate(),
        str(loader.dataset.old.get_state()),
        random.getstate(), np.random.get_state()[1].tobytes(), np.random.get_state()[2:],
        repr(optimizer.param_groups), torch.is_grad_enabled(), list(vars(model)),
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
    ]


def changes(model, optimizer, loader):
    before = state(model, optimizer, loader)
    found = checkup(
        model, optimizer, loader, validation=loader, zeros_expected=True,
        penalty=lambda net: F.dropout(net.out.weight).abs().sum(),
    )
    assert found
    after = state(model, optimizer, loader)
    return [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]


def test_nothing_is_changed():
    assert changes(*set_up()) == []


def test_a_change_would_be_noticed(monkeypatch):
    monkeypatch.setattr(inspection, "_untouched", lambda *_: nullcontext())
    kept = random.getstate(), np.random.get_state()
    assert len(changes(*set_up())) > 10
    random.setstate(kept[0])
    np.random.set_state(kept[1])


def test_everything_is_put_back_after_an_error_too():
    model, optimizer, loader = set_up()
    model.out.register_forward_hook(lambda *_: 1 / 0)
    before = state(model, optimizer, loader)
    with pytest.raises(ZeroDivisionError):
        checkup(model, optimizer, loader)
    assert state(model, optimizer, loader) == before


def test_no_hook_of_a_parameter_is_called():
    model, calls = mlp(4, 3, seed=0), []
    model[0].weight.register_hook(lambda _: calls.append("tensor"))
    model[0].weight.register_post_accumulate_grad_hook(lambda _: calls.append("accumulated"))
    assert not faults(model) and not calls


def test_a_graph_in_use_stays_usable():
    model = mlp(4, 5, 3, p=0.5, batch_norm=True, seed=0)
    loss = model(normal(6, 4)).square().sum() + (penalty := PENALTIES["L1"](model))
    assert not faults(model, penalty=lambda _: penalty)
    loss.backward()
    assert model[0].weight.grad.any()


# --- bad input ---------------------------------------------------------------------------

SGD = torch.optim.SGD(PARAMS, lr=0.1)
GOOD = {"model": MODEL, "optimizer": SGD, "loader": loader(4)}


@pytest.mark.parametrize(("given", "error", "says"), [
    ({"model": PARAMS}, TypeError, "model must be a torch.nn.Module, .* got <class 'list'>"),
    ({"optimizer": PARAMS}, TypeError, "must be a torch.optim.Optimizer, got <class 'list'>"),
    ({"optimizer": ensemble.SGD(stack(lambda _, seed: mlp(4, 3, seed=seed), [0], [0]).parameters(),
                                0.1)},
     TypeError, "must be a torch.optim.Optimizer, got <class 'helpers.ensemble.SGD'>"),
    ({"loader": 3}, TypeError, "loader must be iterable anew each time, .* got <class 'int'>"),
    ({"loader": iter([])}, TypeError, "loader must be iterable anew each time, .* 'list_it"),
    ({"loader": GOOD["loader"].dataset}, TypeError, "loader must be iterable .*TensorDataset"),
    ({"loader": []}, ValueError, "loader must yield at least one sample, got none"),
    ({"loader": [normal(3, 4)]}, TypeError, r"loader must yield batches \(X, .* got Tensor"),
    ({"loader": [{"X": normal(3, 4)}]}, TypeError, r"as a list \[\(X, y\)\] does, got dict"),
    ({"loader": [([1.0], 0)]}, TypeError, "X a tensor, .* got tuple of list, int"),
    ({"loader": [(torch.tensor(1.0), 0)]}, TypeError, "X a tensor, .* got tuple of Tensor, int"),
    ({"loader": [()]}, TypeError, "X a tensor, .* got tuple"),
    ({"validation": iter([])}, TypeError, "validation must be None, or iterable anew"),
    ({"validation": []}, ValueError, "validation must yield at least one sample"),
    ({"penalty": 0.1}, TypeError, "None, or a function of the model, got <class 'float'>"),
    ({"penalty": lambda model: "0"}, TypeError, "penalty must return one number, got '0'"),
    ({"penalty": lambda model: PARAMS[0]}, TypeError, "penalty must return one number"),
    ({"model": nn.ReLU()}, ValueError, "model has no parameter to train"),
    ({"model": nn.LazyLinear(3)}, ValueError, "lazy parameters; call it on one batch first"),
    ({"model": between(nn.LazyBatchNorm1d(affine=False))}, ValueError, "lazy parameters"),
    ({"model": nn.Sequential(torch.jit.ScriptModule())}, TypeError,
     "not scripted, got <class 'torch.nn.modules.container.Sequential'>"),
])
def test_bad_input_is_named(given, error, says):
    with pytest.raises(error, match=says):
        checkup(**GOOD | given)


# --- what it says ------------------------------------------------------------------------


def chapters():
    return [v for k, v in vars(inspection).items() if k.isupper() and "notebooks/" in str(v)]


def in_the_book(chapter):
    """Is the chapter there, or announced in the table of contents?"""
    file = chapter.rsplit(", ")[-1]
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    listed = {page["file"] for part in toc["parts"] for page in part["chapters"]}
    return file in listed or (ROOT / f"{file}.ipynb").is_file()


@pytest.mark.parametrize("chapter", chapters())
def test_every_finding_leads_to_a_chapter(chapter):
    assert in_the_book(chapter) and not in_the_book(chapter + "_gone")


def test_a_finding_is_one_readable_line():
    found = Findings([Finding("decayed biases", "0.bias", inspection.GROUPS)] * 2)
    line = "decayed biases: 0.bias (see Parameter groups, notebooks/08_parameter_groups)"
    assert str(found) == repr(found) == f"{line}\n{line}"
    assert str(Findings()) == "Nothing found."


def test_importing_helpers_does_not_wait_for_the_check_up():
    code = "import sys, helpers.setup; print('torch' in sys.modules); helpers.checkup"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "False\n" and not run.stderr
    with pytest.raises(AttributeError, match="no attribute 'chekup'"):
        _ = helpers.chekup
