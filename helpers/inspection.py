"""A check-up of a PyTorch set-up: the faults of *Myths and bugs* that a program can see.

Write ``print(checkup(model, optimizer, loader))`` where training begins. A silent check-up
proves nothing: it sees neither the training loop nor how the data were split and chosen.
"""

import dataclasses
import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import UninitializedTensorMixin
from torch.overrides import TorchFunctionMode

from helpers.models import _names, _rule

HOLDING_OUT = "Holding out, notebooks/03_holding_out"
L1 = "L1, notebooks/05_l1"
PENALTIES = "Penalties in a network, notebooks/06_penalties_in_a_network"
GROUPS = "Parameter groups, notebooks/08_parameter_groups"
ADAM = "Adam and AdamW, notebooks/09_adam_and_adamw"
DROPOUT = "Dropout by hand, notebooks/10_dropout_by_hand"
NETWORKS = "Dropout in networks, notebooks/11_dropout_in_networks"
MYTHS = "Myths and bugs, notebooks/16_myths_and_bugs"

SAMPLES = 100_000  # of either loader that are searched for overlap
ELEMENTS = 10_000  # of a tensor, where that many say as much as all


class Finding(NamedTuple):
    """What is wrong, where, and the chapter that explains it."""

    fault: str
    where: str
    chapter: str

    def __str__(self) -> str:
        return f"{self.fault}: {self.where} (see {self.chapter})"


class Findings(list):
    """A list of findings that prints as one line each."""

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "Nothing found."

    __repr__ = __str__


def checkup(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Iterable,
    *,
    validation: Iterable | None = None,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    zeros_expected: bool = False,
) -> Findings:
    """What looks wrong in a set-up for training; ``print`` shows one line per finding.

    model           in the mode in which it is going to train; called as model(X) on the first
                    batch
    loader          yields batches (X, …) anew each time it is iterated, as a DataLoader does,
                    and so does a list [(X, y)]; X is a tensor whose first axis is the samples
    validation      the same for validation data: which of its inputs are in loader too, among
                    the first 100,000 samples of each? None skips this
    penalty         the term that is added to the loss, as a function of the model
    zeros_expected  should training make weights exactly 0?

    Model, optimizer, loaders and random generators are left as they were. Raises TypeError if
    an argument is of another kind, ValueError if a loader is empty, or the model has no
    parameters, or still lazy ones; what model(X) or penalty(model) raises comes through.
    Source: Li et al. (2019) on batch norm after dropout. Taught in: notebooks/16_myths_and_bugs
    """
    _check_arguments(model, optimizer, loader, validation, penalty)
    with _with_graph(), _untouched(model, loader, validation):
        X = next(_batches("loader", loader))[0].to(next(model.parameters()).device)
        found = [*_groups(model, optimizer), *_decayed(model, optimizer), *_coupled(optimizer)]
        found += [*_switched_off(model), *_training_pass(model, X), *_evaluation(model, X)]
        if penalty is not None:
            value, slopes = _slopes(model, penalty)
            found += [*_penalty(model, value, slopes), *_rescaled(model, optimizer, slopes)]
            found += _zeros_by_subgradient(model, optimizer, slopes) if zeros_expected else []
        if zeros_expected:
            found += _zeros_by_decay(optimizer)
        if validation is not None:
            found += _overlap(loader, validation)
    return Findings(found)


# --- the optimizer -----------------------------------------------------------------------


def _groups(model: nn.Module, optimizer) -> Iterator[Finding]:
    """Every parameter belongs in exactly one group."""
    names = _names(model)
    counts = Counter(p for group in optimizer.param_groups for p in group["params"])
    never = [_name(names[p]) for p in names if p.requires_grad and p not in counts]
    twice = [_name(names[p]) for p in counts if counts[p] > 1 and p in names]
    strangers = [f"shape {tuple(p.shape)}" for p in counts if p not in names]
    yield from _finding("in no group of the optimizer, so never trained", never, GROUPS)
    yield from _finding("in several groups, or twice in one", twice, GROUPS)
    yield from _finding("in the optimizer, but not the model's", strangers, GROUPS)


def _decayed(model: nn.Module, optimizer) -> Iterator[Finding]:
    """What weight decay should leave alone, by the rule of ``decay_groups``."""
    groups = [group for group in optimizer.param_groups if group.get("weight_decay", 0) > 0]
    params = {p for group in groups for p in group["params"]}
    yield from _shrunk("decayed", model, params, GROUPS)


def _shrunk(verb: str, model: nn.Module, params: set, chapter: str) -> Iterator[Finding]:
    kinds = {"biases": [], "embeddings": [], "gains and slopes": []}
    for p, uses in _names(model).items():
        if p in params and p.requires_grad and all(_rule(*use) is False for use in uses.values()):
            owner, name = next(iter(uses.values()))
            kinds[_kind(owner, name)].append(_name(uses))
    for kind, names in kinds.items():
        yield from _finding(f"{verb} {kind}", names, chapter)


def _kind(owner: nn.Module, name: str) -> str:
    if "bias" in name:
        return "biases"
    embedding = isinstance(owner, nn.Embedding | nn.EmbeddingBag)
    return "embeddings" if embedding else "gains and slopes"


# Each divides the gradient, and so a coupled λw, by its running size.
ADAPTIVE = tuple(
    getattr(torch.optim, name)
    for name in ("Adam", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta")
)


def _coupled(optimizer) -> Iterator[Finding]:
    """Adaptive steps with weight decay that goes through them as an L2 penalty."""
    where = [
        f"group {number} has weight_decay={group['weight_decay']:g}"
        for number, group in enumerate(optimizer.param_groups)
        if group.get("weight_decay", 0) > 0 and not group.get("decoupled_weight_decay", False)
    ]
    if isinstance(optimizer, ADAPTIVE):
        name = type(optimizer).__name__
        yield from _finding(f"{name} rescales an L2 penalty; AdamW probably meant", where, ADAM)


# --- the model ---------------------------------------------------------------------------


def _switched_off(model: nn.Module) -> Iterator[Finding]:
    """Dropout in evaluation mode where training begins: someone forgot ``model.train()``.

    In a frozen part it may be on purpose.
    """
    parts = (m for m in model.modules() if {p.requires_grad for p in m.parameters()} == {False})
    frozen = {inner for m in parts for inner in m.modules()}
    off = {n: m for n, m in model.named_modules() if _drops(m) and not m.training}
    where = [_place(name, m) for name, m in off.items() if m not in frozen]
    yield from _finding("dropout is switched off while the model trains", where, DROPOUT)


def _drops(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0


def _training_pass(model: nn.Module, X: Tensor) -> Iterator[Finding]:
    """Batch norm after dropout, and parameters that the outputs don't depend on.

    Dropout changes the variance between training and evaluation, and batch norm stores that
    of training. We report it where no weights lie between the two.
    """
    if not model.training:  # else parts in evaluation mode are so on purpose
        model.train()
    with _Watch(model) as watch:
        outputs = model(X.clone())
    yield from _finding("batch norm after dropout", watch.noisy_norms, NETWORKS)
    unused = _unused(outputs, model)
    if unused:  # some layers are skipped at random in training, and all there in evaluation
        also = _unused(model.eval()(X.clone()), model)
        unused = [name for name in unused if name in also]
    yield from _finding("without effect on the outputs, by the graph", unused, MYTHS)


def _unused(outputs, model: nn.Module) -> list[str]:
    """Parameters that are not in the graph of the outputs, as far as one can see into it."""
    tensors = list(_tensors(outputs))
    nodes = _graph([t for t in tensors if t.requires_grad])
    if not tensors or any(node.name() == "CheckpointFunctionBackward" for node in nodes):
        return []  # an object of another kind; a checkpoint that builds its graph when it is used
    used = {node.variable for node in nodes if hasattr(node, "variable")}
    return [_name(uses) for p, uses in _names(model).items() if p.requires_grad and p not in used]


def _graph(tensors: list[Tensor]) -> set:
    """The nodes behind tensors. Looking at them, unlike a backward pass, calls no hook."""
    found, todo = set(), [torch.autograd.graph.get_gradient_edge(t).node for t in tensors]
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += [following for following, _ in node.next_functions if following]
    return found


def _evaluation(model: nn.Module, X: Tensor) -> Iterator[Finding]:
    """Two passes in evaluation mode: dropout must be off, and the outputs the same.

    A model that draws on purpose, as a variational autoencoder may, is reported too.
    """
    model.eval()
    with torch.no_grad(), _Watch(model) as first:
        model(X.clone())
    with torch.no_grad(), _Watch(model) as second:
        model(X.clone())
    yield from _finding("dropout is active in evaluation mode", first.active, DROPOUT)
    pairs = zip(first.outputs, second.outputs, strict=False)
    differ = [place for (place, a), (_, b) in pairs if not _same(a, b)]
    if not first.active:  # else the reason is known
        fault = "outputs differ between two passes in evaluation mode, first"
        yield from _finding(fault, differ[:1], DROPOUT)


def _same(a: list[Tensor], b: list[Tensor]) -> bool:
    """Equal but for rounding, which isn't repeatable on every device."""
    return len(a) == len(b) and all(
        s.shape == t.shape and torch.allclose(s, t, _rounding(s), _rounding(s), equal_nan=True)
        for s, t in zip(a, b, strict=True)
    )


def _rounding(t: Tensor) -> float:
    """Far above the rounding of one operation, far below 1: 1.5e-8 in float64, 0.09 in bfloat16."""
    exact = not (t.is_floating_point() or t.is_complex())
    return 0.0 if exact else torch.finfo(t.dtype).eps ** 0.5


class _Watch(TorchFunctionMode):
    """Notes in a forward pass where dropout drops, and which batch norms see its noise.

    active       places that call dropout with training=True
    noisy_norms  places whose batch norm has an input that still carries a dropout's noise
    outputs      (place, first elements) of each module, in the order in which they finish
    """

    DROPOUTS = (
        F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout,
        F.feature_alpha_dropout, torch.dropout,
    )
    NORMS = (F.batch_norm, torch.batch_norm)

    def __init__(self, model: nn.Module):
        super().__init__()
        self.places = [(m, _place(name, m)) for name, m in model.named_modules()]
        self.running, self.marks = ["the model"], {}
        self.active, self.noisy_norms, self.outputs = [], [], []

    def __enter__(self):
        self.handles = []
        for m, place in self.places:
            start, finish = partial(self._start, place), partial(self._finish, place)
            self.handles.append(m.register_forward_pre_hook(start))
            self.handles.append(m.register_forward_hook(finish, always_call=True))
        return super().__enter__()

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()
        self.marks.clear()  # it holds what the pass has computed
        return super().__exit__(*error)

    def _start(self, place: str, *_) -> None:
        self.running.append(place)

    def _finish(self, place: str, module, args, output) -> None:
        self.running.pop()
        # copies, since the next layer may work in place; of a part, since they are many
        parts = [t.detach().flatten()[:ELEMENTS].clone() for t in _tensors(output)]
        self.outputs.append((place, parts))

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Follow dropout's noise from tensor to tensor, up to where weights mix it."""
        output = function(*args, **(kwargs or {}))
        values = [*args, *(kwargs or {}).values()]
        marks = {self._mark(t) for t in _tensors(values)}
        if function in self.DROPOUTS:
            p, training = [v for v in values if not isinstance(v, Tensor)][:2]
            self.active += self.running[-1:] * bool(p and training)
            marks = {"noise"} if p else marks
        if marks == {"weight"}:  # W.T, say
            self.marks |= dict.fromkeys(_tensors(output), "weight")
        elif "noise" in marks and "weight" not in marks:
            self.marks |= dict.fromkeys(_tensors(output), "noise")
            self.noisy_norms += self.running[-1:] * (function in self.NORMS)
        return output

    def _mark(self, t: Tensor) -> str | None:
        weight = isinstance(t, nn.Parameter) and t.dim() > 1
        return "weight" if weight else self.marks.get(t)


# --- the penalty -------------------------------------------------------------------------


def _penalty(model: nn.Module, value: float, slopes: dict) -> Iterator[Finding]:
    """A penalty must reach weights of the model, and should leave biases and gains alone."""
    pulled = {p for p, slope in slopes.items() if slope.any()}
    where = [f"it is {value:.3g}, and no gradient reaches a parameter of the model"]
    if not slopes and value:
        yield from _finding("the penalty has left the graph", where, PENALTIES)
    elif not pulled and (not slopes or any(p.any() for p in slopes)):
        yield from _finding("the penalty matches no parameter", where, PENALTIES)
    yield from _shrunk("penalised", model, pulled, PENALTIES)


def _slopes(model: nn.Module, penalty) -> tuple[float, dict[Tensor, Tensor]]:
    """The penalty's value, and its gradient for each parameter that it depends on."""
    value = penalty(model)
    if not isinstance(value, Tensor | int | float) or torch.as_tensor(value).numel() != 1:
        raise TypeError(f"penalty must return one number, got {value!r:.60}")
    params = [p for p in model.parameters() if p.requires_grad]
    slopes = [None] * len(params)
    if params and getattr(value, "requires_grad", False):
        slopes = torch.autograd.grad(value, params, retain_graph=True, allow_unused=True)
    found = {p: g for p, g in zip(params, slopes, strict=True) if g is not None}
    return torch.as_tensor(value).item(), found


def _rescaled(model: nn.Module, optimizer, slopes: dict) -> Iterator[Finding]:
    """L2 in the loss of an adaptive optimizer is what its coupled weight decay would be."""
    where = _kinds(model, slopes)["L2"] if isinstance(optimizer, ADAPTIVE) else []
    fault = f"{type(optimizer).__name__} rescales L2 in the loss; AdamW's decay probably meant"
    yield from _finding(fault, where, ADAM)


# --- zeros -------------------------------------------------------------------------------


def _is_plain(optimizer) -> bool:
    """Does it take torch's own steps, with no proximal step in them?"""
    own = type(optimizer).step.__module__.startswith("torch.")
    return own and not optimizer._optimizer_step_post_hooks


def _zeros_by_decay(optimizer) -> Iterator[Finding]:
    decays = [group.get("weight_decay", 0) for group in optimizer.param_groups]
    where = [f"group {number}" for number, decay in enumerate(decays) if decay > 0]
    where = where if _is_plain(optimizer) else []
    yield from _finding("zeros expected, and weight decay makes none", where, L1)


def _zeros_by_subgradient(model: nn.Module, optimizer, slopes: dict) -> Iterator[Finding]:
    where = _kinds(model, slopes)["L1"] if _is_plain(optimizer) else []
    yield from _finding("zeros expected, and L1 in the loss makes none", where, L1)


def _kinds(model: nn.Module, slopes: dict) -> dict[str, list[str]]:
    """The parameters that an L1 part pulls by a constant, and those under L2 alone."""
    found, names = {"L1": [], "L2": []}, _names(model)
    for p, slope in slopes.items():
        constant, growing = _line(p.detach(), slope)
        if constant or growing:
            found["L1" if constant else "L2"].append(_name(names[p]))
    return found


def _line(w: Tensor, slope: Tensor) -> tuple[float, float]:
    """a and b of a slope (a + b|w|) sign(w); 0 and 0 where it isn't of that form."""
    size = w[w != 0][:ELEMENTS].abs().cpu().double()
    pull = (slope * w.sgn().conj()).real[w != 0][:ELEMENTS].cpu().double()
    if not len(size):
        return 0.0, 0.0
    A = torch.stack([torch.ones_like(size), size], 1)
    a, b = torch.linalg.lstsq(A, pull.unsqueeze(1), driver="gelsd").solution.flatten()
    rounding = _rounding(slope) * pull.abs().max()
    if (a + b * size - pull).abs().max() > rounding:
        return 0.0, 0.0
    parts = torch.stack([a, b * size.mean()])
    return tuple(parts.where(parts > rounding, 0).tolist())


# --- the data ----------------------------------------------------------------------------


def _overlap(loader, validation) -> Iterator[Finding]:
    """Samples with equal inputs; labels may differ, since those of training may be noisy."""
    held_out = Counter(_hashes("validation", validation))
    again = held_out.keys() & {row for row in _hashes("loader", loader) if row in held_out}
    count = sum(held_out[row] for row in again)
    where = [f"{count} of {held_out.total()} samples"] if count else []
    yield from _finding("validation data that are training data too", where, HOLDING_OUT)


def _hashes(name: str, loader) -> Iterator[int]:
    """One number for each sample, of the first ``SAMPLES``: a loader may have no end."""
    rows = (
        hash(row.tobytes())
        for X, *_ in _batches(name, loader)
        for row in X.detach().cpu().reshape(len(X), -1).contiguous().view(torch.uint8).numpy()
    )
    return islice(rows, SAMPLES)


def _batches(name: str, loader) -> Iterator[tuple]:
    """The loader's batches, each begun by a tensor of at least one sample."""
    empty = True
    for batch in loader:
        first = batch[0] if isinstance(batch, tuple | list) and len(batch) else None
        if not isinstance(first, Tensor) or not first.dim():
            raise TypeError(f"{name} must yield batches (X, …), X a tensor, as a list [(X, y)] "
                            f"does, got {_kinds_in(batch)}")
        if len(first):
            empty = False
            yield batch
    if empty:
        raise ValueError(f"{name} must yield at least one sample, got none")


def _kinds_in(batch) -> str:
    """tuple of dict, Tensor"""
    kinds = [type(item).__name__ for item in batch] if isinstance(batch, tuple | list) else []
    return type(batch).__name__ + " of " * bool(kinds) + ", ".join(kinds[:4])


# --- looking without touching ------------------------------------------------------------


def _check_arguments(model, optimizer, loader, validation, penalty) -> None:
    kinds = [
        ("model", "a torch.nn.Module, not scripted", _in_python(model), model),
        ("optimizer", "a torch.optim.Optimizer", isinstance(optimizer, torch.optim.Optimizer),
         optimizer),
        ("loader", "iterable anew each time, as a DataLoader is", _again(loader), loader),
        ("validation", "None, or iterable anew each time, as a DataLoader is",
         validation is None or _again(validation), validation),
        ("penalty", "None, or a function of the model", penalty is None or callable(penalty),
         penalty),
    ]
    for name, wanted, ok, given in kinds:
        if not ok:
            raise TypeError(f"{name} must be {wanted}, got {type(given)}")
    if not [*model.parameters()]:
        raise ValueError("model has no parameter to train")
    tensors = chain(model.parameters(), model.buffers())
    if any(isinstance(t, UninitializedTensorMixin) for t in tensors):
        raise ValueError("model has lazy parameters; call it on one batch first")


def _in_python(model) -> bool:
    """What TorchScript has compiled can't be looked into."""
    if not isinstance(model, nn.Module):
        return False
    return not any(isinstance(m, torch.jit.ScriptModule) for m in model.modules())


def _again(loader) -> bool:
    """An iterator would be used up by looking at it."""
    return isinstance(loader, Iterable) and not isinstance(loader, Iterator)


@contextmanager
def _with_graph():
    """With gradients, whatever the caller has switched off, and without ``torch.compile``."""
    compiler = "torch._dynamo" in sys.modules  # importing it takes seconds
    eager = torch.compiler.set_stance("force_eager") if compiler else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), eager:
        yield


@contextmanager
def _untouched(model: nn.Module, *loaders):
    """Put back what a forward pass or a look at the data may change."""
    owners = [*model.modules(), *_parts([*loaders])]
    dicts = [(d, dict(d)) for o in owners for d in _dicts(o)]
    weights = [(p, p.detach().clone()) for p in model.parameters()]
    streams = [stream for o in owners for stream in _streams(vars(o))]
    streams += [(random.setstate, random.getstate()), (np.random.set_state, np.random.get_state())]
    gpus = {t.device.index for t in model.parameters() if t.is_cuda}
    try:
        with torch.random.fork_rng(devices=gpus):
            _work_on_copies(model)
            yield
    finally:
        _put_back(dicts, weights, streams)


def _work_on_copies(model: nn.Module) -> None:
    """Of buffers, and of tensors and collections that are plain attributes.

    A graph in use may need the tensors; a collection may be a log, or a cache.
    """
    copies, internal = {}, vars(nn.Module())
    for m in model.modules():
        for name, value in [*vars(m).items(), *m._buffers.items()]:
            if name in internal or not isinstance(value, Tensor | list | dict | set | deque):
                continue
            if id(value) not in copies:
                copies[id(value)] = value.clone() if isinstance(value, Tensor) else copy(value)
            (m._buffers if name in m._buffers else vars(m))[name] = copies[id(value)]


def _put_back(dicts, weights, streams) -> None:
    for d, saved in dicts:
        d.clear()
        d.update(saved)
    for set_state, saved in streams:
        set_state(saved)
    with torch.no_grad():
        for p, saved in weights:
            if not torch.equal(p, saved):  # a needless copy would spoil a graph in use
                p.copy_(saved)


def _dicts(owner) -> list[dict]:
    inner = [owner._parameters, owner._buffers] if isinstance(owner, nn.Module) else []
    return [vars(owner), *inner]


def _streams(attributes: dict) -> Iterator[tuple[Callable, object]]:
    """How to set each random generator among the attributes, and its state now."""
    for value in attributes.values():
        several = isinstance(value, list | tuple) and len(value) < 1000  # a longer one holds data
        for item in value if several else [value]:
            match item:
                case torch.Generator() | np.random.RandomState():
                    yield item.set_state, item.get_state()
                case np.random.Generator(bit_generator=bits):
                    yield partial(setattr, bits, "state"), bits.state
                case random.Random():
                    yield item.setstate, item.getstate()


def _parts(todo: list) -> list:
    """Loaders, their data sets and samplers, as far as they have attributes."""
    found = {}
    while todo:
        part = todo.pop()
        if hasattr(part, "__dict__") and id(part) not in found:
            found[id(part)] = part
            todo += [vars(part).get(name) for name in ("dataset", "sampler", "batch_sampler")]
    return list(found.values())


# --- words and tensors -------------------------------------------------------------------


def _finding(fault: str, where: list[str], chapter: str) -> Iterator[Finding]:
    """One finding if there is a place for it, with the first places by name."""
    places = list(dict.fromkeys(where))
    more = [f"and {len(places) - 4} more"] if len(places) > 4 else []
    if places:
        yield Finding(fault, ", ".join(places[:4] + more), chapter)


def _name(uses: dict) -> str:
    return " = ".join(uses)


def _place(name: str, module: nn.Module) -> str:
    return f"{name or 'the model'} ({type(module).__name__})"


def _tensors(value) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists, dicts and data classes."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | tuple | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name, None))
