"""Many small models trained at once.

A training step of a small net costs half a millisecond whatever its size: the time goes into
starting operations, not into arithmetic. So we put S seeds × H settings of one architecture
side by side. Every array gets two more axes in front, and one batched operation does the work
of S·H small ones::

    one model       x (B, in)          weight (out, in)          loss ()
    side by side    x (S, H, B, in)    weight (S, H, out, in)    loss (S, H)

The training loop stays as it is. An axis of length 1 is shared: inputs of shape (S, 1, B, in)
serve all settings of a seed. Within a seed all settings share data, minibatch order, dropout
noise and (with the same builder) initial weights: their differences are paired.

Results come with settings first, (H, S, E), since that is how one compares them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from tqdm import tqdm

from helpers.data import Data, batches
from helpers.rng import generator

# --- layers ------------------------------------------------------------------------------


class Linear(nn.Module):
    """nn.Linear, side by side: x (S, H or 1, B, in) to (S, H, B, out)."""

    def __init__(self, members):
        super().__init__()
        self.weight = _stacked(members, "weight")
        self.bias = _stacked(members, "bias")

    def forward(self, x: Tensor) -> Tensor:
        W, b = self.weight, self.bias
        S, H, out, _ = W.shape
        # One tall product per seed where all settings share x, else one product per member.
        axes = (1, 2) if x.shape[1] == 1 else (0, 1)
        W, x = W.flatten(*axes), x.flatten(0, 1)
        # (W xᵀ + b)ᵀ: this way round the gradient of W comes out in W's own memory layout.
        b = x.new_zeros(()) if b is None else b.view(*W.shape[:-1], 1)
        return torch.baddbmm(b, W, x.mT).view(S, H, out, -1).mT


class Conv2d(nn.Module):
    """nn.Conv2d, side by side: x (S, H or 1, B, C, height, width)."""

    def __init__(self, members):
        super().__init__()
        self.weight = _stacked(members, "weight")
        self.bias = _stacked(members, "bias")
        one = members[0][0]
        if one.padding_mode != "zeros":
            raise ValueError(f"stack: Conv2d must pad with zeros, got {one.padding_mode}")
        self.geometry = {"stride": one.stride, "padding": one.padding, "dilation": one.dilation}
        self.groups = one.groups

    def forward(self, x: Tensor) -> Tensor:
        S, H = self.weight.shape[:2]
        bias = None if self.bias is None else self.bias.flatten()
        W, groups = self.weight.flatten(0, 2), S * H * self.groups
        out = F.conv2d(_as_channels(x, H), W, bias, groups=groups, **self.geometry)
        return _as_members(out, S, H)


class BatchNorm(nn.Module):
    """nn.BatchNorm1d or 2d, side by side: each member has statistics of its own."""

    def __init__(self, members):
        super().__init__()
        self.weight = _stacked(members, "weight")
        self.bias = _stacked(members, "bias")
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, _stacked(members, name))
        self.momentum, self.eps = members[0][0].momentum, members[0][0].eps

    def forward(self, x: Tensor) -> Tensor:
        S, H = self.running_mean.shape[:2]
        if self.training:
            self.num_batches_tracked += 1
        flat = (self.running_mean, self.running_var, self.weight, self.bias)
        flat = (None if v is None else v.flatten() for v in flat)
        out = F.batch_norm(_as_channels(x, H), *flat, self.training, self.momentum, self.eps)
        return _as_members(out, S, H)


class Dropout(nn.Module):
    """nn.Dropout, side by side: settings differ in p, but share the noise of their seed."""

    def __init__(self, members, seeds: Sequence[int], name: str):
        super().__init__()
        self.register_buffer("p", _stacked(members, "p"), persistent=False)
        if not ((self.p >= 0) & (self.p < 1)).all():
            raise ValueError(f"stack: p of {name} must be in [0, 1), got {self.p.max():g}")
        self.register_buffer("scale", 1 / (1 - self.p), persistent=False)
        self.generators = [generator(seed, f"dropout/{name}") for seed in seeds]

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        noise = x.new_empty(len(x), 1, *self.draws(x))  # one draw per seed serves all settings
        for row, g in zip(noise, self.generators, strict=True):
            row.uniform_(generator=g)
        noise = torch.empty_like(x[:, :1]).copy_(noise)  # in x's memory layout: faster
        # 0. or 1., without the detour over bool
        keep = torch.ge(noise, _like(x, self.p), out=x.new_empty(0))
        return x * keep.mul_(_like(x, self.scale))

    def draws(self, x: Tensor) -> tuple[int, ...]:
        return x.shape[2:]


class Dropout2d(Dropout):
    """nn.Dropout2d, side by side: drops whole channels of x (S, H, B, C, height, width)."""

    def draws(self, x: Tensor) -> tuple[int, ...]:
        return *x.shape[2:4], 1, 1


class EachSample(nn.Module):
    """A layer without parameters that works on one sample at a time, such as pooling."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(0, 2)).unflatten(0, x.shape[:3])


PARALLEL = {
    nn.Linear: Linear, nn.Conv2d: Conv2d, nn.BatchNorm1d: BatchNorm, nn.BatchNorm2d: BatchNorm
}
NOISE = {nn.Dropout: Dropout, nn.Dropout2d: Dropout2d}
ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.Identity)
PER_SAMPLE = (nn.Flatten, nn.MaxPool2d, nn.AvgPool2d)


def stack(build: Callable[..., nn.Module], settings: Iterable, seeds: Sequence[int]) -> nn.Module:
    """Build a plain model for each setting and seed, and put them side by side.

    build     ``build(setting, seed)`` gives an nn.Module: one layer or (nested) nn.Sequential
    settings  H values, handed to build; seeds  S whole numbers

    Returns a module whose layers have the same names as the plain ones, its parameters (S, H, …).
    It maps inputs (S, H or 1, B, …) to outputs (S, H, B, …).

    Raises TypeError for a layer that it can't put side by side, ValueError if the models differ
    in architecture or share parameters between layers, or there is none.
    """
    settings, seeds = list(settings), list(seeds)
    members = [[build(setting, seed) for setting in settings] for seed in seeds]
    if not members or not members[0]:
        raise ValueError("stack: settings and seeds must each hold at least one value")
    _no_shared_parameters(members[0][0])
    return _side_by_side(members, seeds, "model")


def member(net: nn.Module, h: int, s: int) -> dict[str, Tensor]:
    """The state of one member, for ``plain_model.load_state_dict``."""
    return {name: value[s, h].clone() for name, value in net.state_dict().items()}


def _side_by_side(members, seeds, name):
    one = members[0][0]
    if all(type(layer) is nn.Sequential for row in members for layer in row):
        return _sequential(members, seeds, name)
    kinds = {type(layer) for row in members for layer in row}
    if len(kinds) == 1 and type(one) in NOISE:
        return NOISE[type(one)](members, seeds, name)
    _same({repr(layer) for row in members for layer in row}, name)  # widths, strides and all
    if type(one) in PARALLEL:
        return PARALLEL[type(one)](members)
    if type(one) in PER_SAMPLE:
        return EachSample(one)
    if type(one) in ELEMENTWISE:
        return one
    allowed = [nn.Sequential, *NOISE, *PARALLEL, *PER_SAMPLE, *ELEMENTWISE]
    raise TypeError(
        f"stack: {name} is {type(one).__name__}, which can't be put side by side; "
        f"possible are {', '.join(kind.__name__ for kind in allowed)}"
    )


def _no_shared_parameters(model: nn.Module) -> None:
    """Side by side, each layer gets a copy: what was one tensor would train as two."""
    names: dict = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        names.setdefault(p, []).append(name)
    for shared in names.values():
        if len(shared) > 1:
            raise ValueError(f"stack: {' and '.join(shared)} are one parameter; layers that "
                             "share parameters can't be put side by side")


def _sequential(members, seeds, name):
    _same({f"a Sequential of {len(model)} layers" for row in members for model in row}, name)
    return nn.Sequential(*(
        _side_by_side([[model[i] for model in row] for row in members], seeds, f"{name}.{i}")
        for i in range(len(members[0][0]))
    ))


def _same(kinds: set[str], name: str) -> None:
    if len(kinds) > 1:
        both = " and ".join(sorted(kinds))
        raise ValueError(f"stack: all models need one architecture, but {name} is {both}")


def _stacked(members, name):
    """Attribute ``name`` of all members as one tensor (S, H, …), or None where they have none."""
    first = getattr(members[0][0], name)
    if first is None:
        return None
    rows = [[torch.as_tensor(getattr(layer, name)) for layer in row] for row in members]
    both = torch.stack([torch.stack(row) for row in rows]).detach()
    is_parameter = isinstance(first, nn.Parameter)
    return nn.Parameter(both, first.requires_grad) if is_parameter else both


def _as_channels(x: Tensor, H: int) -> Tensor:
    """(S, H or 1, B, C, …) to (B, S·H·C, …): members become groups of channels."""
    return x.expand(-1, H, *x.shape[2:]).movedim(2, 0).flatten(1, 3)


def _as_members(x: Tensor, S: int, H: int) -> Tensor:
    """(B, S·H·C, …) back to (S, H, B, C, …)."""
    return x.unflatten(1, (S, H, -1)).movedim(0, 2)


# --- optimizers --------------------------------------------------------------------------


class Optimizer:
    """What SGD, Adam and AdamW share: parameter groups whose values may differ per member.

    params  parameters (S, H, …), or groups as in torch.optim: a list of dicts with "params"
            and values of their own
    values  a number; a sequence of H, one per setting; or a tensor (H, S), one per member

    Raises ValueError if a value is out of range or doesn't fit, a group is empty, or a
    parameter is in two groups.
    """

    def __init__(self, params, **values):
        params = list(params)
        groups = params if params and isinstance(params[0], dict) else [{"params": params}]
        self.param_groups = [self._group(values | group) for group in groups]
        everything = [id(p) for group in self.param_groups for p in group["params"]]
        if len(set(everything)) < len(everything):
            raise ValueError("params: a parameter is in two groups, or twice in one")
        self.state = {}

    def _group(self, group: dict) -> dict:
        params = list(group.pop("params"))
        if not params:
            raise ValueError("params: a group has no parameters")
        return {"params": params} | {k: _per_member(k, v, params[0]) for k, v in group.items()}

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient, by the rule of the subclass."""
        for group in self.param_groups:
            values = {name: value for name, value in group.items() if name != "params"}
            if params := [p for p in group["params"] if p.grad is not None]:
                self.update(params, **values)

    def buffers(self, name: str, params: list[Tensor], zeros=torch.zeros_like) -> list[Tensor]:
        """A tensor of zeros for each parameter, kept from step to step."""
        for p in params:
            if (name, p) not in self.state:
                self.state[name, p] = zeros(p)
        return [self.state[name, p] for p in params]


class SGD(Optimizer):
    """v ← μv + g + λw,  w ← w − ηv, as torch.optim.SGD."""

    def __init__(self, params, lr, momentum=0.0, weight_decay=0.0):
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def update(self, params, lr, momentum, weight_decay):
        velocities = self.buffers("velocity", params) if momentum.any() else params
        decays = weight_decay.any()
        for w, v in zip(params, velocities, strict=True):
            g = torch.addcmul(w.grad, _like(w, weight_decay), w) if decays else w.grad
            v = g if v is w else v.mul_(_like(w, momentum)).add_(g)
            w.addcmul_(_like(w, lr), v, value=-1)


class Adam(Optimizer):
    """m ← β₁m + (1−β₁)g,  v ← β₂v + (1−β₂)g²,  w ← w − η m̂ / (√v̂ + ε), as torch.optim.Adam.

    Weight decay is coupled: λw is added to g, and so goes through m and v.
    β₁ = 0.9, β₂ = 0.999, ε = 1e-8. Source: Kingma and Ba (2015).
    """

    rule, decoupled = staticmethod(adam), False

    def __init__(self, params, lr=1e-3, weight_decay=0.0):
        super().__init__(params, lr=lr, weight_decay=weight_decay)

    def update(self, params, lr, weight_decay):
        grads = [p.grad for p in params]
        if lr.numel() == weight_decay.numel() == 1:  # the same for all: torch can do everything
            return self._torch_step(params, params, grads, lr.item(), weight_decay.item())
        if not self.decoupled:
            grads = [torch.addcmul(w.grad, _like(w, weight_decay), w) for w in params]
        # torch's step with η = 1, from 0, gives the direction −m̂ / (√v̂ + ε); η comes after
        directions = self.buffers("direction", params)
        self._torch_step(params, directions, grads, lr=1.0, weight_decay=0.0)
        for w, direction in zip(params, directions, strict=True):
            if self.decoupled:
                w.mul_(_like(w, 1 - lr * weight_decay))
            w.addcmul_(_like(w, lr), direction)
            direction.zero_()

    def _torch_step(self, params, targets, grads, lr, weight_decay):
        m, v = self.buffers("m", params), self.buffers("v", params)
        t = self.buffers("t", params, lambda p: p.new_zeros(()))  # counts the steps
        self.rule(
            targets, grads, m, v, [], t,
            fused=True, lr=lr, weight_decay=weight_decay, beta1=0.9, beta2=0.999, eps=1e-8,
            amsgrad=False, maximize=False,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay, w ← (1 − ηλ)w before the step, as torch.optim.AdamW.

    Source: Loshchilov and Hutter (2019).
    """

    rule, decoupled = staticmethod(adamw), True

    def __init__(self, params, lr=1e-3, weight_decay=1e-2):
        super().__init__(params, lr=lr, weight_decay=weight_decay)


def _like(x: Tensor, value: Tensor) -> Tensor:
    """A value per member, (S or 1, H or 1), with as many axes as x."""
    return value.view(*value.shape, *[1] * (x.dim() - 2))


def _per_member(name: str, value, p: Tensor) -> Tensor:
    """The value as a tensor (S or 1, H or 1), checked."""
    v = torch.as_tensor(value, dtype=p.dtype)
    v = v.reshape(1, -1) if v.dim() < 2 else v.mT
    S, H = p.shape[:2]
    if v.dim() > 2 or v.shape[0] not in (1, S) or v.shape[1] not in (1, H):
        raise ValueError(
            f"{name} must be a number, one per setting ({H}) or one per member ({H}, {S}), "
            f"got shape {tuple(torch.as_tensor(value).shape)}"
        )
    below_one = name == "momentum"
    if not (v >= 0).all() or not v.isfinite().all() or (below_one and not (v < 1).all()):
        allowed = "in [0, 1)" if below_one else "at least 0 and finite"
        raise ValueError(f"{name} must be {allowed}, got {value}")
    return v


# --- losses and measures: (…, B, C) and (…, B) to (…) --------------------------------------


def cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy in nats over the batch: outputs (…, B, C), y (…, B) gives (…)."""
    if y.is_floating_point():
        raise TypeError(f"y must hold whole numbers (classes), got {y.dtype}; y.long() converts")
    _same_batch(outputs, y)
    y = y.expand(outputs.shape[:-1])
    # classes before samples, as torch wants them, is also twice as fast
    logits = outputs.reshape(-1, *outputs.shape[-2:]).transpose(1, 2)
    each = F.cross_entropy(logits, y.reshape(-1, y.shape[-1]), reduction="none")
    return each.view(y.shape).mean(-1)


def half_mse(outputs: Tensor, y: Tensor) -> Tensor:
    """½ · mean squared error over the batch: outputs (…, B, 1), y (…, B) gives (…)."""
    if outputs.shape[-1] != 1:
        raise ValueError(f"outputs must have shape (…, B, 1), got {tuple(outputs.shape)}")
    _same_batch(outputs, y)
    return (outputs.squeeze(-1) - y).square().mean(-1) / 2


def accuracy(outputs: Tensor, y: Tensor) -> Tensor:
    """Share of the batch whose largest output is at y, 0 to 1: outputs (…, B, C), y (…, B)."""
    _same_batch(outputs, y)
    best = outputs.max(-1).indices  # the same as argmax, and faster in the layout of Linear
    return (best == y).to(outputs.dtype).mean(-1)


def _same_batch(outputs: Tensor, y: Tensor) -> None:
    """y of shape (B, 1) instead of (B,) would be spread over all pairs, without an error."""
    if outputs.shape[-2:-1] != y.shape[-1:]:
        raise ValueError(
            f"outputs (…, B, C) and y (…, B) must agree in B, "
            f"got {tuple(outputs.shape)} and {tuple(y.shape)}"
        )


# --- training ----------------------------------------------------------------------------


def fit(
    net: nn.Module,
    optimizer: Optimizer,
    train: Data,
    *,
    seeds: Sequence[int],
    epochs: int,
    batch_size: int | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    watch: Mapping[str, Data] | None = None,
    eval_every: int = 1,
) -> dict[str, Tensor]:
    """Train all members of ``net`` at once.

    train       X (S, n, …), y (S, n): a data set per seed; or X (S, H or 1, n, …), y (S, H, n)
    seeds       S whole numbers; they decide the order of the minibatches
    batch_size  None trains on all n samples at each step
    watch       data sets to measure after every ``eval_every`` epochs, and after the last

    Returns, for each watched name, ``name_loss`` and (for classes) ``name_accuracy`` of shape
    (H, S, E), measured in evaluation mode, and ``epoch`` (E,), counted from 1.
    Raises ValueError if shapes don't match, or epochs or eval_every is below 1.
    """
    if epochs < 1 or eval_every < 1:
        raise ValueError(f"epochs and eval_every must be at least 1, got {epochs}, {eval_every}")
    X, y = _with_settings(train, len(seeds))
    history = {"epoch": []}
    for epoch in tqdm(range(1, epochs + 1), desc="training", leave=False, delay=1):
        train_epoch(net, optimizer, X, y, seeds, epoch, batch_size, loss)
        if watch and (epoch % eval_every == 0 or epoch == epochs):
            history["epoch"].append(torch.tensor(epoch))
            for name, data in watch.items():
                for measure, value in evaluate(net, data, loss).items():
                    history.setdefault(f"{name}_{measure}", []).append(value)
    return {name: torch.stack(values, dim=-1) for name, values in history.items() if values}


def train_epoch(net, optimizer, X, y, seeds, epoch, batch_size, loss) -> None:
    """One pass over the data: X (S, H or 1, n, …), y (S, H or 1, n)."""
    net.train()
    rows = torch.cat([*batches(y.shape[2], batch_size, seeds, epoch)], dim=-1)
    seed = torch.arange(len(seeds)).unsqueeze(-1)
    X, y = (v.transpose(1, 2)[seed, rows].transpose(1, 2) for v in (X, y))
    parts = (v.split(batch_size or y.shape[2], dim=2) for v in (X, y))
    for X_batch, y_batch in zip(*parts, strict=True):
        optimizer.zero_grad()
        # the sum gives each member the gradient of its own loss
        loss(net(X_batch), y_batch).sum().backward()
        optimizer.step()


@torch.no_grad()
def evaluate(net: nn.Module, data: Data, loss=cross_entropy) -> dict[str, Tensor]:
    """Loss, and accuracy where the targets are classes, of each member: (H, S).

    data as in ``fit``. In evaluation mode; the mode that the net was in is restored.
    """
    X, y = _with_settings(data)
    was_training = net.training
    outputs = net.eval()(X)
    net.train(was_training)
    measures = {"loss": loss} | ({} if y.is_floating_point() else {"accuracy": accuracy})
    return {name: measure(outputs, y).T for name, measure in measures.items()}


def _with_settings(data: Data, S: int | None = None) -> Data:
    """X and y with an axis of settings, of length 1 where all settings share the data."""
    X, y = data
    X, y = (X.unsqueeze(1), y.unsqueeze(1)) if y.dim() == 2 else (X, y)
    fits = y.dim() == 3 and X.dim() > 3 and (X.shape[0], X.shape[2]) == (y.shape[0], y.shape[2])
    if not fits or S not in (None, y.shape[0]):
        raise ValueError(
            f"data must have X (S, n, …) and y (S, n), or X (S, H, n, …) and y (S, H, n), "
            f"with S = {S or 'the number of seeds'}; got {tuple(data[0].shape)} "
            f"and {tuple(data[1].shape)}"
        )
    if not y.shape[2]:
        raise ValueError("data must hold at least one sample (n ≥ 1), got none")
    if not X.is_floating_point():
        raise TypeError(f"data: X must be floating point, got {X.dtype}; X.double() converts")
    return Data(X, y)
