"""Time and memory of ``helpers.ensemble`` as the number of members grows.

The growth of the book's builds is measured by ``benchmarks.builds``.
"""

from matplotlib.figure import Figure
from torch import Tensor

from benchmarks import cases, peers
from benchmarks.cases import TOLERANCE, Case
from benchmarks.page import middle, number, table
from benchmarks.timing import exponent, in_turn, peak_memory, spread
from benchmarks.training import apart
from helpers import setup
from helpers.data import digits, split
from helpers.ensemble import member

SIZES = {1: (1, 1), 3: (1, 3), 10: (1, 10), 30: (3, 10), 100: (10, 10), 300: (30, 10),
         1000: (100, 10)}  # members: seeds × settings
# From here on the members themselves decide, not the overhead of a step, nor memory that the
# process has set free before and takes again.
LARGE = 100
EPOCHS = 4


def run(quick: bool) -> dict:
    setup()
    sizes, runs = ((1, 3, 10), 1) if quick else (tuple(SIZES), 5)
    require_same({n: trained(n) for n in sizes})  # also warms up
    times = in_turn({n: lambda n=n: trained(n) for n in sizes}, runs)
    added = [
        [peak_memory("benchmarks.growth", "trained", [n], [1]) for _ in range(min(runs, 3))]
        for n in sizes
    ]
    case = members(1)
    return {
        "widths": list(case.widths), "batch": case.batch_size, "steps": case.steps,
        "members": list(sizes), "seconds": [times[n]["processor"] for n in sizes],
        "megabytes": added,
    }


def members(n: int) -> Case:
    """The digits MLP with dropout, with n members."""
    S, H = SIZES[n]
    case, seeds = cases.dropout(), range(S)
    train, validation = split(digits(), (200, 1), seeds)
    return case._replace(
        settings=[0.08 * h for h in range(H)], seeds=seeds, train=train, validation=validation,
        epochs=EPOCHS,
    )


def trained(n: int) -> dict[str, Tensor]:
    """The weights of the first member, after training n; they don't depend on n."""
    return member(peers.together(members(n))[0], 0, 0)


def require_same(states: dict[int, dict[str, Tensor]]) -> None:
    first = next(iter(states.values()))
    for n, state in states.items():
        by = apart(first, state)
        assert by <= TOLERANCE, f"with {n} members the first one is another, by {by:.1e}"


# --- the page ----------------------------------------------------------------------------


def page(results: dict) -> str:
    sizes, steps = results["members"], results["steps"]
    rows = [
        [str(n), middle([1e3 * s / steps for s in seconds]),
         middle([1e6 * s / steps / n for s in seconds]), middle(added)]
        for n, seconds, added in zip(
            sizes, results["seconds"], results["megabytes"], strict=True
        )
    ]
    head = ["members", "ms per step", "µs per step and member", "MB"]
    return f"""## Growth with the number of members

The net {"-".join(map(str, results["widths"]))} with dropout under AdamW on minibatches of
{results["batch"]}: processor time on one thread, and by how much training raises the peak memory
of a process that has trained one such net before. Small numbers find room in memory that was set
free earlier.

{table(head, rows)}
![](growth)

{_grown("Time", sizes, _medians(results["seconds"]))}
{_grown("Memory", sizes, _medians(results["megabytes"]))}"""


def _medians(values: list[list[float]]) -> list[float]:
    return [spread(runs)[1] for runs in values]


def _grown(what: str, sizes: list[int], medians: list[float]) -> str:
    """The exponent over the large sizes; over all where only few were measured."""
    least = LARGE if sizes[-1] > LARGE else sizes[0]
    x, y = zip(*[(n, v) for n, v in zip(sizes, medians, strict=True) if n >= least], strict=True)
    power, error = map(number, exponent(x, y))
    return (f"{what} grows, from {least} to {sizes[-1]} members, as their number to the power "
            f"{power} ± {error} (a line through logarithms, with its standard error).")


def figures(results: dict) -> dict[str, Figure]:
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(8, 3.4))
    sizes = results["members"]
    per_step = [s / results["steps"] * 1e3 for s in _medians(results["seconds"])]
    added = _medians(results["megabytes"])
    for ax, values, label in zip(axes, (per_step, added), ("ms per step", "MB"), strict=True):
        shown = [(n, value) for n, value in zip(sizes, values, strict=True) if value > 0]
        ax.plot(*zip(*shown, strict=True), marker="o", label="measured")
        n, value = shown[-1]
        ax.plot(sizes, [value * m / n for m in sizes], label="in proportion")
        ax.set(xlabel="members", ylabel=label, xscale="log", yscale="log")
        ax.legend()
    return {"growth": fig}
