"""Tests compute as the notebooks do: float64 and one thread. Long ones run in `make test-all`."""

import fcntl
import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import matplotlib
import pytest

from grader.sandbox import Sandbox, SandboxError
from helpers import setup
from tools.chromium import chromium

matplotlib.use("Agg")
setup()

ROOT = Path(__file__).parents[1]


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
    """A file stays on one core, as the cells of a notebook must.

    The slow trainings needn't, and what looks at the pages on a phone takes the other core.
    """
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            if nodeid.endswith("[phone]"):
                return "phone"
            return nodeid if file.endswith("test_stability.py") else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window. Where there is none, the tests are skipped and say why."""
    try:
        with chromium() as running:
            yield running
    except LookupError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def html(tmp_path_factory, worker_id):
    """The whole book, built once by `make book` in a copy of the project: the folder of its pages.

    Tests on both cores read it, so no test changes it.
    """
    from test_book import make

    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    copy = shared / "project"
    leave = shutil.ignore_patterns(".*", "_build", "__pycache__", "*.egg-info")
    with open(shared / "project.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (copy / "_build/.clean").exists():
            shutil.copytree(ROOT, copy, ignore=leave)
            (copy / ".venv").symlink_to(sys.prefix)
            run = make(copy, "book")
            assert run.returncode == 0, run.says
    return copy / "_build" / "html"


@pytest.fixture(scope="module")
def server(html):
    """The same pages as a server sends them."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=html)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
