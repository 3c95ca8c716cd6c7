"""Tests compute as the notebooks do: float64 and one thread."""

import matplotlib

from helpers import setup

matplotlib.use("Agg")
setup()
