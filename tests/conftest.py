"""Tests compute as the notebooks do: float64 and one thread. Long ones run in `make test-all`."""

import shutil
import sys
from pathlib import Path

import matplotlib
import pytest

from helpers import setup

matplotlib.use("Agg")
setup()

ROOT = Path(__file__).parents[1]
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the tests marked long, too")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: runs in `make test-all` only")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: make test-all"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file stays on one core, as the cells of a notebook must; the slow trainings needn't."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return nodeid if file.endswith("test_stability.py") else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window. Where there is none, the tests are skipped and say why."""
    advice = "there is no Playwright: pip install -e '.[test]' installs it"
    playwright = pytest.importorskip("playwright.sync_api", reason=advice)
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    with playwright.sync_playwright() as p:
        if not program and not Path(p.chromium.executable_path).exists():
            pytest.skip(
                "there is no Chromium: install your system's package chromium, or run "
                ".venv/bin/playwright install chromium"
            )
        running = p.chromium.launch(executable_path=program, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def html(tmp_path_factory):
    """The whole book, built by `make book` in a copy of the project: the folder of its pages."""
    from test_book import make

    copy = tmp_path_factory.mktemp("copy") / "project"
    leave = shutil.ignore_patterns(".*", "_build", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=leave)
    (copy / ".venv").symlink_to(sys.prefix)
    run = make(copy, "book")
    assert run.returncode == 0, run.says
    return copy / "_build" / "html"
