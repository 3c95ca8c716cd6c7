"""Draw given results on a given ``ax``, and show a figure together with what it says."""

import base64
import io
import re
from collections.abc import Mapping

import numpy as np
from matplotlib import category, collections, container, image, lines, patches, ticker
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.stats import estimate, standard_error

# --- methods -----------------------------------------------------------------------------

# One colour, one marker and one line style for each method, in every figure of the book. The
# unit ball of L1 is a diamond, that of L2 a circle. Colour-blind readers tell the colours apart.
METHODS = {
    "none": {"color": "#222222", "marker": "x", "linestyle": ":"},
    "L1": {"color": "#C8440B", "marker": "D", "linestyle": "-"},
    "L2": {"color": "#1F55A5", "marker": "o", "linestyle": "--"},
    "weight decay": {"color": "#2E9A62", "marker": "v", "linestyle": "-."},
    "dropout": {"color": "#B96CA8", "marker": "s", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
}
OTHER = {"color": "C0", "marker": "P", "markersize": 8}
# What labels call them.
NAMES = {
    "none": r"none|never|no (?:penalty|decay|dropout|regular\w+)",
    "L1": r"L1|lasso",
    "L2": r"L2|ridge",
    "weight decay": r"weight.decay|decay|AdamW",
    "dropout": r"drop(?:out\w*| probability)",
    "other": r"noise|batch norm",
}
_NAME = re.compile("|".join(rf"\b({names})\b" for names in NAMES.values()), re.IGNORECASE)


def named(text: str) -> set[str]:
    """The methods that a text names. "none" counts at its beginning; later it is a baseline."""
    found = ((list(NAMES)[name.lastindex - 1], name.start()) for name in _NAME.finditer(text))
    return {method for method, start in found if method != "none" or start == 0}


def style_of(label: str) -> dict:
    """Colour, marker and line style of the one method that the label names; else nothing."""
    methods = named(label)
    return dict(METHODS.get(methods.pop(), {})) if len(methods) == 1 else {}


def point_of(label: str) -> dict:
    """The same for points without a line between them; what is no method has a cross."""
    return OTHER | style_of(label) | {"linestyle": "none"}


# --- drawing -----------------------------------------------------------------------------


def band(ax: Axes, x, values, label: str, **style) -> None:
    """A line for the mean over seeds with a band of ± one standard error.

    x (E,);  values (S, E), one row per seed. Raises ValueError if these don't fit. The line
    wears the colour and the marker of the method that the label names.
    """
    if len(values.shape) != 2 or values.shape[1] != len(x) or len(values) < 2:
        raise ValueError(
            f"values must be (S, {len(x)}) with S ≥ 2 seeds, got {tuple(values.shape)}"
        )
    mean, se = (np.asarray(v) for v in (values.mean(0), standard_error(values, 0)))
    style = {"markevery": 0.1 if len(x) > 12 else None} | style_of(label) | style
    (line,) = ax.plot(x, mean, label=label, **style)
    ax.fill_between(x, mean - se, mean + se, color=line.get_color(), alpha=0.2, linewidth=0)


def level(ax: Axes, y: float, label: str) -> None:
    """A horizontal line in the look of the method that the label names, markers at its ends."""
    ax.axhline(y, 0.02, 0.98, label=label, **style_of(label))


def effects(ax: Axes, differences: Mapping[str, object], **style) -> None:
    """One row per name: a dot for each seed, and the mean with its 95 % interval.

    differences  paired differences (S,) of each name; a vertical line marks 0, no effect
    A row wears the colour and the marker of the method that its name names.
    """
    ax.axvline(0, color="grey", linewidth=1, linestyle="-")
    for row, (name, values) in enumerate(differences.items()):
        e, values = estimate(values), np.asarray(values)
        ax.plot(values, np.full(len(values), row), "o", color="grey", mfc="none", markersize=4)
        look = point_of(name) | style | {"linestyle": "none"}
        ax.errorbar(e.mean, row, xerr=e.high - e.mean, capsize=4, label=name, **look)
    ax.set_yticks(range(len(differences)), list(differences))
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    ax.margins(y=0.12)


# --- showing -----------------------------------------------------------------------------


def show(fig: Figure) -> None:
    """Display the figure as a picture, with its description as the text beside it.

    Tests compare the text, since they can't compare pictures; on the page it is what a screen
    reader reads. Closes the figure.
    """
    from IPython.display import display

    png = io.BytesIO()
    fig.savefig(png, format="png", dpi=144, metadata={"Software": None})
    text = describe(fig)
    plt.close(fig)
    width, height = (round(96 * inches) for inches in fig.get_size_inches())
    display(
        {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": text},
        metadata={"image/png": {"width": width, "height": height}},
        raw=True,
    )


def describe(fig: Figure) -> str:
    """What a figure says, read from what was drawn: axes, and each series with its numbers."""
    panels = [ax for ax in fig.axes if ax.get_label() != "<colorbar>"]
    if len(panels) == 1:
        return "\n".join(["Figure.", *_panel(panels[0])])
    parts = [f"Figure with {len(panels)} panels."]
    for number, ax in enumerate(panels, 1):
        parts += [f"Panel {number}.", *_panel(ax)]
    return "\n".join(parts)


def _panel(ax: Axes) -> list[str]:
    title = [f"Title: {ax.get_title()}."] if ax.get_title() else []
    axes = [f"{name}: {_axis(ax, name)}." for name in "xy"]
    names, parts = _containers(ax)
    drawn = [artist for artist in ax.get_children() if artist not in parts]
    bars = [_bars(bar) for bar in ax.containers if isinstance(bar, container.BarContainer)]
    series = [_series(ax, artist, names.get(artist, artist.get_label())) for artist in drawn]
    return [*title, *axes, *bars, *filter(None, series)]


def _containers(ax: Axes) -> tuple[dict, list]:
    """Bars and error bars consist of several artists: labels of the main one, and the others."""
    names, parts = {}, []
    for group in ax.containers:
        if isinstance(group, container.ErrorbarContainer):
            data, caps, _ = group.lines
            names[data] = group.get_label()
            parts += caps
        else:
            parts += group.patches
    return names, parts


def _axis(ax: Axes, name: str) -> str:
    axis = getattr(ax, f"{name}axis")
    label = axis.get_label_text() or "no label"
    scale = "" if axis.get_scale() == "linear" else f" ({axis.get_scale()} scale)"
    texts = [tick.get_text() for tick in axis.get_ticklabels()] if _has_names(axis) else []
    return label + scale + (f"; {', '.join(texts)}" if texts else "")


def _has_names(axis) -> bool:
    """Do the ticks carry names, as in a bar chart?"""
    return isinstance(
        axis.get_major_formatter(), ticker.FixedFormatter | category.StrCategoryFormatter
    )


def _series(ax: Axes, artist, label) -> str | None:
    """One sentence about a drawn thing, or None for what carries no data."""
    name = f' "{label}"' if label and not str(label).startswith("_") else ""
    if isinstance(artist, lines.Line2D):
        return _line(ax, artist, name)
    if isinstance(artist, collections.PathCollection):
        return f"Points{name}: {_points(*artist.get_offsets().T)}"
    if isinstance(artist, collections.QuadMesh | image.AxesImage):
        return _grid(artist, name)
    if isinstance(artist, collections.LineCollection | collections.PolyCollection):
        kind = "Segments" if isinstance(artist, collections.LineCollection) else "Band"
        x, y = np.concatenate([path.vertices for path in artist.get_paths()]).T
        return f"{kind}{name}: x {_range(x)}; y {_range(y)}."
    if isinstance(artist, patches.Rectangle) and artist is not ax.patch:
        corner, size = artist.get_xy(), (artist.get_width(), artist.get_height())
        return f"Rectangle{name}: corner {_pair(*corner)}, size {_pair(*size)}."
    if artist in ax.texts and artist.get_text():
        return f'Text "{artist.get_text()}" at {_pair(*artist.get_position())}.'
    return None


def _bars(bars) -> str:
    name = "" if bars.get_label().startswith("_") else f' "{bars.get_label()}"'
    centers = [bar.get_x() + bar.get_width() / 2 for bar in bars]
    return f"Bars{name}: {_points(centers, [bar.get_height() for bar in bars])}"


def _line(ax: Axes, line, name: str) -> str:
    x, y = (np.asarray(v, float) for v in line.get_data())
    if line.get_transform() == ax.get_yaxis_transform():
        return f"Horizontal line{name} at {_number(y[0])}."
    if line.get_transform() == ax.get_xaxis_transform():
        return f"Vertical line{name} at {_number(x[0])}."
    kind = "Points" if line.get_linestyle() in ("None", "", " ") else "Line"
    return f"{kind}{name}: {_points(x, y)}"


def _points(x, y) -> str:
    """Every point of a short series; the ends and the ranges of a long one."""
    x, y = (np.ma.asarray(v, float).filled(np.nan) for v in (x, y))
    if not len(x):
        return "0 points."
    points = [f"({_number(a)}, {_number(b, y)})" for a, b in zip(x, y, strict=True)]
    count = f"{len(x)} point{'s' if len(x) > 1 else ''}"
    if len(x) <= 8:
        return f"{count}: {', '.join(points)}."
    return f"{count} from {points[0]} to {points[-1]}; x {_range(x)}; y {_range(y)}."


def _range(values) -> str:
    """Minimum, maximum and mean: a changed value inside a series shows in the mean."""
    low, high, mean = np.nanmin(values), np.nanmax(values), np.nanmean(values)
    if low == high:
        return f"always {_number(low)}"
    numbers = (_number(v, values) for v in (low, high, mean))
    return "{} to {}, mean {}".format(*numbers)


def _grid(artist, name: str) -> str:
    values = np.ma.filled(np.ma.asarray(artist.get_array(), float), np.nan)
    return f"Image{name}: {' × '.join(map(str, values.shape))} values {_range(values)}."


def _pair(x, y) -> str:
    return f"({_number(x)}, {_number(y)})"


def _number(value: float, beside=0.0) -> str:
    """Three significant digits; whole numbers whole; what is rounding beside others is 0."""
    value = float(value)
    if not np.isfinite(value):
        return str(value)
    if value == 0 or abs(value) < 1e-12 * np.nanmax(np.abs(beside)):
        return "0"
    if 0.5 <= abs(value) < 1e6 and abs(value - round(value)) < 1e-9 * abs(value):
        return str(round(value))
    text = f"{value:#.3g}"
    return f"{value:.1f}" if 100 <= abs(value) < 1e6 or text.endswith(".") else text
