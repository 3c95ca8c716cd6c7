"""Write book/explore_numbers.html: the data of the page with the sliders, and its tables.

    python -m tools.explore        (part of `make notebooks`)

The page computes in the reader's browser. The data that it starts from are made here, by the
helpers, and so are the tables for those who read numbers rather than pictures. A test compares
the file with what this module says now, and the page's numbers with the helpers.
"""

import json
from pathlib import Path

import torch
from numpy.polynomial.legendre import legvander

from helpers import data, setup
from helpers.regularizers import fista, ridge
from tools.notebooks import write_whole

PATH = Path(__file__).parents[1] / "book" / "explore_numbers.html"
DECIMALS = 12
DEGREE = 9
LAMBDAS = (3, 1, 0.3, 0.1, 0.03, 0.01, 0.001)
TABLE = """<div class="pst-scrollable-table-container">
<table class="table" id="{name}">
<caption>{caption}</caption>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</div>
"""


def two_weights() -> tuple[torch.Tensor, torch.Tensor]:
    """Two correlated features, standardised, and y, centred: X (20, 2), y (20,).

    The second feature is 0.6 times the first plus 0.8 times something of its own.
    """
    mix = torch.tensor([[1, 0.6], [0, 0.8]])
    own, y = data.linear(20, mix @ torch.tensor([2.0, 1]), 1, seed=0)
    X = own @ mix
    return (X - X.mean(0)) / X.std(0, correction=0), y - y.mean()


def legendre(x: torch.Tensor, degree: int) -> torch.Tensor:
    """Legendre's polynomials P_1 to P_degree at x (n,), without the constant: (n, degree)."""
    return torch.as_tensor(legvander(x.numpy(), degree))[:, 1:]


def polynomial_errors(lam: float, degree: int) -> tuple[float, float]:
    """Training error and error against sin πx of ridge with a constant that is not penalised.

    The latter is the mean squared distance on 201 points of [−1, 1].
    """
    x, y = data.sine(20, 0.3, seed=0)
    grid = torch.linspace(-1, 1, 201)
    A, mean = legendre(x, degree), legendre(x, degree).mean(0)
    w = ridge(A - mean, y - y.mean(), lam)
    fit = [(legendre(at, degree) - mean) @ w + y.mean() for at in (x, grid)]
    targets = y, torch.sin(torch.pi * grid)
    return tuple((f - t).square().mean().item() for f, t in zip(fit, targets, strict=True))


def shown(value: float) -> str:
    """Three decimals, and a bare 0 only where the number is exactly 0."""
    return "0" if value == 0 else f"{value:.3f}".replace("-", "−")


def table(name: str, caption: str, head: list[str], rows: list) -> str:
    """An HTML table, its first column being λ."""
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    cells = [(lam, "".join(f"<td>{shown(v)}</td>" for v in values)) for lam, values in rows]
    body = "\n".join(f'<tr><th scope="row">{lam}</th>{values}</tr>' for lam, values in cells)
    return TABLE.format(name=name, caption=caption, head=titles, body=body)


def weights_table() -> str:
    """Ridge and lasso for each λ."""
    X, y = two_weights()
    lasso = fista(X, y, LAMBDAS, tol=1e-14)
    rows = [
        (lam, [*ridge(X, y, lam).tolist(), *w.tolist()])
        for lam, w in zip(LAMBDAS, lasso, strict=True)
    ]
    head = ["λ", "ridge w₁", "ridge w₂", "lasso w₁", "lasso w₂"]
    return table("explore-weights-table", "Two weights. A bare 0 is exactly zero.", head, rows)


def errors_table() -> str:
    """Both errors of the polynomial for each λ."""
    rows = [(lam, polynomial_errors(lam, DEGREE)) for lam in LAMBDAS]
    caption = f"The polynomial of degree {DEGREE}. Errors are mean squared errors."
    head = ["λ", "training error", "error against the truth"]
    return table("explore-errors-table", caption, head, rows)


def embedded() -> str:
    """The data as JSON in a script element, so that the page needs no request to read them."""
    (X, y), sine = two_weights(), data.sine(20, 0.3, seed=0)
    values = {"X": X, "y": y, "sine": {"x": sine.X, "y": sine.y}}
    text = json.dumps(values, default=lambda tensor: tensor.numpy().round(DECIMALS).tolist())
    return f'<script type="application/json" id="explore-data">\n{text}\n</script>\n'


def page() -> str:
    """The whole file."""
    setup()
    return weights_table() + errors_table() + embedded()


if __name__ == "__main__":
    write_whole(PATH, page())
