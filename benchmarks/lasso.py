"""fista against scikit-learn's compiled coordinate descent: ``make bench``.

A path of 50 λ from λ_max = max|Xᵀy|/n, where all weights are 0, down to λ_max/1000, with
n = 100 samples and d = 500 features, in float64 on one thread. scikit-learn goes first, at its
default tolerance and at one a hundred times smaller. The largest relative duality gap on its
path is the ``tol`` that fista is given, so fista's solutions are at least as good. Times are
processor seconds for a whole path, the median of several runs.
"""

import statistics
import sys

import numpy as np
import sklearn
import torch
from sklearn.linear_model import lasso_path
from threadpoolctl import threadpool_limits

from benchmarks.ensemble import seconds
from helpers import setup
from helpers.data import Data, linear
from helpers.regularizers import duality_gap, fista

N, D, RUNS = 100, 500, 7
TOLERANCES = [1e-4, 1e-6]  # scikit-learn's default, and a stricter one
NONZERO = {"10 nonzero weights": 10, "500 nonzero weights": D}


def problem(nonzero: int) -> tuple[Data, torch.Tensor]:
    """Standard normal inputs, weights 1 and 0, noise of standard deviation 1; and 50 λ."""
    data = linear(N, (torch.arange(D) < nonzero).double(), 1.0, seed=0)
    return data, (data.X.T @ data.y).abs().max() / N * torch.logspace(0, -3, 50)


def coordinate_descent(data: Data, lams, tol: float, precompute: bool) -> torch.Tensor:
    """scikit-learn's path (L, d), from columns that lie in memory as it wants them."""
    X, y = np.asfortranarray(data.X.numpy()), data.y.numpy()
    _, weights, _ = lasso_path(
        X, y, alphas=lams.numpy(), tol=tol, precompute=precompute, max_iter=1_000_000
    )
    return torch.tensor(weights.T)


def largest_gap(data: Data, lams, W) -> float:
    """Relative to ‖y‖²/(2n), the objective at w = 0."""
    return (duality_gap(*data, W, lams).max() / (data.y.square().mean() / 2)).item()


def compare(name: str, nonzero: int, tol: float) -> None:
    """Print times and gaps; scikit-learn may use the Gram matrix or not, whichever is faster."""
    data, lams = problem(nonzero)
    theirs = [lambda p=p: coordinate_descent(data, lams, tol, precompute=p) for p in (False, True)]
    goal = min(largest_gap(data, lams, solve()) for solve in theirs)
    ours = lambda: fista(*data, lams, goal)  # noqa: E731
    gap = largest_gap(data, lams, ours())
    assert gap <= goal, f"fista's largest gap is {gap:.2g}, scikit-learn's {goal:.2g}"
    require_same(data, lams, ours(), theirs[0]())
    times = [[seconds(solve) for solve in (ours, *theirs)] for _ in range(RUNS)]  # in turn
    a, *b = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    b = min(b)
    print(f"{name:19} {goal:10.1e} {gap:10.1e} {b:18.1f} {a:12.1f} {a / b:8.1f}")


def require_same(data: Data, lams, ours, theirs) -> None:
    """Predictions must be as near to each other as the gaps say.

    The objective is ½‖y − Xw‖²/n and something convex, so a solution with gap g predicts
    within √(2g) of the best one, root mean square.
    """
    apart = ((ours - theirs) @ data.X.T).square().mean(-1).sqrt()
    gaps = (duality_gap(*data, W, lams) for W in (ours, theirs))
    allowed = sum((2 * gap.clamp(min=0)).sqrt() for gap in gaps)
    assert (apart <= allowed + 1e-7).all(), f"predictions differ by {apart.max():.2g}"


def main() -> None:
    setup()
    print(f"scikit-learn {sklearn.__version__}, torch {torch.__version__}, "
          f"Python {sys.version.split()[0]}, one thread, float64")
    print("                     their gap    our gap  scikit-learn (ms)   fista (ms)    ratio")
    with threadpool_limits(1):
        for tol in TOLERANCES:
            for name, nonzero in NONZERO.items():
                compare(name, nonzero, tol)


if __name__ == "__main__":
    main()
