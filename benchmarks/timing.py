"""Times of several contenders, taken in turn; peak memory; how fast a quantity grows."""

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import ROOT


def clocked(function: Callable[[], object]) -> dict[str, float]:
    """Seconds of one call: of this process's processor time, and on the wall."""
    processor, wall = time.process_time(), time.perf_counter()
    function()
    return {"processor": time.process_time() - processor, "wall": time.perf_counter() - wall}


def in_turn(contenders: Mapping[str, Callable], runs: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each: {name: {"processor": [a value per run], "wall": […]}}.

    One round after the other, so that a busy neighbour slows all, and so that the ratio of two
    contenders within a round means something.
    """
    found = {name: {"processor": [], "wall": []} for name in contenders}
    for _ in range(runs):
        for name, function in contenders.items():
            for clock, seconds in clocked(function).items():
                found[name][clock].append(seconds)
    return found


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return low, median, high


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(values, others, strict=True)]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """k of values ≈ c · sizes^k, by least squares in logarithms, and its standard error.

    Raises ValueError for fewer than three points, or one that has no logarithm.
    """
    if len(sizes) != len(values) or len(sizes) < 3 or min(*sizes, *values) <= 0:
        raise ValueError(f"three or more pairs above 0 are needed, got {sizes} and {values}")
    x, y = np.log(sizes), np.log(values)
    x, y = x - x.mean(), y - y.mean()
    k = x @ y / (x @ x)
    residual = y - k * x
    return float(k), math.sqrt(residual @ residual / (len(x) - 2) / (x @ x))


# --- memory ------------------------------------------------------------------------------


def peak_memory(module: str, function: str, arguments: Sequence, warm_up: Sequence) -> float:
    """Megabytes that a call adds, at most, to what its process held before it.

    In a process of its own, after a first call with other arguments that loads and sets up what
    every call needs. Module and function by name; arguments must fit in JSON.
    """
    call = json.dumps([module, function, arguments, warm_up])
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.timing", call], cwd=ROOT, capture_output=True, text=True
    )
    if run.returncode:
        raise RuntimeError(f"{module}.{function}{tuple(arguments)} failed:\n{run.stderr[-2000:]}")
    return float(run.stdout.splitlines()[-1])


def _tell_peak(module: str, function: str, arguments: list, warm_up: list) -> None:
    import importlib

    from helpers import setup

    setup()
    call = getattr(importlib.import_module(module), function)
    call(*warm_up)
    _forget_peak()
    before = megabytes()
    call(*arguments)
    print(max(megabytes() - before, resource.getpagesize() / 1e6))  # at least what can be seen


def megabytes() -> float:
    """The most that this process has held so far."""
    try:  # what Linux counts for getrusage begins with the peak of the process that started us
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024 / 1e6
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _forget_peak() -> None:
    """Count from what is held now on, where the system can; elsewhere from the peak so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5", "utf-8")
    except OSError:
        pass


if __name__ == "__main__":
    _tell_peak(*json.loads(sys.argv[1]))
