"""Tests compute as the notebooks do: float64 and one thread. Long ones run in `make test-all`."""

import matplotlib
import pytest

from helpers import setup

matplotlib.use("Agg")
setup()


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the tests marked long, too")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: runs in `make test-all` only")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: make test-all"))
