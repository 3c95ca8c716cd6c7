"""Training side by side against one after the other: ``make bench``.

Both train the same models on one thread in float64, and must reach the same weights. Times
are processor seconds, the median of several runs, per trained model.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from helpers import setup
from helpers.data import Data, batches, digits, linear, split
from helpers.ensemble import SGD, AdamW, cross_entropy, fit, half_mse, member, stack
from helpers.models import mlp
from helpers.rng import seeded

RUNS, ALONE = 5, 3  # runs to take the median of; models that the plain loop trains in each


def regression():
    """High-dimensional linear regression: n = 20, d = 200, batch 5, 100 epochs, 20 × 12 models."""
    seeds, decays = range(20), [0.0, *(2.0**k for k in range(-8, 3))]
    data = linear(20, torch.full((200,), 0.01), 0.01, seeds)

    def build(_, seed):
        with seeded(seed):
            return nn.Sequential(nn.Linear(200, 1))

    def together():
        net = stack(build, decays, seeds)
        optimizer = SGD(net.parameters(), 0.01, weight_decay=decays)
        fit(net, optimizer, data, seeds=seeds, epochs=100, batch_size=5, loss=half_mse)
        return net

    def alone(h, seed):
        model = build(None, seed)
        optimizer = torch.optim.SGD(model.parameters(), 0.01, weight_decay=decays[h])
        loss = lambda out, y: F.mse_loss(out[:, 0], y) / 2  # noqa: E731
        return plain_loop(model, optimizer, Data(data.X[seed], data.y[seed]), loss, seed, 100, 5)

    return together, alone, len(decays), len(seeds)


def classifier():
    """Digits: MLP 64-32-32-10 with dropout, n = 200, batch 20, 40 epochs, AdamW, 10 × 6 models."""
    seeds, rates = range(10), [0.0, 0.1, 0.2, 0.3, 0.5, 0.7]
    (train, _) = split(digits(), (200, 1), seeds)

    def build(p, seed):
        return mlp(64, 32, 32, 10, p=p, seed=seed)

    def together():
        net = stack(build, rates, seeds)
        fit(net, AdamW(net.parameters()), train, seeds=seeds, epochs=40, batch_size=20,
            loss=cross_entropy)
        return net

    def alone(h, seed):
        model = build(rates[h], seed)
        optimizer = torch.optim.AdamW(model.parameters())
        data = Data(train.X[seed], train.y[seed])
        return plain_loop(model, optimizer, data, F.cross_entropy, seed, 40, 20)

    return together, alone, len(rates), len(seeds)


def plain_loop(model, optimizer, data, loss, seed, epochs, batch_size):
    """The training loop as anybody writes it."""
    for epoch in range(1, epochs + 1):
        for rows in batches(len(data.y), batch_size, seed, epoch):
            optimizer.zero_grad()
            loss(model(data.X[rows]), data.y[rows]).backward()
            optimizer.step()
    return model


def seconds(function: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def compare(name: str, case: Callable) -> None:
    """Print the time per model of both ways, and their ratio."""
    together, alone, H, S = case()
    require_same(together(), alone)  # also warms up
    ours, plain = [], []
    for run in range(RUNS):  # in turn, so that a busy neighbour slows both
        ours.append(seconds(together) / (H * S))
        plain += [seconds(lambda h=h, s=run: alone(h, s)) for h in range(1, 1 + ALONE)]
    a, b = statistics.median(ours), statistics.median(plain)
    print(f"{name:24} {H * S:6} {1e3 * a:14.2f} {1e3 * b:14.1f} {b / a:8.1f}")


def require_same(net: nn.Module, alone: Callable) -> None:
    """Setting 0 has no dropout, so that both ways must reach the same weights."""
    state = member(net, 0, 1)
    for name, value in alone(0, 1).state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-10, atol=1e-10)


def main() -> None:
    setup()
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, one thread, float64")
    print("                         models   together (ms)     alone (ms)    ratio")
    compare("linear regression", regression)
    compare("digits MLP with dropout", classifier)


if __name__ == "__main__":
    main()
