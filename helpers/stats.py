"""What was measured over seeds, with its uncertainty."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from helpers.rng import generator


class Estimate(NamedTuple):
    """A mean over n independent values and its standard error, s / √n.

    ``f"{estimate:+.1f}"`` prints "+9.9 ± 0.6"; ``low`` and ``high`` bound the 95 % confidence
    interval of the mean, from Student's t with n − 1 degrees of freedom.
    """

    mean: float
    se: float
    n: int

    @property
    def low(self) -> float:
        return self.mean - self._half_width()

    @property
    def high(self) -> float:
        return self.mean + self._half_width()

    def _half_width(self) -> float:
        from scipy.special import stdtrit

        return float(stdtrit(self.n - 1, 0.975)) * self.se

    def __format__(self, spec: str) -> str:
        return f"{self.mean:{spec}} ± {self.se:{spec.replace('+', '')}}"


def estimate(values: Tensor) -> Estimate:
    """Mean and standard error of values (n,), n ≥ 2: one independent value per seed."""
    values = torch.as_tensor(values)
    if values.dim() != 1 or len(values) < 2:
        raise ValueError(f"values must have shape (n,) with n ≥ 2, got {tuple(values.shape)}")
    return Estimate(values.mean().item(), standard_error(values).item(), len(values))


def paired(a: Tensor, b: Tensor) -> Estimate:
    """The mean difference a − b, from differences within each seed: a and b (n,), n ≥ 2.

    Seeds that are hard for both arms cancel, so this error is mostly far smaller than that
    of two separate means.
    """
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    if a.shape != b.shape:
        raise ValueError(f"a and b must pair up, got shapes {tuple(a.shape)}, {tuple(b.shape)}")
    return estimate(a - b)


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
