"""Tests compute as the notebooks do: float64 and one thread."""

import matplotlib
import pytest

from helpers import setup

matplotlib.use("Agg")


@pytest.fixture(autouse=True, scope="session")
def _as_in_the_notebooks():
    setup()
