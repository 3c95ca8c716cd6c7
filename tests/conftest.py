"""Tests compute as the notebooks do: float64 and one thread."""

import matplotlib
import pytest

from helpers import setup

matplotlib.use("Agg")
setup()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file stays on one core, as the cells of a notebook must; the slow trainings needn't."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return nodeid if file.endswith("test_stability.py") else file

    return ByFile(config, log)
