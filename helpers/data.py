"""Small data sets, made or bundled, and what is done to them before training.

Where a function takes ``seed``, a sequence of seeds gives everything once per seed, stacked
along a new first axis: arrays of shape (n, …) become (S, n, …).
"""

import functools
import gzip
import inspect
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from helpers.rng import generator


class Data(NamedTuple):
    """Inputs X of shape (n, …) and targets y of shape (n,)."""

    X: Tensor
    y: Tensor


def per_seed(function):
    """Let a function of one seed also take a sequence of seeds, and stack what it returns."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        seeds = call.arguments["seed"]
        if not isinstance(seeds, Sequence):
            return function(*args, **kwargs)
        if not seeds:
            raise ValueError("seed must be a whole number or a sequence of them, got none")
        return _stack([function(**call.arguments | {"seed": seed}) for seed in seeds])

    return wrapper


def _stack(results: list):
    """Tensors along a new first axis; tuples of tensors item by item."""
    if isinstance(results[0], Tensor):
        return torch.stack(results)
    items = [_stack(list(item)) for item in zip(*results, strict=True)]
    return type(results[0])(*items) if hasattr(results[0], "_fields") else tuple(items)


def digits() -> Data:
    """scikit-learn's handwritten digits: 1797 images of 8 × 8 pixels, 10 classes.

    X  (1797, 64), grey values from 0 to 1;  y  (1797,), whole numbers from 0 to 9
    """
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return Data(torch.as_tensor(X / 16, dtype=torch.get_default_dtype()), torch.as_tensor(y))


def diabetes() -> Data:
    """442 patients with diabetes: how far the disease has progressed after a year.

    X  (442, 10): age, sex (1 or 2), body mass index, average blood pressure and six blood
       serum values, each in a unit of its own: standardise before penalising
    y  (442,), the progression, a score from 25 to 346

    Source: Efron, Hastie, Johnstone and Tibshirani (2004); bundled with scikit-learn.
    """
    from sklearn.datasets import load_diabetes

    X, y = load_diabetes(return_X_y=True, scaled=False)
    return Data(*(torch.as_tensor(v, dtype=torch.get_default_dtype()) for v in (X, y)))


def breast_cancer() -> Data:
    """569 tumours of the breast: malignant or benign, from the cell nuclei under a microscope.

    X  (569, 30): ten properties of the nuclei, such as radius and texture; their means, their
       standard errors and their worst values. Each has a unit of its own: standardise before
       penalising
    y  (569,), whole numbers: 0 malignant (212), 1 benign (357)

    Source: Street, Wolberg and Mangasarian (1993); bundled with scikit-learn.
    """
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    return Data(torch.as_tensor(X, dtype=torch.get_default_dtype()), torch.as_tensor(y))


@per_seed
def sine(n: int, sigma: float, seed: int) -> Data:
    """One period of a sine with noise: y = sin(πx) + σε, x uniform on [−1, 1], ε normal.

    X  (n,);  y  (n,)
    """
    _at_least("n", n, 1)
    _at_least("sigma", sigma, 0)
    g = generator(seed, "sine")
    x = 2 * torch.rand(n, generator=g) - 1
    return Data(x, torch.sin(math.pi * x) + sigma * torch.randn(n, generator=g))


@per_seed
def linear(n: int, w: Tensor, sigma: float, seed: int) -> Data:
    """A linear model with normal inputs: y = Xw + σε, entries of X and ε standard normal.

    w  (d,), the true weights;  X  (n, d);  y  (n,)

    Two calls with one seed give the same first rows: draw training and test data together
    and ``split`` them.
    """
    _at_least("n", n, 1)
    _at_least("sigma", sigma, 0)
    if w.dim() != 1:
        raise ValueError(f"w must have shape (d,), got {tuple(w.shape)}")
    X = torch.randn(n, len(w), generator=generator(seed, "linear/X"))
    noise = torch.randn(n, generator=generator(seed, "linear/noise"))
    return Data(X, X @ w + sigma * noise)


@per_seed
def split(data: Data, sizes: Sequence[int], seed: int) -> tuple[Data, ...]:
    """Disjoint random parts of the given sizes: ``train, validation = split(data, (200, 400), 0)``.

    data  X (n, …), y (n,);  sizes  rows of each part, together at most n

    Raises ValueError if X and y differ in length, or the sizes ask for more than there is.
    """
    X, y = data
    _same_length(X, y)
    n = len(y)
    if min(sizes) < 1 or sum(sizes) > n:
        raise ValueError(
            f"sizes must each be at least 1 and together at most the {n} samples that there "
            f"are, got {tuple(sizes)}, together {sum(sizes)}"
        )
    parts = torch.randperm(n, generator=generator(seed, "split"))[: sum(sizes)].split(list(sizes))
    return tuple(Data(X[rows], y[rows]) for rows in parts)


def corrupt_labels(
    y: Tensor, fraction: float, seed: int | Sequence[int], classes: int = 10
) -> Tensor:
    """Replace a fraction of the labels by wrong ones, drawn evenly from the other classes.

    y         (n,) whole numbers from 0 to classes − 1, or (S, n) with a sequence of S seeds
    fraction  in [0, 1]; exactly round(fraction · n) labels change, and those that change at a
              small fraction change in the same way at a larger one

    Raises TypeError if y isn't whole numbers, ValueError if a label or fraction is out of range.
    """
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"y must hold whole numbers, got {y.dtype}; y.long() converts")
    if y.numel() and not (0 <= y.min() and y.max() < classes):
        raise ValueError(
            f"y must be from 0 to {classes - 1} (classes={classes}), "
            f"got {int(y.min())} to {int(y.max())}"
        )
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be from 0 to 1, got {fraction}")
    seeds = seed if isinstance(seed, Sequence) else [seed]
    rows = y if isinstance(seed, Sequence) else y.unsqueeze(0)
    if rows.dim() != 2 or len(rows) != len(seeds):
        raise ValueError(f"y must be (n,), or (S, n) for S seeds, got {tuple(y.shape)}, {seed}")
    noisy = [_corrupt(*pair, fraction, classes) for pair in zip(rows, seeds, strict=True)]
    return torch.stack(noisy).view(y.shape)


def _corrupt(y: Tensor, seed: int, fraction: float, classes: int) -> Tensor:
    g = generator(seed, "corrupt_labels")
    rows = torch.randperm(len(y), generator=g)[: round(fraction * len(y))]
    shift = torch.randint(1, classes, (len(y),), generator=g)
    return y.index_add(0, rows, shift[rows]) % classes


def batches(
    n: int, batch_size: int | None, seed: int | Sequence[int], epoch: int
) -> Iterator[Tensor]:
    """Row numbers of one epoch's minibatches, in an order that seed and epoch decide.

    Yields (B,), or (S, B) for a sequence of S seeds; the last batch may be smaller.
    With ``batch_size=None`` the one batch is all rows in order.

    Raises ValueError if batch_size isn't from 1 to n.
    """
    if batch_size is not None and not 1 <= batch_size <= n:
        raise ValueError(f"batch_size must be None or from 1 to n = {n}, got {batch_size}")
    order = _order(n, batch_size is not None, seed=seed, epoch=epoch)
    yield from order.split(batch_size or n, dim=-1)


@per_seed
def _order(n: int, shuffle: bool, seed: int, epoch: int) -> Tensor:
    return (
        torch.randperm(n, generator=generator(seed, f"batches/{epoch}"))
        if shuffle
        else torch.arange(n)
    )


def mnist(folder: str | Path, part: str = "train") -> Data:
    """MNIST, or Fashion-MNIST (the files have the same names), from its files in a folder.

    part  "train" (60,000 images) or "test" (10,000; the files begin with t10k)
    X     (n, 784), grey values from 0 to 1;  y  (n,), whole numbers from 0 to 9

    Reads ``train-images-idx3-ubyte`` and the like, with or without ``.gz``. Raises
    FileNotFoundError if folder or file isn't there, ValueError if a file is damaged, or images
    and labels are swapped.
    Source of the format: LeCun, Cortes and Burges, "The MNIST database".
    """
    if part not in ("train", "test"):
        raise ValueError(f'part must be "train" or "test", got {part!r}')
    prefix = Path(folder) / {"train": "train", "test": "t10k"}[part]
    X = _read_idx(Path(f"{prefix}-images-idx3-ubyte"), ("n", 28, 28))
    y = _read_idx(Path(f"{prefix}-labels-idx1-ubyte"), ("n",))
    _same_length(X, y)
    if y.max(initial=0) > 9:
        raise ValueError(f"{prefix}-labels-idx1-ubyte must hold 0 to 9, got {y.max()}")
    X = torch.as_tensor(X.reshape(len(X), -1) / 255, dtype=torch.get_default_dtype())
    return Data(X, torch.as_tensor(y.astype(np.int64)))


def _read_idx(path: Path, shape_wanted: tuple) -> np.ndarray:
    """An IDX file of bytes: two zeros, type 8, number of axes, their lengths, the bytes."""
    raw = _read_bytes(path)
    axes = raw[3] if raw[:3] == b"\0\0\x08" and len(raw) > 3 else 0
    shape = np.frombuffer(raw, ">u4", axes, 4) if axes and len(raw) >= 4 + 4 * axes else None
    if shape is None:
        raise ValueError(f"{path} is not an IDX file of bytes: it begins with {raw[:4]!r}")
    shape = shape.tolist()
    if not shape[0] or ("n", *shape[1:]) != shape_wanted:
        wanted = " × ".join(map(str, shape_wanted))
        raise ValueError(f"{path} must hold {wanted} bytes with n ≥ 1, and it holds "
                         f"{' × '.join(map(str, shape))}; are images and labels swapped?")
    expected, got = math.prod(shape), len(raw) - 4 - 4 * axes
    if got != expected:
        raise ValueError(f"{path} is damaged: {expected} bytes of data announced, {got} there")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"folder must be a folder with MNIST files, got {path.parent}")
    zipped = path.with_name(path.name + ".gz")
    if not path.is_file() and not zipped.is_file():
        raise FileNotFoundError(f"{path.parent} has neither {path.name} nor {zipped.name}")
    if path.is_file():
        return path.read_bytes()
    try:
        return gzip.decompress(zipped.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{zipped} is damaged: {error}") from error


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _same_length(X, y) -> None:
    if len(X) != len(y):
        raise ValueError(f"X and y must have equally many samples, got {len(X)} and {len(y)}")
