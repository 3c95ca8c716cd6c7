"""What was measured over seeds, with its uncertainty."""

import math
import operator
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from helpers.check import Finding
from helpers.rng import generator


class Estimate(NamedTuple):
    """A mean over n independent values and its standard error, s / √n.

    ``f"{estimate:+.1f}"`` prints "+9.9 ± 0.6". ``low`` and ``high`` bound the 95 % confidence
    interval of the mean, from Student's t with n − 1 degrees of freedom. Where it is one ``of``
    several intervals that are read together, all of them hold at once with 95 % (Bonferroni).
    """

    mean: float
    se: float
    n: int
    of: int = 1

    @property
    def low(self) -> "Bound":
        return Bound(self.mean - self._half_width(), self)

    @property
    def high(self) -> "Bound":
        return Bound(self.mean + self._half_width(), self)

    def _half_width(self) -> float:
        from scipy.special import stdtrit

        return float(stdtrit(self.n - 1, 1 - 0.025 / self.of)) * self.se

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        return f"{self.mean:{spec}} ± {self.se:{spec.replace('+', '')}}"

    def __str__(self) -> str:
        """Two digits of the standard error decide how many are shown; rounding is not."""
        if self.se <= 1e-9 * max(abs(self.mean), 1e-3):
            return f"{round(self.mean, 12) + 0.0:g}, the same in all {self.n}"
        spec = f".{max(1, 1 - math.floor(math.log10(self.se)))}f"
        joint, others = ("joint ", f" (one of {self.of})") if self.of > 1 else ("", "")
        interval = f"{joint}95 % interval {self.low:{spec}} to {self.high:{spec}}{others}"
        return f"{self:{spec}}, {interval}, n = {self.n}"


class Bound(float):
    """An end of an estimate's interval: comparing it with a number gives a Finding."""

    def __new__(cls, value: float, estimate: Estimate):
        self = super().__new__(cls, value)
        self.estimate = estimate
        return self

    def _compare(self, compared: Callable, other):
        outcome = compared(float(self), other)
        sides = [side.estimate for side in (self, other) if isinstance(side, Bound)]
        return outcome if getattr(outcome, "ndim", 0) else Finding(outcome, sides)

    def __lt__(self, other):
        return self._compare(operator.lt, other)

    def __le__(self, other):
        return self._compare(operator.le, other)

    def __gt__(self, other):
        return self._compare(operator.gt, other)

    def __ge__(self, other):
        return self._compare(operator.ge, other)


def estimate(values: Tensor, of: int = 1) -> Estimate:
    """Mean and standard error of values (n,), n ≥ 2: one independent value per seed.

    of  of how many intervals that are read together this is one; see ``Estimate``

    Raises ValueError where values have another shape.
    """
    values = torch.as_tensor(values)
    if values.dim() != 1 or len(values) < 2:
        raise ValueError(f"values must have shape (n,) with n ≥ 2, got {tuple(values.shape)}")
    return Estimate(values.mean().item(), standard_error(values).item(), len(values), of)


def paired(a: Tensor, b: Tensor) -> Estimate:
    """The mean difference a − b, from differences within each seed: a and b (n,), n ≥ 2.

    Seeds that are hard for both arms cancel, so this error is mostly far smaller than that
    of two separate means.
    """
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    if a.shape != b.shape:
        raise ValueError(f"a and b must pair up, got shapes {tuple(a.shape)}, {tuple(b.shape)}")
    return estimate(a - b)


def jointly(estimates: Iterable[Estimate]) -> list[Estimate]:
    """The same estimates with wider intervals, which all hold at once with at least 95 %.

    Each of k has the level 1 − 0.05 / k (Bonferroni). Taught in: notebooks/15_one_fair_table
    """
    estimates = list(estimates)
    return [e._replace(of=len(estimates)) for e in estimates]


def standard_error(values: Tensor, dim: int = -1) -> Tensor:
    """s / √n along an axis of a tensor, s being the sample standard deviation (divisor n − 1)."""
    return torch.as_tensor(values).std(dim) / math.sqrt(values.shape[dim])


def amplification(
    train: Callable[[nn.Module], Tensor], build: Callable[[], nn.Module], size: float = 1e-10
) -> float:
    """By how much a training blows up a tiny relative change of its initial weights.

    max|r′ − r| / max|r| / size, where r = train(build()), and r′ is the same with the initial
    weights multiplied by 1 + size · ε, ε standard normal. About 10 where training is stable;
    above 1e3 rounding, which differs between machines, will show in the printed digits.
    """
    net = build()
    with torch.no_grad():
        g = generator(0, "amplification")
        for p in net.parameters():
            p.mul_(1 + size * torch.randn(p.shape, generator=g))
    result, perturbed = train(build()), train(net)
    return ((perturbed - result).abs().max() / result.abs().max() / size).item()
