"""A figure says what it shows: every change of the picture changes its description."""

import base64

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from helpers.plots import band, describe, effects, show
from helpers.rng import generator

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
