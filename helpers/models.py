"""Plain ``nn.Module`` builders, with the seed as an argument, and parameter groups."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise

import torch
from torch import Tensor, nn

from helpers import ensemble
from helpers.rng import seeded

# --- builders ----------------------------------------------------------------------------


def mlp(
    *widths: int,
    seed: int,
    p: float | Sequence[float] | None = None,
    batch_norm: bool = False,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """A multilayer perceptron: linear layers with an activation between them.

    widths      input, hidden …, output: ``mlp(64, 32, 10, seed=0)`` maps (B, 64) to (B, 10)
    seed        of the initial weights, which are PyTorch's defaults
    p           drop probability after each hidden layer, in [0, 1): one, or one per layer;
                None makes no dropout layers, 0 makes layers that drop nothing
    batch_norm  normalise before each activation; the linear layer then has no bias, since
                normalisation would remove it

    Raises ValueError if there are fewer than two widths, or p doesn't fit.
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"mlp: widths must be at least input and output, each ≥ 1, got {widths}")
    rates = _rates(p, len(widths) - 2)
    layers = []
    with seeded(seed):
        for (d_in, d_out), rate in zip(pairwise(widths[:-1]), rates, strict=True):
            layers.append(nn.Linear(d_in, d_out, bias=not batch_norm))
            layers += [nn.BatchNorm1d(d_out)] if batch_norm else []
            layers.append(activation())
            layers += [] if p is None else [nn.Dropout(rate)]
        return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def cnn(
    *channels: int,
    seed: int,
    size: int = 8,
    classes: int = 10,
    p: float | None = None,
    batch_norm: bool = False,
) -> nn.Sequential:
    """A small convolutional net: 3 × 3 convolutions that halve the image, then one linear layer.

    channels  of the input, then after each convolution: ``cnn(1, 8, 16, seed=0)`` maps
              (B, 1, 8, 8) to (B, 10); a stride of 2 halves, much faster than pooling
    size      height and width of the image in pixels
    p         drop probability before the linear layer, in [0, 1); None makes no dropout layer

    Raises ValueError if there are fewer than two channels, or p doesn't fit.
    """
    if len(channels) < 2 or min(channels) < 1:
        raise ValueError(f"cnn: channels must be at least two numbers ≥ 1, got {channels}")
    (rate,) = _rates(p, 1)
    layers = []
    with seeded(seed):
        for c_in, c_out in pairwise(channels):
            layers.append(nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=not batch_norm))
            layers += [nn.BatchNorm2d(c_out)] if batch_norm else []
            layers.append(nn.ReLU())
            size = (size + 1) // 2
        layers += [nn.Flatten()] if p is None else [nn.Flatten(), nn.Dropout(rate)]
        return nn.Sequential(*layers, nn.Linear(channels[-1] * size**2, classes))


def _rates(p, n: int) -> list[float]:
    rates = list(p) if isinstance(p, Sequence) else [p or 0.0] * n
    if len(rates) != n or not all(0 <= rate < 1 for rate in rates):
        raise ValueError(f"p must be in [0, 1): one number, or {n} (one per layer), got {p}")
    return rates


# --- parameter groups --------------------------------------------------------------------

# Their weights multiply inputs, so decay makes the function smoother.
DECAYED = (
    nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase,
    nn.MultiheadAttention, ensemble.Linear, ensemble.Conv2d,
)
# Gains of normalisation, slopes, and rows that most steps give no gradient.
NOT_DECAYED = (
    nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU,
    nn.Embedding, nn.EmbeddingBag, ensemble.BatchNorm,
)


def decay_groups(
    model: nn.Module,
    weight_decay: float | Sequence[float] | Tensor,
    *,
    decay: Sequence[str] = (),
    no_decay: Sequence[str] = (),
) -> list[dict]:
    """Two parameter groups for an optimizer: what is decayed, and what isn't.

    weight_decay     λ ≥ 0 of the first group; the second has 0. One per setting or member is
                     fine where the optimizer takes it (``helpers.ensemble``)
    decay, no_decay  patterns of parameter names, such as "pos" or "blocks.*.scale", that
                     overrule the rule

    The rule goes by the type of the module that owns a parameter: weights of linear,
    convolutional, recurrent and attention layers are decayed; biases, norm layers and
    embeddings aren't. Frozen parameters are left out; a tied one counts once. A group without
    parameters is left out.

    Raises ValueError if weight_decay is negative or not finite, a pattern matches no name, two
    patterns contradict each other, or the rule doesn't say: a parameter of a module of
    another type, one shared by layers of which only some are decayed, or nothing to train.
    Taught in: notebooks/08_parameter_groups
    """
    _check_decay(weight_decay)
    names = _names(model)
    asked = {True: _matching(names, "decay", decay), False: _matching(names, "no_decay", no_decay)}
    rows = {True: [], False: []}
    for p, uses in names.items():
        if p.requires_grad:
            rows[_is_decayed(uses, asked)].append(p)
    if not any(rows.values()):
        raise ValueError("model: it has no parameter to train")
    values = {True: weight_decay, False: 0.0}
    return [{"params": rows[k], "weight_decay": values[k]} for k in rows if rows[k]]


def audit(model: nn.Module, groups: Iterable[Mapping]) -> str:
    """The audit line of parameter groups, after a check: every parameter exactly once.

    groups  what goes into an optimizer, or its ``param_groups``

    Raises ValueError if a group is empty, a parameter that is trained is in no group, one is
    in two groups or twice in one, or a group holds a tensor that isn't the model's.
    Taught in: notebooks/08_parameter_groups
    """
    groups = list(groups)
    names = {p: " = ".join(uses) for p, uses in _names(model).items()}
    params = [_params(number, group) for number, group in enumerate(groups)]
    counts = Counter(p for group in params for p in group)
    _refuse("in no group are", [names[p] for p in names if p.requires_grad and p not in counts])
    strangers = [str(tuple(p.shape)) for p in counts if p not in names]
    _refuse("not the model's own are tensors of shape", strangers)
    _refuse("in two groups, or twice in one, are", [names[p] for p in counts if counts[p] > 1])
    frozen = sum(not p.requires_grad for p in names)
    parts = [_summary(p, group) for p, group in zip(params, groups, strict=True)]
    count = "1 group" if len(groups) == 1 else f"{len(groups)} groups"
    return f"{count}: " + "; ".join(parts + [f"{frozen} frozen"] * bool(frozen))


def _names(model: nn.Module) -> dict[Tensor, dict[str, tuple[nn.Module, str]]]:
    """Each parameter with the places where it is used: {name: (owner, name there)}."""
    found: dict = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, p in module.named_parameters(recurse=False, remove_duplicate=False):
            found.setdefault(p, {})[f"{path}.{name}".lstrip(".")] = (module, name)
    return found


def _matching(names: Mapping, argument: str, patterns: Sequence[str]) -> set[str]:
    """The names that the patterns match, each pattern at least one."""
    if isinstance(patterns, str):
        raise TypeError(f"{argument} must be a sequence of patterns, got {patterns!r} alone")
    every = [name for uses in names.values() for name in uses]
    hits = {pattern: {n for n in every if fnmatchcase(n, pattern)} for pattern in patterns}
    for pattern, matched in hits.items():
        if not matched:
            raise ValueError(
                f"{argument}: the pattern {pattern!r} matches no parameter; there are "
                f"{', '.join(every)}"
            )
    return set().union(*hits.values())


def _is_decayed(uses: Mapping, asked: Mapping[bool, set]) -> bool:
    """By the patterns if they name the parameter, else by the types of its owners."""
    by_name = {answer for answer in asked if asked[answer] & set(uses)}
    answers = by_name or {_rule(owner, name) for owner, name in uses.values()}
    if len(answers) == 1 and None not in answers:
        return answers.pop()
    owners = " = ".join(f"{n} ({type(owner).__name__})" for n, (owner, _) in uses.items())
    if by_name:
        raise ValueError(f"decay and no_decay both name {owners}")
    why = "the rule doesn't know this type of module" if None in answers else (
        "one tensor, in layers of which one is decayed and one isn't"
    )
    raise ValueError(f"{owners}: {why}; name it in decay=[…] or no_decay=[…]")


def _rule(owner: nn.Module, name: str) -> bool | None:
    """Is it decayed? None where the type of its owner doesn't say."""
    if isinstance(owner, NOT_DECAYED):
        return False
    return "bias" not in name if isinstance(owner, DECAYED) else None


def _check_decay(value) -> None:
    try:
        v = torch.as_tensor(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"weight_decay must be numbers, got {value!r}") from error
    if not ((v >= 0) & v.isfinite()).all():
        raise ValueError(f"weight_decay must be at least 0 and finite, got {value}")


def _params(number: int, group: Mapping) -> list[Tensor]:
    params = group["params"]
    if isinstance(params, Iterator):  # reading it here would leave nothing for the optimizer
        raise TypeError(f"groups: params of group {number} must be a list, got a generator")
    params = [params] if isinstance(params, Tensor) else list(params)
    if not params:
        raise ValueError(f"groups: group {number} is empty")
    return params


def _refuse(what: str, names: list[str]) -> None:
    if names:
        raise ValueError(f"groups: {what}: {', '.join(names)}")


def _summary(params: list[Tensor], group: Mapping) -> str:
    """4 tensors (3,370 numbers), lr 0.1, weight_decay 0 to 1"""
    tensors = "1 tensor" if len(params) == 1 else f"{len(params)} tensors"
    parts = [f"{tensors} ({sum(p.numel() for p in params):,} numbers)"]
    for name in ("lr", "weight_decay"):
        if name in group:
            value = torch.as_tensor(group[name])
            low, high = f"{value.min():g}", f"{value.max():g}"
            parts.append(f"{name} {low}" + (f" to {high}" if high != low else ""))
    return ", ".join(parts)
