"""Every training in the book is stable: a tiny change of its initial weights stays tiny.

Each notebook is run twice in this process, the second time with the initial weights of every
linear and convolutional layer multiplied by 1 + 1e-10 · ε. Whatever array of numbers it leaves
behind may then differ by at most 1e3 times as much. Rounding, which differs between machines, is
such a change; so this is why the printed digits are the same on all of them.

Its figures are looked at, too, since they are all drawn here: a method has its colour and marker.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from test_plots import unlike
from torch import nn

from helpers import plots
from helpers.rng import generator

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SIZE, ALLOWED = 1e-10, 1e3
LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


@contextlib.contextmanager
def jittered_layers(monkeypatch) -> Iterator[list]:
    """Inside, each new layer's weights are off by a relative 1e-10; yields the layers made."""
    made, noise = [], generator(0, "stability")

    def wrap(reset):
        def reset_parameters(layer):
            reset(layer)
            for p in layer.parameters(recurse=False):
                if not isinstance(p, nn.UninitializedParameter):
                    p.data.mul_(1 + SIZE * torch.randn(p.shape, generator=noise))
                    made.append(layer)

        return reset_parameters

    with monkeypatch.context() as patch:
        for kind in LAYERS:
            patch.setattr(kind, "reset_parameters", wrap(kind.reset_parameters))
        yield made


def run(cells: list[str]) -> dict:
    """The names that the cells leave behind."""
    names = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()):
        for number, source in enumerate(cells):
            exec(compile(source, f"<cell {number}>", "exec"), names)
    return names


def arrays(value, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Every array of floats in a value, also inside tuples, lists and dicts.

    What was measured, not the weights of models: these drift along directions that the outputs
    don't feel.
    """
    if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size > 1:
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from arrays(item, f"{name}[{key!r}]")
    elif isinstance(value, tuple | list):
        for key, item in enumerate(value):
            yield from arrays(item, f"{name}[{key}]")


@pytest.fixture(autouse=True)
def shown(monkeypatch) -> set[str]:
    """What is wrong with the looks of the figures shown."""
    found = set()

    def look(fig):
        found.update(unlike(fig))
        plt.close(fig)

    monkeypatch.setattr(plots, "show", look)
    return found


def amplifications(cells: list[str], monkeypatch) -> tuple[dict[str, float], int]:
    """Of each array that the cells leave, and the number of layers made."""
    before = run(cells)
    with jittered_layers(monkeypatch) as made:
        after = run(cells)
    pairs = (
        (name, a, b)
        for key in before
        for (name, a), (_, b) in zip(arrays(before[key], key), arrays(after[key], key), strict=True)
    )
    return {name: relative_change(a, b) / SIZE for name, a, b in pairs}, len(made)


def relative_change(a: np.ndarray, b: np.ndarray) -> float:
    """max|b − a| / max|a| over what is finite; infinite where only one of both is finite."""
    finite = np.isfinite(a)
    if a.shape != b.shape or (finite != np.isfinite(b)).any():
        return float("inf")
    scale = np.abs(a[finite]).max(initial=0)
    return float(np.abs(b[finite] - a[finite]).max(initial=0) / scale) if scale else 0.0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_trainings_are_stable_and_methods_have_their_colours(path, monkeypatch, shown):
    nb = nbformat.read(path, as_version=4)
    cells = [cell.source for cell in nb.cells if cell.cell_type == "code"]
    found, layers = amplifications(cells, monkeypatch)
    assert layers > 0, "the notebook made no layer, so nothing was tested"
    unstable = {name: f"{value:.1e}" for name, value in found.items() if value > ALLOWED}
    assert not unstable, f"{path.name}: these results blow up rounding errors: {unstable}"
    assert not shown, f"{path.name}: plots.style_of gives a method its colour and marker: {shown}"


CHAOS = """
import torch
from torch import nn
x = nn.Sequential(nn.Linear(1, 2), nn.Sigmoid())(torch.ones(1)).detach()
for _ in range(30):
    x = RATE * x * (1 - x)
"""


@pytest.mark.parametrize(("rate", "stable"), [(2, True), (4, False)])
def test_chaos_is_noticed(rate, stable, monkeypatch):
    found, layers = amplifications([CHAOS.replace("RATE", str(rate))], monkeypatch)
    assert layers and (found["x"] < ALLOWED) == stable


FIGURE = """
from matplotlib import pyplot as plt
from helpers.plots import show, style_of
fig, ax = plt.subplots()
ax.plot([1, 2], label="dropout", STYLE)
show(fig)
"""


@pytest.mark.parametrize(("style", "wrong"), [("color='C0'", 1), ("**style_of('dropout')", 0)])
def test_a_method_in_another_colour_is_noticed(style, wrong, shown):
    run([FIGURE.replace("STYLE", style)])
    assert shown == ({"'dropout' looks like no method"} if wrong else set())


def test_a_result_that_vanishes_is_noticed():
    assert relative_change(np.array([1.0, 2.0]), np.array([1.0, np.nan])) == float("inf")
    assert relative_change(np.array([1.0, 2.0]), np.array([1.0])) == float("inf")
    assert relative_change(np.array([1.0, np.inf]), np.array([1.5, np.inf])) == 0.5
