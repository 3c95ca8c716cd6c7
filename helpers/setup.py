"""The one call at the top of each notebook."""

# Of series that are no method (a method's own look: plots.METHODS). Muted colours, told apart by
# colour-blind readers; line styles differ, too.
COLOURS = ["#4C5181", "#9E8741", "#773939", "#818A91", "#56612E", "#357173"]
LINES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2))]


def setup() -> None:
    """Make results repeatable and figures alike: float64, one thread, one style.

    float64, because in float32 other processors change the third printed digit. One thread,
    because the order of sums depends on the number of threads, and small models run no slower.
    """
    import matplotlib as mpl
    import numpy as np
    import torch

    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.set_printoptions(precision=4, sci_mode=False, linewidth=88)
    np.set_printoptions(precision=4, suppress=True, linewidth=88)
    mpl.rcParams.update(_style(mpl))


def _style(mpl) -> dict:
    return {
        "axes.prop_cycle": mpl.cycler(color=COLOURS) + mpl.cycler(linestyle=LINES),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "figure.figsize": (6.4, 3.6),
        "figure.dpi": 110,
        "figure.constrained_layout.use": True,
        "lines.linewidth": 1.8,
        "font.size": 11,
        "legend.frameon": False,
    }
