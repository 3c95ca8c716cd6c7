"""Notebooks are re-executed to the same bytes, and stored outputs that are no longer true fail."""

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from nbformat import from_dict
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import notebooks
from tools.notebooks import main, normalise, read, readable, text, write_whole

ROOT = Path(__file__).parents[1]

CELLS = {
    "setup": "import matplotlib.pyplot as plt\nimport torch\n"
    "from helpers.plots import show\nfrom helpers.stats import standard_error",
    "scratch-data": "x = torch.linspace(0, 1, 5)\ny = x**2",
    "run-slope": "lam = 0.1\nslope = x @ y / (x @ x + lam)\nprint(f'λ = {lam}: slope {slope:.4f}')",
    "plot-fit": "fig, ax = plt.subplots()\nax.plot(x, y, label='data')\n"
    "ax.plot(x, slope * x, label='fit')\nax.legend()\nshow(fig)",
    "run-error": "print(f'standard error {standard_error(y):.3f}')",
    "verify-slope": "print('the slope is positive:', bool(slope > 0))",
}


def notebook(cells: dict):
    code = [new_code_cell(source, id=name) for name, source in cells.items()]
    return new_notebook(cells=[new_markdown_cell("# A claim", id="title"), *code])


def write(path: Path, nb) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(nb), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def kernels_find_the_helpers(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


# Normal form --------------------------------------------------------------------------------


def stream(said, name="stdout"):
    return new_output("stream", name=name, text=said)


def figure(said="A line."):
    return new_output("display_data", {"text/plain": said, "image/png": "AAAA"})


def one_cell(outputs=(), metadata=()):
    nb = notebook({"run-x": "1"})
    nb.cells[1].outputs, nb.cells[1].metadata = list(outputs), from_dict(dict(metadata))
    return nb


def test_normal_form_keeps_only_what_is_read():
    nb = one_cell([], {"tags": ["hide-input"], "collapsed": True, "execution": {"shell": "12:00"}})
    nb.metadata = from_dict({"kernelspec": {"name": "x"}, "widgets": {}, "toc": 1})
    nb.nbformat_minor = 4
    before, new = text(nb), normalise(nb)
    assert new.cells[1].metadata == {"tags": ["hide-input"]}
    assert new.metadata == notebooks.METADATA and new.nbformat_minor == 5
    assert text(nb) == before, "normalise must leave its argument alone"
    assert text(normalise(new)) == text(new)


def test_neighbouring_streams_are_joined_and_others_stay():
    nb = one_cell([stream("a\n"), stream("b\n"), stream("c\n", "stderr"), figure(), stream("d\n")])
    new = normalise(nb).cells[1].outputs
    assert [o.get("text") for o in new] == ["a\nb\n", "c\n", None, "d\n"]


def test_alt_text_is_the_figures_description():
    own = {"figure": {"name": "fig-x"}, "image": {"classes": "photo", "alt": "old"}}
    new = normalise(one_cell([figure("A line.")], {"mystnb": own})).cells[1].metadata
    image = {"classes": "photo", "alt": "A line."}
    assert new.mystnb == {"figure": {"name": "fig-x"}, "image": image}
    bare = normalise(one_cell([figure("A line.")])).cells[1].metadata
    assert bare == {"mystnb": {"image": {"alt": "A line."}}}
    gone = normalise(one_cell([], {"mystnb": {"image": {"alt": "old"}}})).cells[1].metadata
    assert gone == {}


@pytest.mark.parametrize(
    "cell_id, ok",
    [
        ("run-degrees", True),
        ("title", True),
        ("d2l-weight-decay", True),
        ("", False),
        ("Run", False),
        ("run_degrees", False),
        ("3fe1b2c4", False),
        ("deadbeef", False),
        ("d1e2f3a4-0b1c-4d2e-8f3a-0123456789ab", False),
    ],
)
def test_readable_ids(cell_id, ok):
    assert readable(cell_id) is ok


# Files --------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.ipynb"
    write_whole(path, "old\n")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, "new\n")
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path], "the temporary file is taken away"


def test_a_file_that_is_right_is_not_touched(tmp_path):
    path = tmp_path / "x.ipynb"
    write_whole(path, "same\n")
    os.utime(path, (1, 1))
    write_whole(path, "same\n")
    assert path.stat().st_mtime == 1
    write_whole(path, "other\n")
    assert path.stat().st_mtime > 1 and path.read_text() == "other\n"


def test_reading_invents_nothing(tmp_path):
    nb = notebook({"run-x": "1"})
    del nb.cells[1]["id"]
    assert "id" not in read(write(tmp_path / "x.ipynb", nb)).cells[1]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"cells": [{"cell_type": "code"}]}'])
def test_reading_what_is_no_notebook(tmp_path, content):
    (tmp_path / "x.ipynb").write_text(content)
    with pytest.raises(ValueError, match="this is no notebook of format 4: "):
        read(tmp_path / "x.ipynb")


def test_reading_a_code_cell_without_outputs(tmp_path):
    path = write(tmp_path / "x.ipynb", notebook({"run-x": "1"}))
    path.write_text(path.read_text().replace('"outputs": [],', ""))
    with pytest.raises(ValueError, match="'outputs' is a required property"):
        read(path)


# Re-execution -------------------------------------------------------------------------------


def test_notebooks_are_run_or_left_alone(tmp_path, capsys):
    good = write(tmp_path / "good.ipynb", notebook({"run-x": "print(1)\nprint(2)", "run-y": "3"}))
    raises = notebook({"run-a": "1", "run-b": "print('before')\nraise ValueError('p is 2')"})
    twice = notebook({"run-a": "1", "run-b": "2"})
    twice.cells[2].id = "run-a"
    bad = [
        write(tmp_path / "raises.ipynb", raises),
        write(tmp_path / "unnamed.ipynb", notebook({"run-a": "1", "1a2b3c4d": "2"})),
        write(tmp_path / "broken.ipynb", notebook({})),
        write(tmp_path / "twice.ipynb", twice),
    ]
    bad[2].write_text("{")
    before = [path.read_bytes() for path in bad]

    assert main([str(path) for path in [*bad, good]]) == 1
    said = capsys.readouterr()
    assert "raises.ipynb: cell run-b: ValueError: p is 2" in said.err
    assert "unnamed.ipynb: cell number 3 has the id '1a2b3c4d'; give it a readable" in said.err
    assert "twice.ipynb: cell number 3 has the id 'run-a'" in said.err
    assert "broken.ipynb: this is no notebook" in said.err
    assert [path.read_bytes() for path in bad] == before
    assert f"{good}: " in said.out and "raises" not in said.out
    cells = read(good).cells
    assert [c.execution_count for c in cells[1:]] == [1, 2]
    assert cells[1].outputs == [stream("1\n2\n")]
    assert sorted(tmp_path.iterdir()) == sorted([good, *bad])


def test_no_notebook_at_all(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "there is no notebook" in capsys.readouterr().err


# The stored outputs, tested by a real pytest run ----------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A small notebook that was run twice."""
    folder = tmp_path_factory.mktemp("book") / "unchanged"
    path = write(folder / "small.ipynb", notebook(CELLS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        first, second = [main([str(path)]) or path.read_bytes() for _ in range(2)]
    assert first == second != 1
    return path


def test_running_twice_leaves_the_same_bytes(small):
    """The fixture compared the bytes; here: they are those of a notebook that was run."""
    cells = {cell.id: cell for cell in read(small).cells}
    assert cells["run-slope"].outputs == [stream("λ = 0.1: slope 0.7911\n")]
    alt = cells["plot-fit"].metadata.mystnb.image.alt
    assert "data" in alt and "fit" in alt and not alt.startswith("<Figure")


def doctored(cell_id: str, old: str, new: str):
    """Changes the source of one cell and leaves its stored output."""

    def doctor(folder: Path):
        nb = read(folder / "small.ipynb")
        (cell,) = (cell for cell in nb.cells if cell.id == cell_id)
        assert old in cell.source
        cell.source = cell.source.replace(old, new)
        write(folder / "small.ipynb", nb)

    return doctor


def changed_helper(folder: Path):
    """A copy of the helpers, with one function changed, that this kernel finds first."""
    shutil.copytree(ROOT / "helpers", folder / "helpers")
    with (folder / "helpers/stats.py").open("a") as stats:
        stats.write("\n\ndef standard_error(values, dim=-1):\n    return 0.25\n")


def stale_output(folder: Path):
    nb = read(folder / "small.ipynb")
    nb.cells[3].outputs[0].text = "λ = 0.1: slope 0.7931\n"
    nb.cells[3].metadata = from_dict({"tags": ["nbval-skip", "nbval-ignore-output"]})
    write(folder / "small.ipynb", nb)


def never_run(folder: Path):
    write(folder / "small.ipynb", notebook(CELLS))


SWAPPED = "ax.plot(x, y, label='fit')\nax.plot(x, slope * x, label='data')"
DOCTORS = {
    "unchanged": lambda folder: None,
    "changed_lambda": doctored("run-slope", "lam = 0.1", "lam = 0.3"),
    "changed_helper": changed_helper,
    "swapped_label": doctored(
        "plot-fit", "ax.plot(x, y, label='data')\nax.plot(x, slope * x, label='fit')", SWAPPED
    ),
    "missing_curve": doctored("plot-fit", "ax.plot(x, slope * x, label='fit')\n", ""),
    "stale_output": stale_output,
    "never_run": never_run,
    "raises": doctored("verify-slope", "print(", "raise ValueError('p is 2')\nprint("),
}


@pytest.fixture(scope="module")
def failures(small) -> dict[str, dict[str, str]]:
    """Doctored copies of the notebook, tested by pytest: copy -> cell -> message of failure."""
    root = small.parent.parent
    for name, doctor in DOCTORS.items():
        (root / name).mkdir(exist_ok=True)
        (root / name / "small.ipynb").write_bytes(small.read_bytes())
        doctor(root / name)
    (root / "pytest.ini").write_text("[pytest]\n")
    others = [name for name in DOCTORS if name != "changed_helper"]
    found = {name: {} for name in DOCTORS}
    for case in [*run_pytest(root, others), *run_pytest(root, ["changed_helper"])]:
        for failure in case.iter("failure"):
            found[case.get("classname").split(".")[0]][case.get("name")] = failure.text
    return found


def run_pytest(root: Path, folders: list[str]) -> list[ET.Element]:
    """The test cases of a pytest run in which helpers beside the notebook come first."""
    options = "-p tools.nbval_numbers --nbval -p no:cacheprovider --junitxml=report.xml"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    environment["PYTHONPATH"] = os.pathsep.join([str(root / folders[0]), str(ROOT)])
    subprocess.run(
        [sys.executable, "-m", "pytest", *options.split(), *folders],
        cwd=root,
        env=environment,
        capture_output=True,
        timeout=300,
    )
    cases = list(ET.parse(root / "report.xml").iter("testcase"))
    assert len(cases) == len(folders) * len(CELLS), "every code cell is a test"
    return cases


def test_unchanged_notebook_passes(failures):
    assert failures["unchanged"] == {}


@pytest.mark.parametrize(
    "copy, cell, said",
    [
        (
            "changed_lambda",
            "run-slope",
            "    stored: λ = 0.1: slope 0.7911\n"
            "    now:    λ = 0.3: slope 0.7184\n"
            "                ^^^\n",
        ),
        ("changed_helper", "run-error", "stored: standard error 0.184"),
        ("changed_helper", "run-error", "now:    standard error 0.250"),
        ("swapped_label", "plot-fit", "^"),
        ("missing_curve", "plot-fit", "fit"),
        ("stale_output", "run-slope", "stored: λ = 0.1: slope 0.7931"),
        ("never_run", "run-slope", "this cell was committed without having been run"),
        ("never_run", "scratch-data", "this cell was committed without having been run"),
        ("raises", "verify-slope", "the cell raised an exception"),
        ("raises", "verify-slope", "ValueError: p is 2"),
    ],
    ids=lambda value: "both lines" if "\n" in value else value,
)
def test_doctored_notebook_fails_and_says_where(failures, copy, cell, said):
    message = failures[copy][cell]
    assert message.startswith(f"{copy}{os.sep}small.ipynb, cell {cell} (code cell ")
    assert said in message
    assert "run `make notebooks`" in message


def test_only_the_cells_that_changed_fail(failures):
    assert {copy: sorted(cells) for copy, cells in failures.items()} == {
        "unchanged": [],
        "changed_lambda": ["plot-fit", "run-slope"],
        "changed_helper": ["run-error"],
        "swapped_label": ["plot-fit"],
        "missing_curve": ["plot-fit"],
        "stale_output": ["run-slope"],
        "never_run": sorted(CELLS),
        "raises": ["verify-slope"],
    }
