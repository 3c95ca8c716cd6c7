"""The benchmark suite: its page says what its results say, and it notices what is wrong."""

import contextlib
import copy
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from matplotlib import pyplot as plt
from test_book import PRINTED, notebook, small_book

from benchmarks import __main__ as bench
from benchmarks import book, browser, builds, install, machine, page
from helpers import plots
from tools.nbval_numbers import differences

ROOT = Path(__file__).parents[1]
WATCHED = ["benchmarks", "book", "helpers", "notebooks", "studies", "tests", "tools"]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def committed():
    return json.loads((ROOT / bench.RESULTS).read_text("utf-8"))


# --- what is committed -------------------------------------------------------------------


def test_the_committed_page_is_made_of_the_committed_results():
    results, stored = committed(), (ROOT / page.PAGE).read_text("utf-8")
    text, pictures = page.page(results)
    assert differences(stored, text) == [], "`make bench` writes both"
    assert {f"{name}.png" for name in pictures} == {
        path.name for path in (ROOT / page.PICTURES).iterdir()
    }
    for name, fig in pictures.items():
        alt = json.dumps(" ".join(plots.describe(fig).split()), ensure_ascii=False)
        assert f"{name}.png\n:alt: {alt}" in text


def test_the_committed_results_are_of_every_stage():
    results = committed()
    assert tuple(results["stages"]) == page.STAGES
    assert bench.as_text(results) == (ROOT / bench.RESULTS).read_text("utf-8")
    assert not results["quick"], "`make bench` writes those to publish"


def test_another_result_makes_another_page():
    results = committed()
    times = next(iter(results["stages"]["book"]["results"]["notebooks"].values()))
    times["seconds"] = [2 * value for value in times["seconds"]]
    stored = (ROOT / page.PAGE).read_text("utf-8")
    assert differences(stored, page.page(results)[0])


# --- the quick run -----------------------------------------------------------------------


def files():
    """What is in the tree, without what Python and Jupyter leave there."""
    paths = (path for part in WATCHED for path in (ROOT / part).rglob("*") if path.is_file())
    kept = (p for p in paths if not {"__pycache__", ".ipynb_checkpoints"} & set(p.parts))
    return {path: path.stat().st_mtime_ns for path in kept}


def program(*arguments, **options):
    """Start the program as make does."""
    command = [sys.executable, "-m", "benchmarks", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, **options,
    )


def test_the_quick_run_measures_everything_and_leaves_the_tree_alone():
    before, out = files(), ROOT / "_build" / "bench-quick"
    shutil.rmtree(out, ignore_errors=True)
    said, errors = (running := program("--quick")).communicate()
    assert running.returncode == 0, said + errors
    assert files() == before
    results = json.loads((out / bench.RESULTS).read_text("utf-8"))
    assert tuple(results["stages"]) == page.STAGES
    text = (out / page.PAGE).read_text("utf-8")
    assert text == page.page(results)[0]
    assert len(re.findall("^## ", text, re.MULTILINE)) > len(page.STAGES)
    for name, why in results["peers"].items():
        assert not why or f"{name} is absent: {why}" in text
        assert not why or re.search(rf"(?im)^\| {name}: absent \({why}\)", text)
    shown = set(re.findall(r"\{image\} (\S+)", text))
    assert shown == {f"_static/benchmarks/{p.name}" for p in (out / page.PICTURES).iterdir()}
    assert not list(out.glob("*.json"))


# --- stopping and going on ---------------------------------------------------------------


@pytest.fixture
def stages(monkeypatch):
    """Stages that only say that they ran; the list of them; set ``stop`` to stop before one."""

    class Ran(list):
        stop = None

    ran = Ran()

    def child(command, *_):
        stage, path = command[3], command[4]
        if stage == ran.stop:
            raise KeyboardInterrupt
        ran.append(stage)
        path.write_text(json.dumps({"seconds": 1, "results": len(ran)}), "utf-8")

    monkeypatch.setattr(bench, "_child", child)
    return ran


def test_an_interrupted_run_goes_on_where_it_was(stages, tmp_path):
    stages.stop = "growth"
    with pytest.raises(KeyboardInterrupt):
        bench.run([], True, tmp_path)
    assert stages == ["training", "lasso"]
    stages.stop = None
    found = bench.run([], True, tmp_path)
    assert stages == list(page.STAGES)
    assert [found["stages"][name]["results"] for name in page.STAGES] == [1, 2, 3, 4, 5, 6]


def test_a_named_stage_is_measured_again_and_the_others_are_not(stages, tmp_path, capsys):
    assert bench.run(["lasso"], True, tmp_path) is None
    assert "The page needs training, growth, book, builds, grading, too." in capsys.readouterr().out
    bench.run([], True, tmp_path)
    bench.run(["lasso"], True, tmp_path)
    assert sorted(stages) == sorted([*page.STAGES, "lasso"])


def test_results_of_something_else_are_not_taken(stages, tmp_path, monkeypatch):
    bench.run([], True, tmp_path)
    monkeypatch.setattr(machine, "versions", lambda: {"torch": "0.1"})
    bench.run([], True, tmp_path)
    assert len(stages) == 2 * len(page.STAGES)


def test_a_failed_stage_is_named_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "CHILD", "raise AssertionError('contenders differ')")
    monkeypatch.setattr(bench, "publish", None)
    assert bench.main(["--quick"]) == 1
    assert "training failed, and so there is no page" in capsys.readouterr().err


def test_an_unknown_stage_is_named(capsys):
    assert bench.main(["lassoo"]) == 2
    assert "there is no stage lassoo; there are training" in capsys.readouterr().err


@pytest.mark.parametrize("how, stage, begun", [
    (signal.SIGINT, "builds", "_build"),
    (signal.SIGTERM, "builds", "_build"),
    (signal.SIGTERM, "book", "plain"),  # while a notebook runs
])
def test_a_stopped_run_cleans_up_and_says_how_to_go_on(tmp_path, how, stage, begun):
    running = program("--quick", stage, env={"TMPDIR": str(tmp_path)}, start_new_session=True)
    until = time.monotonic() + 60
    while not list(tmp_path.rglob(begun)) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(2 if stage == "book" else 0)
    if how == signal.SIGINT:
        os.killpg(running.pid, how)  # as a terminal does: to all its processes
    else:
        running.send_signal(how)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130 and "Traceback" not in errors
    assert "the same command goes on from there" in errors
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


# --- the peers ---------------------------------------------------------------------------


def test_a_peer_that_does_not_install_is_absent_with_its_reason(tmp_path):
    needs = ["numpy>=2", "no-such-peer>1"]
    found = install.install(tmp_path / "environment", needs, "--no-index")
    assert found["numpy"] == ""
    assert found["no-such-peer"].startswith("Could not find a version that satisfies")
    sees = "import numpy, sys; print(numpy.__file__, sys.prefix)"
    said = install.ask(install.interpreter(tmp_path / "environment"), sees)
    assert said.split()[0].startswith(str(Path(sys.prefix).resolve())) or sys.prefix in said
    assert said.split()[1] == str(tmp_path / "environment")


def test_pips_reason_is_short_and_names_no_place():
    said = "WARNING: x\nERROR: Could not open https://example.org/a/b or /home/me/x: no\nERROR: z"
    assert install.reason(said) == "Could not open … or … no"
    assert len(install.reason("ERROR: " + "long " * 100)) == 120
    assert install.reason("") == "pip gave no reason"


def test_an_absent_peer_is_named_on_the_page():
    results = committed()
    results["peers"] = {"lightning": "no wheel for this system"}
    assert "lightning is absent: no wheel for this system." in page.page(results)[0]


def test_the_machine_is_described_without_names():
    said = json.dumps([machine.machine(), machine.versions(), machine.moment()])
    assert machine.machine()["processor"] and machine.machine()["cores"] >= 1
    assert socket.gethostname() not in said and str(Path.home()) not in said
    assert "/" not in said and {"Python", "torch", "nbval"} <= machine.versions().keys()


# --- numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("value, says", [
    (0, "0"), (0.00012345, "0.000123"), (0.012345, "0.0123"), (1, "1.00"), (9.999, "10.0"),
    (99.96, "100"), (123.4, "123"), (1234.5, "1\u202f230"), (-2.5, "-2.50"), (1e-6, "1.00e-06"),
])
def test_numbers_have_three_digits(value, says):
    assert page.number(value) == says


def test_a_median_comes_with_quartiles():
    assert page.middle([1, 2, 3, 4, 5]) == "3.00 (2.00–\u20604.00)"
    assert page.middle([7]) == "7.00"


# --- the book's own measures -------------------------------------------------------------

SLOW = ["import time", "def f():\n    import slow\nf()\nf()", "time.sleep(0.3)"]


def code(source):
    return {"cell_type": "code", "execution_count": None, "id": f"run-{len(source)}",
            "metadata": {}, "outputs": [], "source": source}


def write_notebook(path, sources):
    cells = [code(source) for source in sources]
    path.write_text(json.dumps(
        {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


def execute_one(path):
    """In a thread of its own, since that of the tests may have the browser's event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(book.execute_one, path).result()


def test_importing_is_found_wherever_it_is_and_counted_once(tmp_path):
    (tmp_path / "slow.py").write_text("import slower\n")
    (tmp_path / "slower.py").write_text("import time\ntime.sleep(1)\n")
    write_notebook(tmp_path / "n.ipynb", SLOW)
    found = execute_one(tmp_path / "n.ipynb")
    assert 1 <= found["importing"] < 2
    assert found["seconds"] >= found["importing"] + 0.3


def test_a_cell_that_raises_stops_the_benchmark(tmp_path):
    write_notebook(tmp_path / "n.ipynb", ["1 / 0"])
    with pytest.raises(Exception, match="ZeroDivisionError"):
        execute_one(tmp_path / "n.ipynb")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_book(tmp_path_factory.mktemp("small"))


def test_nbval_counts_cells_and_an_output_that_differs_stops_it(small):
    assert book.nbval(small, ["00_small"], 0)["cells"] == 1
    wrong = notebook(PRINTED | {"text": "2\n"})
    (small / "notebooks" / "01_wrong.ipynb").write_text(wrong)
    with pytest.raises(RuntimeError, match="nbval found differences"):
        book.nbval(small, ["01_wrong"], 0)
    (small / "notebooks" / "01_wrong.ipynb").unlink()


def test_a_build_that_fails_stops_the_benchmark(tmp_path):
    with pytest.raises(RuntimeError, match="failed:\nno such luck"):
        builds.build(tmp_path, ["sh", "-c", "echo no such luck; exit 3"])


def test_memory_that_is_hidden_by_this_process_is_noticed(tmp_path):
    with pytest.raises(RuntimeError, match="hidden"):
        builds.build(tmp_path, ["true"])


def test_peak_memory_and_time_are_those_of_the_command():
    large = "import time; x = b'x' * 200_000_000; time.sleep(0.3)"
    measure = (f"from benchmarks import builds; import json, sys; from pathlib import Path\n"
               f"command = [sys.executable, '-c', {large!r}]\n"
               f"print(json.dumps(builds.build(Path('.'), command)))")
    found = json.loads(install.ask(sys.executable, measure, cwd=ROOT))
    assert 200 < found["megabytes"] < 260 and found["seconds"] > 0.3


@pytest.mark.parametrize("broken", ["pictures", "cells", "headings"])
def test_a_page_with_other_content_is_noticed(broken):
    shown = '<h2>a</h2><div class="cell_input"></div><img src="../_images/x.png">'
    counts = builds.Content(shown).counts
    assert counts == {"headings": 1, "pictures": 1, "cells": 1}
    builds.require_same({"a": counts}, {"a": counts}, "copy 1")
    with pytest.raises(AssertionError, match="copy 1: a shows"):
        builds.require_same({"a": counts | {broken: 2}}, {"a": counts}, "copy 1")


def test_a_build_that_misses_the_change_is_noticed(tmp_path, monkeypatch):
    folder = tmp_path / "ours"
    html = folder / "_build" / "html" / "notebooks"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks" / "n.ipynb").write_text(notebook(PRINTED))

    def build(*_):
        html.mkdir(parents=True, exist_ok=True)
        (html / "n.html").write_text("as it was")
        return {"seconds": 1, "megabytes": 1}

    monkeypatch.setattr(book, "build", build)
    with pytest.raises(AssertionError, match="ours: the build missed the change"):
        book.builds({folder: []}, ["n"], 1, book.KINDS)


def test_copies_of_notebooks_share_no_label():
    for name in builds.notebooks():
        text = (ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8")
        first, second = labels(text), labels(builds.relabelled(text, 1))
        assert len(first) == len(second) and not first & second, name
        assert second == {f"{label}-1" for label in first}


def labels(text):
    cells = json.loads(text)["cells"]
    prose = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    named = re.findall(r"^\(([\w-]+)\)=$|^:label: (\S+)$|^\$\$ \(([\w-]+)\)$", prose, re.M)
    figures = (c["metadata"].get("mystnb", {}).get("figure", {}).get("name") for c in cells)
    return {name for match in named for name in match if name} | {f for f in figures if f}


# --- the browser -------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path):
    """Two pages that share a style sheet; one wants something from another host."""
    (tmp_path / "all.css").write_text("p { color: red }" * 100)
    link = '<link rel="stylesheet" href="all.css"><p>Words</p>'
    (tmp_path / "one.html").write_text(link)
    (tmp_path / "two.html").write_text(f'{link}<img src="http://host.invalid/x.png">')
    return tmp_path


def sizes(site):
    return {p.name: len(gzip.compress(p.read_bytes(), 6)) for p in site.iterdir()}


def test_a_visit_is_weighed_and_timed(site, request):
    chromium = request.getfixturevalue("browser")  # a process can run only one Playwright

    def opened(*flags):
        return contextlib.nullcontext(chromium)

    found = browser.visit({"ours": (site, ["one.html", "two.html"])}, 2, opened)
    one, two = found["books"]["ours"].values()
    size = sizes(site)
    assert one["first"] == size["one.html"] + size["all.css"] and one["elsewhere"] == {}
    assert two["first"] == size["two.html"] + size["all.css"]
    assert (one["next"], two["next"]) == (size["one.html"], size["two.html"])
    assert two["elsewhere"] == {"host.invalid": 1}
    assert len(one["paint"]) == 2 and min(one["paint"] + two["paint"]) > 0
    with pytest.raises(RuntimeError, match="gone.html: the browser got 404"):
        browser.visit({"ours": (site, ["one.html", "gone.html"])}, 1, opened)


def test_without_a_browser_the_page_says_so(site):
    def none(*flags):
        raise LookupError("there is no Chromium on this machine")

    absent = browser.visit({"ours": (site, ["one.html"])}, 1, opened=none)
    results = copy.deepcopy(committed())
    results["stages"]["book"]["results"]["pages"] = absent
    text, pictures = page.page(results)
    assert "Absent: there is no Chromium on this machine." in text
    assert "book_pages" not in pictures and "book_notebooks" in pictures
