"""What is trained: data, models and settings, the same for every contender."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers import models
from helpers.data import Data, batches, digits, linear, split
from helpers.ensemble import cross_entropy, half_mse
from helpers.rng import generator, seeded

TOLERANCE = 1e-10  # of any weight, for contenders that must have computed the same


class Case(NamedTuple):
    """S seeds × H settings of one architecture."""

    name: str
    widths: tuple[int, ...]
    build: Callable[[float, int], nn.Module]  # from a setting and a seed
    settings: Sequence[float]
    seeds: Sequence[int]
    train: Data  # X (S, n, d), y (S, n)
    validation: Data
    epochs: int
    batch_size: int | None
    rule: str  # "SGD" or "AdamW": of helpers.ensemble and of torch.optim
    lr: float
    varies: str | None = None  # the optimizer's value that the settings are, if it is one

    @property
    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Of many models at once."""
        return half_mse if self.train.y.is_floating_point() else cross_entropy

    @property
    def criterion(self) -> nn.Module:
        """Of one model."""
        return HalfMSE() if self.train.y.is_floating_point() else nn.CrossEntropyLoss()

    def options(self, setting) -> dict:
        """Of an optimizer, for one setting or for all."""
        values = {"lr": self.lr, "weight_decay": 0.0}
        return values | ({self.varies: setting} if self.varies else {})

    def optimizer(self, model: nn.Module, h: int) -> torch.optim.Optimizer:
        return getattr(torch.optim, self.rule)(
            model.parameters(), **self.options(self.settings[h])
        )

    def data(self, s: int) -> Data:
        return Data(self.train.X[s], self.train.y[s])

    def rows(self, s: int, epoch: int) -> list[Tensor]:
        """The minibatches of one epoch."""
        n = self.train.y.shape[1]
        return list(batches(n, self.batch_size, self.seeds[s], epoch))

    @property
    def members(self) -> int:
        return len(self.settings) * len(self.seeds)

    @property
    def steps(self) -> int:
        return self.epochs * len(self.rows(0, 1))


class HalfMSE(nn.Module):
    """½ · mean squared error of one model's outputs (B, 1)."""

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(outputs[:, 0], y) / 2


class SeedNoise(nn.Module):
    """Dropout of one model that draws what helpers.ensemble draws for its seed."""

    def __init__(self, p: float, seed: int, name: str):
        super().__init__()
        self.p, self.generator = p, generator(seed, f"dropout/{name}")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        noise = torch.rand(x.shape, generator=self.generator)
        return x * (noise >= self.p) / (1 - self.p)


def with_seed_noise(model: nn.Sequential, seed: int) -> nn.Sequential:
    """The model with such layers instead of nn.Dropout, so that any trainer can be given them."""
    return nn.Sequential(*(
        SeedNoise(layer.p, seed, f"model.{i}") if isinstance(layer, nn.Dropout) else layer
        for i, layer in enumerate(model)
    ))


# --- the cases ---------------------------------------------------------------------------


def regression(quick: bool = False) -> Case:
    """High-dimensional linear regression: n = 20, d = 200, 20 seeds × 12 weight decays."""
    seeds = range(2 if quick else 20)
    decays = [0.0, *(2.0**k for k in range(-8, -6 if quick else 3))]
    X, y = linear(120, torch.full((200,), 0.01), 0.01, seeds)

    def build(_, seed):
        with seeded(seed):
            return nn.Sequential(nn.Linear(200, 1))

    return Case(
        "linear", (200, 1), build, decays, seeds, Data(X[:, :20], y[:, :20]),
        Data(X[:, 20:], y[:, 20:]), epochs=3 if quick else 100, batch_size=5, rule="SGD",
        lr=0.01, varies="weight_decay",
    )


def dropout(
    widths: tuple[int, ...] = (64, 32, 32, 10),
    batch_size: int | None = 20,
    epochs: int = 40,
    name: str = "dropout",
    quick: bool = False,
) -> Case:
    """Digits, 200 for training: an MLP with dropout under AdamW, 10 seeds × 6 p."""
    seeds = range(2 if quick else 10)
    rates = [0.0, 0.1, 0.2, 0.3, 0.5, 0.7][: 2 if quick else 6]
    return Case(
        name, widths, lambda p, seed: models.mlp(*widths, p=p, seed=seed), rates, seeds,
        *split(digits(), (200, 200), seeds), epochs=3 if quick else epochs,
        batch_size=batch_size, rule="AdamW", lr=1e-3,
    )


def sgd(quick: bool = False) -> Case:
    """The same MLP without dropout under SGD, 10 seeds × 6 learning rates."""
    rates = [0.01, 0.02, 0.03, 0.05, 0.07, 0.1][: 2 if quick else 6]
    return dropout(name="sgd", quick=quick)._replace(
        build=lambda _, seed: models.mlp(64, 32, 32, 10, seed=seed), settings=rates,
        rule="SGD", varies="lr",
    )


def full_batch(width: int, quick: bool = False) -> Case:
    """Two hidden layers of one width, each step on all 200 images."""
    return dropout((64, width, width, 10), None, 20, f"full{width}", quick)


WIDTHS = 16, 32, 64, 128


@functools.cache
def named(name: str, quick: bool = False) -> Case:
    """A case by its name: what a process of its own can be told."""
    if name.startswith("full"):
        return full_batch(int(name.removeprefix("full")), quick)
    return {"linear": regression, "dropout": dropout, "sgd": sgd}[name](quick=quick)
