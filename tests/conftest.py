"""Tests compute as the notebooks do: float64 and one thread. Long ones run in `make test-all`."""

import matplotlib
import pytest

from grader.sandbox import Sandbox, SandboxError
from helpers import setup

matplotlib.use("Agg")
setup()


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the tests marked long, too")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: runs in `make test-all` only")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


@pytest.fixture(scope="session")
def sandboxes():
    """What needs a sandbox is skipped where none starts: there the grader refuses, too."""
    try:
        Sandbox().close()
    except SandboxError as error:
        pytest.skip(str(error).splitlines()[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file stays on one core, as the cells of a notebook must; the slow trainings needn't."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return nodeid if file.endswith("test_stability.py") else file

    return ByFile(config, log)
