"""A figure says what it shows, and a method looks the same in all of them, to every reader."""

import base64
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import colors, container, lines
from matplotlib import pyplot as plt

from helpers import plots
from helpers.plots import METHODS, OTHER, band, describe, effects, level, named, show, style_of
from helpers.rng import generator
from helpers.setup import COLOURS

STATIC = Path(__file__).parents[1] / "book" / "_static"

X = np.arange(1, 13)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def loss_curves(train=1.0, validation=2.0, labels=("train", "validation")):
    fig, ax = plt.subplots()
    ax.plot(X, train / X, label=labels[0])
    ax.plot(X, validation / X, label=labels[1])
    ax.set(xlabel="epoch", ylabel="loss (nats)", title="Two curves")
    return fig


def test_a_description_names_axes_and_series():
    assert describe(loss_curves()) == (
        "Figure.\n"
        "Title: Two curves.\n"
        "x: epoch.\n"
        "y: loss (nats).\n"
        'Line "train": 12 points from (1, 1) to (12, 0.0833); '
        "x 1 to 12, mean 6.50; y 0.0833 to 1, mean 0.259.\n"
        'Line "validation": 12 points from (1, 2) to (12, 0.167); '
        "x 1 to 12, mean 6.50; y 0.167 to 2, mean 0.517."
    )


def test_swapped_labels_a_missing_curve_and_a_changed_value_show():
    texts = {
        describe(fig)
        for fig in (
            loss_curves(),
            loss_curves(labels=("validation", "train")),
            loss_curves(train=1.1),
            loss_curves(validation=np.r_[2.0 * np.ones(6), 2.5, 2.0 * np.ones(5)]),
        )
    }
    assert len(texts) == 4
    fig = loss_curves()
    fig.axes[0].lines[1].remove()
    assert "validation" not in describe(fig)


def draw_log(ax):
    ax.set_yscale("log")


CHANGES = {
    "log scale": (draw_log, "y: no label (log scale)."),
    "points": (lambda ax: ax.plot([1, 2], [3, 4.5], "o", label="a"),
               'Points "a": 2 points: (1, 3), (2, 4.50).'),
    "scatter": (lambda ax: ax.scatter([1], [0.25], label="b"),
                'Points "b": 1 point: (1, 0.250).'),
    "bars": (lambda ax: ax.bar(["p", "q"], [1, 2.5], label="c"),
             'Bars "c": 2 points: (0, 1), (1, 2.50).'),
    "bar names": (lambda ax: ax.bar(["p", "q"], [1, 2.5]), "x: no label; p, q."),
    "horizontal line": (lambda ax: ax.axhline(0.1, label="chance"),
                        'Horizontal line "chance" at 0.100.'),
    "vertical line": (lambda ax: ax.axvline(20), "Vertical line at 20."),
    "band": (lambda ax: ax.fill_between([0, 1], [1, 1], [2, 3], label="d"), 'Band "d": x 0 to 1'),
    "error bars": (lambda ax: ax.errorbar([1, 2], [3, 4], yerr=0.5, capsize=3, label="e"),
                   'Line "e": 2 points: (1, 3), (2, 4).'),
    "error bars' ends": (lambda ax: ax.errorbar([1, 2], [3, 4], yerr=0.5, capsize=3),
                         "Segments: x 1 to 2, mean 1.50; y 2.50 to 4.50, mean 3.50."),
    "image": (lambda ax: ax.imshow(np.arange(6).reshape(2, 3)),
              "Image: 2 × 3 values 0 to 5, mean 2.50."),
    "mesh": (lambda ax: ax.pcolormesh(np.arange(6.0).reshape(2, 3)), "Image: 2 × 3 values 0 to 5"),
    "rectangle": (lambda ax: ax.axvspan(1, 2, label="f"), 'Rectangle "f": corner (1, 0)'),
    "text": (lambda ax: ax.text(1, 2, "here"), 'Text "here" at (1, 2).'),
    "nothing": (lambda ax: ax.plot([], [], label="g"), 'Line "g": 0 points.'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_drawn_is_described(change):
    draw, sentence = CHANGES[change]
    fig, ax = plt.subplots()
    before = describe(fig)
    draw(ax)
    assert sentence in describe(fig) and sentence not in before


def test_what_is_described_once_is_not_repeated():
    fig, ax = plt.subplots()
    ax.errorbar([1, 2], [3, 4], yerr=0.5, capsize=3, label="e")
    ax.bar([1, 2], [3, 4])
    assert len(describe(fig).split("\n")) == 3 + 3  # head and axes; line, its bars, bars


def test_panels_are_told_apart():
    fig, axes = plt.subplots(1, 2)
    axes[1].set_title("right")
    assert "Figure with 2 panels." in describe(fig)
    assert describe(fig).index("Panel 2.") < describe(fig).index("Title: right.")
    fig.colorbar(axes[0].imshow(np.eye(2)), ax=axes[0])
    assert "Figure with 2 panels." in describe(fig)


@pytest.mark.parametrize(("value", "text"), [
    (3, "3"), (2.0000000001, "2"), (0.123456, "0.123"), (1234.56, "1234.6"), (1e-7, "1.00e-07"),
    (2.5e9, "2.50e+09"), (0, "0"), (float("nan"), "nan"), (-0.5, "-0.500"),
    (99.96, "100.0"), (153.25, "153.2"),
])
def test_numbers_have_three_digits(value, text):
    fig, ax = plt.subplots()
    ax.axhline(value)
    assert f"Horizontal line at {text}." in describe(fig)


def test_rounding_beside_large_values_is_nought():
    fig, ax = plt.subplots()
    ax.plot([0, 1], [1.0, 3e-17])
    assert "(0, 1), (1, 0)" in describe(fig)


@pytest.fixture
def displayed(monkeypatch):
    outputs = []
    keep = lambda data, metadata, raw: outputs.append((data, metadata, raw))  # noqa: E731
    monkeypatch.setattr("IPython.display.display", keep)
    return outputs


def test_show_displays_picture_and_description(displayed):
    fig = loss_curves()
    text = describe(fig)
    show(fig)
    ((data, metadata, raw),) = displayed
    assert data["text/plain"] == text and raw
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata["image/png"] == {"width": 614, "height": 346}
    assert not plt.get_fignums()


def test_the_same_figure_gives_the_same_bytes(displayed):
    show(loss_curves())
    show(loss_curves())
    assert displayed[0] == displayed[1]


def test_band_shows_mean_and_one_standard_error():
    values = torch.randn(10, 12, generator=generator(0, "plots"))
    fig, ax = plt.subplots()
    band(ax, X, values, label="loss")
    mean, se = values.mean(0), values.std(0) / 10**0.5
    assert np.allclose(ax.lines[0].get_ydata(), mean)
    low, high = ax.collections[0].get_paths()[0].get_extents().intervaly
    assert np.isclose(low, (mean - se).min()) and np.isclose(high, (mean + se).max())


@pytest.mark.parametrize("shape", [(12,), (10, 11), (1, 12)])
def test_band_checks_its_values(shape):
    with pytest.raises(ValueError, match=r"values must be \(S, 12\) with S ≥ 2 seeds, got"):
        band(plt.subplots()[1], X, torch.zeros(shape), label="loss")


def test_effects_shows_every_seed_and_the_interval():
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    fig, ax = plt.subplots()
    effects(ax, {"dropout": values, "none": 0 * values})
    assert "Vertical line at 0." in describe(fig)
    assert 'Points "dropout": 1 point: (3, 0).' in describe(fig)
    assert "4 points: (1, 0), (2, 0), (3, 0), (6, 0)." in describe(fig)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["dropout", "none"]
    half = 3.182446 * values.std() / 2
    assert np.allclose(ax.collections[0].get_segments()[0][:, 0], [3 - half, 3 + half])


def test_level_is_a_horizontal_line():
    fig, ax = plt.subplots()
    level(ax, 0.25, "no penalty")
    assert 'Horizontal line "no penalty" at 0.250.' in describe(fig)


# --- one colour and one marker per method ------------------------------------------------


@pytest.mark.parametrize(("label", "methods"), [
    ("none", {"none"}), ("no penalty", {"none"}), ("AdamW − no decay", {"weight decay"}),
    ("lasso", {"L1"}), ("L1, 20 % wrong", {"L1"}), ("Adam + L2", {"L2"}), ("ridge", {"L2"}),
    ("AdamW − Adam + L2", {"weight decay", "L2"}), ("dropout 0.5", {"dropout"}),
    ("weight_decay λ", {"weight decay"}), ("Dropout2d", {"dropout"}),
    ("drop probability p", {"dropout"}),
    ("dropout + decay", {"dropout", "weight decay"}), ("last layer, over none", set()),
    ("dropout + noise", {"dropout", "other"}), ("raindrops", set()), ("L12", set()),
])
def test_labels_name_methods(label, methods):
    assert named(label) == methods
    assert style_of(label) == (METHODS[min(methods)] if len(methods) == 1 else {})


def unlike(fig) -> set[str]:
    """The series of a figure that name one method and don't wear its colour and its marker.

    Also those that have a method's colour although nothing names it: neither their label nor a
    title, an axis or the title of a legend.
    """
    texts = [text for ax in fig.axes for text in (ax.get_title(), ax.get_xlabel(), ax.get_ylabel())]
    texts += [ax.get_legend().get_title().get_text() for ax in fig.axes if ax.get_legend()]
    around = set().union(*map(named, texts))
    return {
        f"{label!r} looks like {name_of(look)}"
        for ax in fig.axes
        for look, label in series(ax)
        if not fits(look, named(label), around)
    }


def series(ax):
    """Colour and marker, and label, of whatever has a label, and of each line."""
    names, parts = plots._containers(ax)
    drawn = {line: names.get(line, line.get_label()) for line in ax.lines if line not in parts}
    labelled = zip(*ax.get_legend_handles_labels(), strict=True)
    drawn |= {a: label for a, label in labelled if not isinstance(a, container.ErrorbarContainer)}
    for artist, label in drawn.items():
        line = isinstance(artist, lines.Line2D)
        yield (colors.to_hex(artist.get_color()), artist.get_marker()) if line else (), label


def fits(look, label: set[str], around: set[str]) -> bool:
    if len(label) == 1 and label < set(METHODS):
        return look == look_of(*label)
    worn = {name for name in METHODS if look and look_of(name)[0] == look[0]}
    return worn <= label | around


def look_of(method: str) -> tuple[str, str]:
    return METHODS[method]["color"].lower(), METHODS[method]["marker"]


def name_of(look) -> str:
    return next((name for name in METHODS if look_of(name) == look), "no method")


DRESSED = {
    "by band": lambda ax: band(ax, X, torch.eye(12), "dropout"),
    "by effects": lambda ax: effects(ax, {"L1": torch.arange(3.0), "200 more": torch.ones(3)}),
    "by level": lambda ax: level(ax, 1, "no penalty"),
    "by hand": lambda ax: ax.plot(X, X, label="ridge", **style_of("ridge")),
    "two methods": lambda ax: ax.plot(X, X, label="dropout and decay"),
    "an axis names it": lambda ax: [ax.plot(X, X, label="right labels", **style_of("decay")),
                                    ax.set(xlabel="weight decay λ")],
    "a legend names it": lambda ax: [ax.plot(X, X, label="always", **style_of("decay")),
                                     ax.legend(title="decay")],
}
UNDRESSED = {
    "as it comes": lambda ax: ax.plot(X, X, label="dropout"),
    "another marker": lambda ax: ax.plot(X, X, label="L2", **style_of("L2") | {"marker": "s"}),
    "another colour": lambda ax: effects(ax, {"L1, wrong labels": torch.arange(3.0)}, color="C0"),
    "another method": lambda ax: band(ax, X, torch.eye(12), "none", **style_of("L1")),
    "bars": lambda ax: ax.bar([0, 1], [1, 2], label="dropout"),
    "points": lambda ax: ax.scatter(X, X, label="lasso"),
    "nothing names it": lambda ax: ax.plot(X, X, label="right labels", **style_of("decay")),
    "only its colour": lambda ax: ax.axhline(1, color=METHODS["none"]["color"]),
}


@pytest.mark.parametrize("draw", DRESSED | UNDRESSED)
def test_a_series_that_does_not_look_like_its_method_is_noticed(draw):
    fig, ax = plt.subplots()
    (DRESSED | UNDRESSED)[draw](ax)
    assert bool(unlike(fig)) == (draw in UNDRESSED), unlike(fig)


# --- every reader can tell them apart ----------------------------------------------------

# What colour-blind readers see of linear RGB: Machado, Oliveira and Fernandes, "A
# physiologically-based model for simulation of color vision deficiency", 2009, severity 1.0.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868],
                   [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968],
                     [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779],
                   [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375],
                [0.2126729, 0.7151522, 0.0721750],
                [0.0193339, 0.1191920, 0.9503041]])
# Filter Effects Module: hue-rotate(180deg)
HALF_TURN = [[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]]
METHODS_APART, APART, CONTRAST = 20, 10, 3.0


def linear(colour) -> np.ndarray:
    c = np.array(colors.to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(colour, seen_by: str) -> np.ndarray:
    """CIELAB under D65 of what a reader sees."""
    seen = np.clip(VISION[seen_by] @ linear(colour), 0, 1)
    t = XYZ @ seen / (XYZ @ np.ones(3))
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(a, b) -> float:
    """ΔE (CIE 1976) for the reader who sees the least of it; about 2.3 is just noticeable."""
    return min(np.linalg.norm(lab(a, kind) - lab(b, kind)) for kind in VISION)


def contrast(a, b) -> float:
    """As WCAG defines it, from 1 to 21."""
    low, high = sorted(linear(c) @ [0.2126, 0.7152, 0.0722] for c in (a, b))
    return (high + 0.05) / (low + 0.05)


def in_the_dark(colour) -> str:
    """What the page makes of a figure's colour in dark mode: invert(0.93) hue-rotate(180deg)."""
    inverted = 0.93 - 0.86 * np.array(colors.to_rgb(colour))
    return colors.to_hex(np.clip(HALF_TURN @ inverted, 0, 1))


def faint(palette) -> set[str]:
    """The colours that don't stand out from the ground, in light or in dark."""
    dark = in_the_dark("white")
    return {c for c in palette
            if min(contrast(c, "white"), contrast(in_the_dark(c), dark)) < CONTRAST}


def alike(palette, least: float) -> list[tuple[str, str]]:
    return [pair for pair in itertools.combinations(palette, 2) if distance(*pair) < least]


METHOD_COLOURS = [look["color"] for look in METHODS.values()]


def test_colours_of_methods_are_told_apart_by_every_reader():
    assert not alike(METHOD_COLOURS, METHODS_APART)
    assert not faint(METHOD_COLOURS)


def test_in_grey_print_methods_are_told_apart():
    for way in ("marker", "linestyle"):
        assert len({str(look[way]) for look in METHODS.values()}) == len(METHODS) == 5


def test_other_series_look_like_no_method_and_not_like_each_other():
    assert not alike([*COLOURS, *METHOD_COLOURS], APART)
    assert not faint([*COLOURS, "grey"])
    assert OTHER["marker"] not in [look["marker"] for look in METHODS.values()]


def test_a_bad_palette_is_noticed():
    red, green = "#D62728", "#2CA02C"
    normally = np.linalg.norm(lab(red, "normal") - lab(green, "normal"))
    assert distance(red, green) < METHODS_APART < normally
    assert alike([red, green, "#222222"], METHODS_APART) == [(red, green)]
    assert faint(["#E69F00", "#0072B2", "#111111", "#FFFFFF"]) == {"#E69F00", "#FFFFFF"}


def test_the_measures_are_the_standard_ones():
    assert contrast("white", "black") == pytest.approx(21)
    assert lab("white", "normal") == pytest.approx([100, 0, 0], abs=1e-3)
    assert lab("#ff0000", "normal") == pytest.approx([53.24, 80.09, 67.20], abs=0.01)
    for matrix in [*VISION.values(), HALF_TURN]:
        assert np.sum(matrix, axis=1) == pytest.approx(1, abs=2e-3)  # grey stays grey
    assert in_the_dark("white") == "#121212"
    assert "invert(0.93) hue-rotate(180deg)" in (STATIC / "book.css").read_text()


def test_the_pictures_with_sliders_have_the_same_colours():
    """In the dark, those that the page makes of figures."""
    css = (STATIC / "explore.css").read_text()
    same = {name: style_of(name)["color"] for name in ("ridge", "lasso")}
    for name, colour in (same | {"first": COLOURS[0], "second": COLOURS[1]}).items():
        assert re.findall(rf"--{name}: (#\w+);", css) == [colour.lower(), in_the_dark(colour)]
