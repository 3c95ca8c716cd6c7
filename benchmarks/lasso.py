"""A lasso path by ``fista`` and by scikit-learn's compiled coordinate descent.

50 λ from λ_max = max|Xᵀy|/n, where all weights are 0, down to λ_max/1000. scikit-learn goes
first; the largest relative duality gap on its path is the ``tol`` that fista is given, so
fista's solutions are at least as good. Processor seconds for a whole path, on one thread.
"""

import numpy as np
import torch
from matplotlib import ticker
from matplotlib.figure import Figure
from sklearn.linear_model import lasso_path
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.page import middle, number, table
from benchmarks.timing import in_turn, ratios, spread
from helpers import setup
from helpers.data import Data, linear
from helpers.regularizers import duality_gap, fista

TOLERANCES = (1e-4, 1e-6)  # scikit-learn's default, and a stricter one
OURS, THEIRS, GRAM = "helpers.regularizers.fista", "scikit-learn", "scikit-learn, Gram matrix"


def run(quick: bool) -> dict:
    setup()
    n, d, L, runs = (20, 50, 10, 1) if quick else (100, 500, 50, 11)
    with threadpool_limits(1):
        rows = [measure(n, d, k, L, tol, runs) for tol in TOLERANCES for k in (d // 50, d)]
    return {"n": n, "d": d, "lambdas": L, "rows": rows}


def measure(n: int, d: int, nonzero: int, L: int, tol: float, runs: int) -> dict:
    """Gaps and times of one problem, at one tolerance of scikit-learn's."""
    data, lams = problem(n, d, nonzero, L)
    contenders = {
        name: lambda p=p: coordinate_descent(data, lams, tol, precompute=p)
        for name, p in ((THEIRS, False), (GRAM, True))
    }
    paths = {name: solve() for name, solve in contenders.items()}
    goal = min(largest_gap(data, lams, W) for W in paths.values())
    contenders = {OURS: lambda: fista(*data, lams, goal)} | contenders
    paths = {OURS: contenders[OURS]()} | paths
    require_same(data, lams, paths, goal)
    return {
        "nonzero": nonzero, "tol": tol,
        "gaps": {name: largest_gap(data, lams, W) for name, W in paths.items()},
        "seconds": {name: t["processor"] for name, t in in_turn(contenders, runs).items()},
    }


def problem(n: int, d: int, nonzero: int, L: int) -> tuple[Data, Tensor]:
    """Standard normal inputs, weights 1 and 0, noise of standard deviation 1; and L λ."""
    data = linear(n, (torch.arange(d) < nonzero).double(), 1.0, seed=0)
    return data, (data.X.T @ data.y).abs().max() / n * torch.logspace(0, -3, L)


def coordinate_descent(data: Data, lams: Tensor, tol: float, precompute: bool) -> Tensor:
    """scikit-learn's path (L, d), from columns that lie in memory as it wants them."""
    X, y = np.asfortranarray(data.X.numpy()), data.y.numpy()
    _, weights, _ = lasso_path(
        X, y, alphas=lams.numpy(), tol=tol, precompute=precompute, max_iter=1_000_000
    )
    return torch.tensor(weights.T)


def largest_gap(data: Data, lams: Tensor, W: Tensor) -> float:
    """Relative to ‖y‖²/(2n), the objective at w = 0."""
    return (duality_gap(*data, W, lams).max() / (data.y.square().mean() / 2)).item()


def require_same(data: Data, lams: Tensor, paths: dict[str, Tensor], goal: float) -> None:
    """fista's gap must be as asked, and predictions as near to each other as the gaps say.

    The objective is ½‖y − Xw‖²/n and something convex, so a solution with gap g predicts
    within √(2g) of the best one, root mean square.
    """
    ours = paths[OURS]
    gap = largest_gap(data, lams, ours)
    assert gap <= goal, f"fista's largest gap is {gap:.2g}, and {goal:.2g} was asked for"
    for name, theirs in paths.items():
        apart = ((ours - theirs) @ data.X.T).square().mean(-1).sqrt()
        gaps = (duality_gap(*data, W, lams) for W in (ours, theirs))
        allowed = sum((2 * gap.clamp(min=0)).sqrt() for gap in gaps)
        assert (apart <= allowed + 1e-7).all(), f"{name}: predictions differ by {apart.max():.2g}"


# --- the page ----------------------------------------------------------------------------


def page(results: dict) -> str:
    rows = [
        [_name(row), f"{row['gaps'][OURS]:.1e}", f"{_their_gap(row):.1e}",
         *(middle([1e3 * s for s in row["seconds"][who]]) for who in (OURS, THEIRS, GRAM)),
         middle(_slower(row))]
        for row in results["rows"]
    ]
    medians = [spread(_slower(row))[1] for row in results["rows"]]
    head = ["true weights; their tol", "our gap", "their gap", "fista: ms", "scikit-learn: ms",
            "with Gram matrix: ms", "fista slower by"]
    return f"""## A lasso path

{results['lambdas']} λ, from where all weights are 0 down to a thousandth of that, for
{results['n']} samples and {results['d']} features: `fista` of `helpers.regularizers`, written in
Python, beside scikit-learn's compiled coordinate descent. scikit-learn goes first, and fista is
asked for its smallest duality gap (the largest on the path, relative to the objective at w = 0).
Processor time for the whole path, on one thread.

{table(head, rows)}
![](lasso)

*Slower by* compares with the faster of scikit-learn's two ways: fista takes {number(min(medians))}
to {number(max(medians))} times as long."""


def figures(results: dict) -> dict[str, Figure]:
    from matplotlib import pyplot as plt

    rows = results["rows"]
    fig, ax = plt.subplots(figsize=(7, 1.4 + 0.4 * len(rows)))
    for who, marker in ((OURS, "o"), (THEIRS, "s"), (GRAM, "D")):
        medians = [1e3 * spread(row["seconds"][who])[1] for row in rows]
        ax.plot(medians, range(len(rows)), marker, linestyle="none", label=who)
    ax.set_yticks(range(len(rows)), [_name(row) for row in rows])
    ax.invert_yaxis()
    ax.set(xlabel="ms for the path", xscale="log", ylabel="true weights; their tol")
    for at in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
        at(ticker.LogFormatter(minor_thresholds=(2, 0.5)))
    ax.legend()
    return {"lasso": fig}


def _name(row: dict) -> str:
    return f"{row['nonzero']} nonzero; {row['tol']:g}"


def _their_gap(row: dict) -> float:
    return min(gap for who, gap in row["gaps"].items() if who != OURS)


def _slower(row: dict) -> list[float]:
    """Round by round, than the faster of scikit-learn's two ways."""
    theirs = min((row["seconds"][who] for who in (THEIRS, GRAM)), key=lambda s: spread(s)[1])
    return ratios(row["seconds"][OURS], theirs)
