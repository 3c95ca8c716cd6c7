"""Plain ``nn.Module`` builders, with the seed as an argument."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from helpers.rng import seeded


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
