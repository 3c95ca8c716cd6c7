"""Honest notebooks get what they deserve, a batch can be interrupted, and files are sorted out."""

import copy
import csv
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from homework_toy import toy

from grader import feedback, grade, sandbox
from grader.answers import decode
from grader.assignment import Assignment, definitions, role
from grader.collect import clean, collect, identify
from grader.inside import encode
from grader.rebuild import Rejected, harmless, outputs, read_submission, rebuild
from grader.release import sources
from grader.trial import grade_notebook, lost, submission, together, wrong_answers
from tools.notebooks import text

ROOT = Path(__file__).parents[1]
PATHS = sources(ROOT / "homework" / "source")
NAMES = [path.stem for path in PATHS]
TOY = Assignment(toy(), "toy")


@pytest.fixture(scope="module")
def toy_path(sandboxes, tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "toy" / "toy.ipynb"
    path.parent.mkdir()
    path.write_text(text(toy()), "utf-8")
    return path


# The assignments of the book ------------------------------------------------------------------


@pytest.fixture(scope="module")
def book_results(sandboxes, tmp_path_factory):
    """All assignments, solved and untouched, in one batch; torch may take two threads."""
    place = tmp_path_factory.mktemp("book")
    for path in PATHS:
        assignment = Assignment.load(path)
        for name, nb in {"solved": submission(assignment), "open": assignment.released}.items():
            file = place / "in" / name / path.stem / path.name
            file.parent.mkdir(parents=True)
            file.write_text(text(nb), "utf-8")
    (place / "source").symlink_to(ROOT / "homework" / "source")
    done = run(place, OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    return {(r["student"], r["assignment"]): r for r in grade.GradeBook(place / "book").all()}


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_gets_full_marks(book_results, name):
    result = book_results["solved", name]
    assert lost(result) == [] and result["points"] == result["max"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_untouched_release_gets_nothing(book_results, name):
    assert book_results["open", name]["points"] == 0


WRONG = [(p, *w) for p in PATHS for w in wrong_answers(p.stem, ROOT / "homework" / "wrong")]


def fast_wrong():
    """The same, but without a sandbox: (path, name, changes, lost checks)."""
    return [pytest.param(*w, id=f"{w[0].stem}: {w[1]}") for w in WRONG]


@pytest.mark.parametrize(("path", "name", "changes", "losing"), fast_wrong())
def test_a_wrong_answer_loses_exactly_its_points_outside_of_the_sandbox(
    path, name, changes, losing
):
    assignment = Assignment.load(path)
    nb, names, theirs = submission(assignment, changes), assignment.namespace(), {"__name__": "s"}
    wanting = {cell.split("-")[0] for cell in changes}
    for cell in nb.cells:
        if role(cell) in ("given", "answer"):
            exec(cell.source, theirs)
        if role(cell) == "look":
            exec(definitions(cell.source), theirs)
    found = []
    for question in assignment.questions:
        if question.name not in wanting:
            continue
        try:
            answer = decode(json.loads(json.dumps(encode(theirs[question.probe](seed=5)))))
        except Exception:
            found += [check.cell for check in question.checks]
            continue
        checks = question.checks
        found += [c.cell for c in checks if not grade.passes(names[c.function], answer, 5)]
    assert sorted(found) == sorted(losing)


def students_with_mistakes():
    """Mistakes in different questions together, so that fewer sandboxes do."""
    for path in PATHS:
        table = wrong_answers(path.stem, ROOT / "homework" / "wrong")
        for number, row in enumerate(together(table)):
            yield pytest.param(path, *row, id=f"{path.stem}-{number}")


@pytest.mark.long
@pytest.mark.parametrize(("path", "name", "changes", "losing"), [*students_with_mistakes()])
def test_a_student_with_mistakes_loses_exactly_their_points(
    sandboxes, path, name, changes, losing
):
    result = grade_notebook(path, submission(Assignment.load(path), changes))
    assert sorted(lost(result)) == sorted(losing), name
    checks = [check for q in result["questions"] for check in q["checks"]]
    most = sum(check["max"] for check in checks if check["cell"] not in losing)
    assert result["points"] == most < result["max"]


def test_mistakes_are_put_together_only_where_they_touch_different_questions():
    one, two, three = {"q1-answer": "a"}, {"q1-answer-b": "b", "q2-answer": "c"}, {"q2-answer": "d"}
    found = together([("a", one, ["x"]), ("b", two, ["y"]), ("c", three, ["z"])])
    assert found == [("a + c", one | three, ["x", "z"]), ("b", two, ["y"])]


# Honest oddities ------------------------------------------------------------------------------


def as_dict():
    return json.loads(json.dumps(submission(TOY)))


def cell_of(nb, name):
    return next(cell for cell in nb["cells"] if cell["id"] == name)


def code(source, **more):
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [],
            "source": source, **more}  # fmt: skip


def untouched(nb):
    pass


def added_cells(nb):
    nb["cells"].insert(2, code("import math\nmy_half = 1 / 2", id="mine"))
    cell_of(nb, "q1-answer")["source"] = (
        "def half_square(x, y):\n    return my_half * (x - y).square().mean()"
    )
    nb["cells"].insert(0, code("print('first')", id="first"))
    nb["cells"].append(code("1 / 0", id="last"))


def split_cell(nb):
    at = nb["cells"].index(cell_of(nb, "q1-answer"))
    first, second = copy.deepcopy(nb["cells"][at]), copy.deepcopy(nb["cells"][at])
    first["source"] = "def square(x):\n    return x**2\n"
    second |= {"source": "def half_square(x, y):\n    return square(x - y).mean() / 2", "id": "b"}
    nb["cells"][at : at + 1] = [first, second]


def split_without_names(nb):
    split_cell(nb)
    next(cell for cell in nb["cells"] if cell["id"] == "b")["metadata"] = {}


def reordered(nb):
    nb["cells"] = nb["cells"][::-1]


def deleted_checks(nb):
    nb["cells"] = [c for c in nb["cells"] if "check" not in c["id"] and "look" not in c["id"]]


def edited_checks(nb):
    for cell in nb["cells"]:
        if "look" in cell["id"] or "given" in cell["id"] or "check" in cell["id"]:
            cell["source"] = "raise SystemExit"


def other_kernel(nb):
    nb["metadata"] = {"kernelspec": {"name": "ir", "language": "R", "display_name": "R"}}


def old_format(nb):
    nb["nbformat_minor"] = 2
    for cell in nb["cells"]:
        del cell["id"]


def format_three(nb):
    cells = [
        {"cell_type": "code", "language": "python", "input": c["source"], "outputs": [],
         "metadata": c["metadata"], "prompt_number": 1} if c["cell_type"] == "code" else c
        for c in nb.pop("cells")
    ]  # fmt: skip
    for cell in cells:
        cell.pop("id", None)
    nb |= {"nbformat": 3, "nbformat_minor": 0, "worksheets": [{"cells": cells, "metadata": {}}]}


def colab(nb):
    for cell in nb["cells"]:
        cell["metadata"] = {"id": cell.pop("id")}
    nb["metadata"] = {"colab": {"provenance": []}}


def without_any_name(nb):
    for cell in nb["cells"]:
        cell["metadata"] = {}
        del cell["id"]


def warnings(nb):
    cell_of(nb, "q1-answer")["source"] = (
        "import warnings, sys\n"
        "def half_square(x, y):\n"
        "    warnings.warn('careful')\n    print('an error', file=sys.stderr)\n"
        "    return 0.5 * (x - y).square().mean()"
    )


def slow(nb):
    cell_of(nb, "q1-answer")["source"] = (
        "import time\n"
        "def half_square(x, y):\n    time.sleep(1)\n    return 0.5 * (x - y).square().mean()"
    )


def other_types(nb):
    cell_of(nb, "q1-answer")["source"] = (
        "import numpy as np\n"
        "def half_square(x, y):\n    return np.float64(0.5) * np.mean((x.numpy() - y.numpy()) ** 2)"
    )


def with_gradient(nb):
    cell_of(nb, "q1-answer")["source"] = (
        "w = torch.ones((), requires_grad=True)\n"
        "def half_square(x, y):\n    return w * 0.5 * (x - y).square().mean()"
    )


def magics(nb):
    nb["cells"].insert(1, code("%matplotlib inline\n%load_ext autoreload\n!ls\n%pip list", id="m"))


def source_as_list(nb):
    for cell in nb["cells"]:
        cell["source"] = [*"".join(cell["source"])]


def stored_outputs(nb):
    huge = {"output_type": "stream", "name": "stdout", "text": "x" * 10**6}
    cell_of(nb, "q1-answer")["outputs"] = [huge]


def other_metadata(nb):
    nb["cells"][0]["attachments"] = {"a.png": {"image/png": "AAAA"}}
    nb["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    cell_of(nb, "q1-answer")["metadata"]["nbgrader"]["points"] = -100
    cell_of(nb, "q1-check-one")["metadata"]["nbgrader"]["points"] = 100


ODDITIES = [
    untouched, added_cells, split_cell, split_without_names, reordered, deleted_checks, edited_checks,
    other_kernel, old_format, format_three, colab, without_any_name, warnings, slow, other_types,
    with_gradient, magics, source_as_list, stored_outputs, other_metadata,
]  # fmt: skip
QUICK = [added_cells, split_cell, old_format, warnings]


def keeps_full_marks(toy_path, change):
    nb = as_dict()
    change(nb)
    result = grade_notebook(toy_path, json.dumps(nb))
    assert (result["points"], result["max"]) == (6, 6), result


@pytest.mark.parametrize("change", QUICK)
def test_an_honest_oddity_keeps_full_marks(toy_path, change):
    keeps_full_marks(toy_path, change)


@pytest.mark.long
@pytest.mark.parametrize("change", [change for change in ODDITIES if change not in QUICK])
def test_every_honest_oddity_keeps_full_marks(toy_path, change):
    keeps_full_marks(toy_path, change)


@pytest.mark.long
def test_pictures_without_end_are_left_out(toy_path):
    show = """
import base64, os
png = base64.b64encode(b"\\x89PNG\\r\\n\\x1a\\n" + os.urandom(700_000)).decode()
for _ in range(8): display({"image/png": png}, raw=True)
"""
    nb = as_dict()
    nb["cells"] = [code(show, id=f"show-{i}") for i in range(8)] + nb["cells"]
    result = grade_notebook(toy_path, json.dumps(nb))
    assert result["points"] == 6 and 10**6 < len(json.dumps(result)) < 3 * 10**7
    assert "too large to be kept" in json.dumps(result["notebook"])


@pytest.mark.parametrize("change", ODDITIES)
def test_the_rebuilt_notebook_has_the_instructors_cells_in_order(tmp_path, change):
    nb = as_dict()
    change(nb)
    (tmp_path / "a.ipynb").write_text(json.dumps(nb))
    steps = rebuild(TOY, read_submission(tmp_path / "a.ipynb"))
    own = [step.cell for step in steps if not step.added and step.kind == "cell"]
    wanted = [cell["id"] for cell in TOY.released.cells if cell.cell_type == "code"]
    assert [name for name in wanted if name in own] == own
    assert [step.cell for step in steps if step.kind == "probe"] == ["q1-look", "q2-look"]
    assert all("SystemExit" not in step.source for step in steps)


NO_NOTEBOOKS = {
    "empty": (b"", "empty"),
    "blank": (b" \n", "empty"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "not JSON"),
    "half": (text(toy()).encode()[:500], "not JSON"),
    "deep": (b"[" * 100_000, "not JSON"),
    "number": (b"1", "no cells"),
    "object": (b"{}", "no cells"),
    "cells that are none": (b'{"cells": 5}', "no cells"),
    "odd cells": (
        b'{"cells": [1, null, {"cell_type": [], "source": {}, "metadata": 3}]}',
        "none of",
    ),
    "another notebook": (b'{"cells": [{"cell_type": "code", "source": "1"}]}', "none of"),
    "many cells": (json.dumps({"cells": [{}] * 301}).encode(), "300 cells"),
    "long": (json.dumps({"cells": [{"source": "x" * 500_001}]}).encode(), "characters"),
}


@pytest.mark.parametrize("name", NO_NOTEBOOKS)
def test_a_file_that_is_no_notebook_is_rejected_with_a_reason(tmp_path, name):
    content, reason = NO_NOTEBOOKS[name]
    (tmp_path / "a.ipynb").write_bytes(content)
    with pytest.raises(Rejected, match=reason):
        rebuild(TOY, read_submission(tmp_path / "a.ipynb"))


# Answers --------------------------------------------------------------------------------------

ANSWERS = [None, True, 0, -5, 2**62, 1.5, float("inf"), "é", [1, [2.0]], {"a": {"b": []}}]


@pytest.mark.parametrize("answer", ANSWERS)
def test_plain_data_comes_back_as_it_was(answer):
    assert decode(json.loads(json.dumps(encode(answer)))) == answer


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.int64, torch.bool, torch.uint8]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3, 4)])
def test_tensors_come_back_as_they_were(dtype, shape):
    tensor = torch.ones(shape).to(dtype)
    back = decode(json.loads(json.dumps(encode(tensor))))
    assert back.dtype == dtype and back.shape == tensor.shape and torch.equal(back, tensor)


FORGED = [
    5, 1.5, [], {}, ["tensor"], ["tensor", "float64", [2], "AAAA"], ["tensor", "object", [], ""],
    ["tensor", "float64", [-1], ""], ["tensor", "float64", [10**9, 10**9, 0], ""],
    ["tensor", "float64", ["1"], ""], ["tensor", "float64", [True], "AAAAAAAAAAA="],
    ["tensor", "bool", [1], "/w=="], ["int", "1" * 41], ["int", "9" * 30], ["int", "x"],
    ["float", []], ["float", "1e"], ["dict", [["a"]]], ["dict", [[1, None]]], ["dict", {}],
    ["list", "abc"], ["list", [None] * 20_000], ["pickle", "gASVAAAA"], "x" * 30_000,
    ["dict", [["k" * 300, None]]], ["tensor", "float64", [1], "é"], [None], [[[[]]]],
]  # fmt: skip


@pytest.mark.parametrize("raw", FORGED)
def test_what_is_no_answer_is_refused(raw):
    with pytest.raises(ValueError):
        decode(raw)


def test_a_deep_answer_is_refused():
    raw = None
    for _ in range(50):
        raw = ["list", [raw]]
    with pytest.raises(ValueError, match="too many parts"):
        decode(raw)


def test_seeds_are_secret_and_the_same_again():
    seeds = [grade.secret_seed("key", "jane", "toy", f"q{i}", "file") for i in range(200)]
    assert len(set(seeds)) == 200 and all(0 < seed < 2**31 for seed in seeds)
    assert seeds == [grade.secret_seed("key", "jane", "toy", f"q{i}", "file") for i in range(200)]
    assert seeds[0] != grade.secret_seed("other key", "jane", "toy", "q0", "file")
    assert seeds[0] != grade.secret_seed("key", "jane", "toy", "q0", "another file")


# Collecting -----------------------------------------------------------------------------------

KNOWN = ["overfitting", "weight_decay"]
PLACES = {
    "jane/overfitting/overfitting.ipynb": ("jane", "overfitting"),
    "submitted/jane/weight_decay/anything.ipynb": ("jane", "weight_decay"),
    "jane/overfitting.ipynb": ("jane", "overfitting"),
    "jane_overfitting.ipynb": ("jane", "overfitting"),
    "overfitting-jane.ipynb": ("jane", "overfitting"),
    "Jane Doe_123_assignsubmission_file_/overfitting.ipynb": ("Jane Doe_123", "overfitting"),
    "Jane Doe_123_assignsubmission_file_weight_decay.ipynb": ("Jane Doe_123", "weight_decay"),
    "doejane_12_3456_overfitting.ipynb": ("doejane_12", "overfitting"),
    "doejane_LATE_12_3456_overfitting-1.ipynb": ("doejane_12", "overfitting"),
    "overfitting.ipynb": ("", "overfitting"),
    "jane/homework.ipynb": ("jane", ""),
    "Ænne Müller/overfitting.ipynb": ("Ænne Müller", "overfitting"),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_place_of_a_file_says_who_and_what(name):
    assert identify(name, sorted(KNOWN, key=len, reverse=True)) == PLACES[name]


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a\x00b", "=1+1", "x" * 300, "<b>", "..\\.."])
def test_a_students_name_is_safe_as_a_files_name(name):
    found = clean(name)
    assert (
        len(found) < 100
        and not {"/", "\\", "\0", "<"} & set(found)
        and found not in ("", ".", "..")
    )


def zip_of(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in entries.items():
            zipped.writestr(name, content)
    return path


def test_a_zip_is_unpacked_safely(tmp_path):
    link = zipfile.ZipInfo("eve/overfitting.ipynb")
    link.external_attr = 0o120777 << 16
    inner = io.BytesIO()
    zip_of(inner, {"overfitting.ipynb": "{}", "../../evil.ipynb": "{}"})
    place = zip_of(
        tmp_path / "all.zip",
        {
            "Jane_1_assignsubmission_file_/overfitting.ipynb": "{}",
            "Jack_2_assignsubmission_file_/my homework.zip": inner.getvalue(),
            "../evil_overfitting.ipynb": "{}",
            "/abs_overfitting.ipynb": "{}",
            "C:\\bad_overfitting.ipynb": "{}",
            "a\\..\\..\\b_overfitting.ipynb": "{}",
            link: "/etc/passwd",
            "bomb_overfitting.ipynb": bytes(30_000_000),
            "__MACOSX/._x": "",
            "notes.txt": "hello",
        },
    )
    found, refused = collect(place, KNOWN, tmp_path / "room")
    assert [(s.student, s.assignment) for s in found] == [
        ("Jack_2", "overfitting"), ("Jane_1", "overfitting")]  # fmt: skip
    reasons = {one.file: one.reason for one in refused}
    assert "leads out" in reasons["../evil_overfitting.ipynb"]
    assert "leads out" in reasons["Jack_2_assignsubmission_file_/my homework/../../evil.ipynb"]
    assert "larger" in reasons["bomb_overfitting.ipynb"]
    assert "link" in reasons["eve/overfitting.ipynb"]
    assert "no notebook" in reasons["notes.txt"] and len(refused) == 8
    outside = {path for path in tmp_path.rglob("*") if path.is_file()} - {place}
    assert all((tmp_path / "room") in path.parents for path in outside)


def damaged(entries, old, new):
    """A zip in which the last occurrence of some bytes is replaced by others."""
    inner = io.BytesIO()
    zip_of(inner, entries)
    return new.join(inner.getvalue().rsplit(old, 1))


def test_a_students_zip_costs_nobody_else_anything(tmp_path):
    inner = {name: io.BytesIO() for name in ("many", "deep")}
    zip_of(inner["many"], {f"{i}_overfitting.ipynb": bytes(19_000_000) for i in range(12)})
    zip_of(inner["deep"], {"overfitting.zip": "x"})
    place = zip_of(
        tmp_path / "all.zip",
        {
            "Ann_1_assignsubmission_file_/overfitting.ipynb": "{}",
            "Bob_2_assignsubmission_file_/a.zip": damaged({"a": ""}, b"PK\1\2\x14\3\x14", b"PK\1\2\x14\3\x63"),
            "Cy_3_assignsubmission_file_/a.ZIP": damaged({"\u00e9": ""}, b"\xc3\xa9", b"\xff\xfe"),
            "Dee_4_assignsubmission_file_/a.zip": inner["many"].getvalue(),
            f"Eve_5_assignsubmission_file_/overfitting-{'9' * 5000}.ipynb": "{}",
            f"Fay_6_assignsubmission_file_/overfitting.{'9' * 5000}": "{}",
            "Gus_7_assignsubmission_file_/overfitting.ipynb": bytes(30_000_000),
            "Hal_8_assignsubmission_file_/a.zip": inner["deep"].getvalue(),
        },
    )  # fmt: skip
    found, refused = collect(place, KNOWN, tmp_path / "room")
    assert {one.student for one in found} == {"Ann_1", "Dee_4", "Eve_5"}
    reasons = {one.student: one.reason for one in refused}
    assert "damaged" in reasons["Bob_2"] and "damaged" in reasons["Cy_3"]
    assert "too large" in [one.reason for one in refused if "6_" in one.file][0]
    assert "no notebook" in reasons["Fay_6"] and "no notebook" in reasons["Hal_8"]
    assert ("Gus_7", "overfitting") in [one[:2] for one in refused]  # so it has its 0 in grades.csv
    assert sum(path.stat().st_size for path in (tmp_path / "room").rglob("*.*")) < 200_000_000


def test_names_that_are_no_text_and_files_that_cannot_be_read_are_told(tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    with open(os.fsencode(place) + b"/\xff_overfitting.ipynb", "w") as file:
        file.write("{}")
    os.mkfifo(place / "ann_overfitting.ipynb")
    (place / "bob_overfitting.ipynb").write_text("{}")
    (place / "bob_overfitting.ipynb").chmod(0)
    found, refused = collect(place, KNOWN, tmp_path / "room")
    book = grade.GradeBook(tmp_path / "grades")
    book.write_tables(refused)
    assert len(found) == 1 + (os.getuid() == 0) and found[0].name.isprintable()
    assert [row["student"] for row in rows(tmp_path, name="grades.csv", book="grades")] == (
        ["ann", "bob"][: 1 + (os.getuid() != 0)]
    )


def test_links_and_second_notebooks_are_refused(tmp_path):
    place = tmp_path / "in"
    (place / "jane").mkdir(parents=True)
    (place / "jane" / "overfitting-1.ipynb").write_text("{}")
    (place / "jane" / "overfitting-2.ipynb").write_text("{}")
    (place / "eve_overfitting.ipynb").symlink_to("/etc/passwd")
    (place / "folder").symlink_to("/etc")
    found, refused = collect(place, KNOWN, tmp_path / "room")
    assert [(s.student, s.name) for s in found] == [("jane", "jane/overfitting-2.ipynb")]
    assert sorted(one.reason[:16] for one in refused) == [
        "another notebook", "this is a link", "this is a link"]  # fmt: skip


# A batch --------------------------------------------------------------------------------------


def command(folder, *more, **environment):
    return [sys.executable, "-m", "grader.grade", str(folder / "in"), "--grades", str(folder / "book"),
            "--source", str(folder / "source"), "--workers", "2", *more]  # fmt: skip


def run(folder, *more, **environment):
    return subprocess.run(command(folder, *more), capture_output=True, text=True, cwd=ROOT, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(ROOT), **environment})  # fmt: skip


def batch(folder, names=("ada", "bob", "cleo")):
    (folder / "source" / "toy").mkdir(parents=True)
    (folder / "source" / "toy" / "toy.ipynb").write_text(text(toy()))
    for name in names:
        (folder / "in" / name).mkdir(parents=True)
        (folder / "in" / name / "toy.ipynb").write_text(text(submission(TOY)))
    (folder / "in" / "dan_toy.ipynb").write_bytes(b"\x89PNG")
    (folder / "in" / "=cmd()_toy.ipynb").write_text("")
    return folder


def rows(folder, name="grades.csv", book="book"):
    with open(folder / book / name, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def graded(sandboxes, tmp_path_factory):
    folder = batch(tmp_path_factory.mktemp("batch"))
    return folder, run(folder)


def test_a_batch_is_graded(graded):
    folder, done = graded
    assert done.returncode == 0, done.stderr
    points = {(row["student"], row["question"]): row["points"] for row in rows(folder)}
    assert points["ada", "q1"] == points["cleo", "q2"] == "3"
    assert points["dan", "all"] == "0"
    reasons = {row["student"]: row["reason"] for row in rows(folder, "rejected.csv")}
    assert "not JSON" in reasons["dan"] and len(reasons) == 2
    assert not any(name.startswith("=") for name in reasons)
    assert oct((folder / "book").stat().st_mode)[-3:] == "700"
    page = (folder / "book" / "feedback" / "ada" / "toy.html").read_text("utf-8")
    assert "6 of 6 points" in page


def test_the_same_batch_is_not_graded_twice_and_gives_the_same_bytes(graded):
    folder, _ = graded
    before = (folder / "book" / "grades.csv").read_bytes()
    again = run(folder)
    assert again.stdout.startswith("0 graded") and again.returncode == 0
    assert (folder / "book" / "grades.csv").read_bytes() == before


@pytest.mark.long
def test_graded_anew_with_the_same_key_it_gives_the_same(graded):
    folder, _ = graded
    before = (folder / "book" / "grades.csv").read_bytes()
    shutil.rmtree(folder / "book" / "results")
    assert run(folder).stdout.count("6 of 6") == 3
    assert (folder / "book" / "grades.csv").read_bytes() == before


@pytest.mark.long
def test_an_interrupted_batch_goes_on(sandboxes, tmp_path):
    folder = batch(tmp_path, names=[f"s{i}" for i in range(8)])
    job = subprocess.Popen(
        command(folder), cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # as in a terminal: what was started in the background ignores Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    for line in job.stdout:
        if "6 of 6" in line:
            os.killpg(job.pid, signal.SIGINT)  # as a terminal does: to all its processes
            break
    job.communicate(timeout=60)
    assert job.returncode == 130
    first = len(list((folder / "book" / "results" / "toy").iterdir()))
    assert 0 < first < 10
    done = run(folder)
    assert f"{10 - first} graded" in done.stdout and done.returncode == 0
    assert all(row["points"] == "3" for row in rows(folder) if row["question"] in ("q1", "q2"))
    assert len(rows(folder)) == 8 * 3 + 2


def test_without_bubblewrap_grading_refuses_and_says_what_to_install(tmp_path):
    folder = batch(tmp_path, names=["ada"])
    done = run(folder, PATH=str(tmp_path))
    assert done.returncode == 2 and "apt-get install bubblewrap" in done.stderr
    assert not (folder / "book" / "grades.csv").exists()


def test_a_sandbox_that_cannot_start_is_an_error_and_no_zero(tmp_path):
    folder = batch(tmp_path, names=["ada"])
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: no permission' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    done = run(folder, PATH=f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == 2 and "bwrap: no permission" in done.stderr
    assert not (folder / "book" / "grades.csv").exists()


def test_elsewhere_than_on_linux_grading_refuses(monkeypatch):
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    sandbox.bubblewrap.cache_clear()
    with pytest.raises(sandbox.SandboxError, match="not Linux"):
        sandbox.bubblewrap()
    sandbox.bubblewrap.cache_clear()


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_of_system_calls_are_those_of_the_kernels_headers(machine):
    if not HEADERS[machine].exists():
        pytest.skip(f"there is no {HEADERS[machine]}")
    found = re.findall(r"__NR(?:3264)?_(\w+)\s+(\d+)$", HEADERS[machine].read_text(), re.MULTILINE)
    numbers = {name: int(number) for name, number in found}
    ours = {**sandbox.DENIED, "clone": sandbox.CLONE, "clone3": sandbox.CLONE3}
    which = list(sandbox.ARCHITECTURES).index(machine)
    known = {name: pair[which] for name, pair in ours.items() if name in numbers}
    assert known == {name: numbers[name] for name in known} and len(known) > 25


def verdict(machine, number, flags=0, arch=None):
    """What the filter says to a system call, worked out as the kernel does."""
    data = struct.pack("IIQQ", number, arch or sandbox.ARCHITECTURES[machine], 0, flags)
    lines, at, value = [*struct.iter_unpack("HBBI", sandbox.seccomp_filter(machine))], 0, 0
    while True:
        what, yes, no, k = lines[at]
        if what == sandbox.RETURN:
            return k
        if what == sandbox.LOAD:
            value, yes = struct.unpack_from("I", data, k)[0], 0
        elif what == sandbox.ANY_BIT:
            yes = yes if value & k else no
        else:
            yes = yes if (value == k if what == sandbox.EQUAL else value >= k) else no
        at += 1 + yes


@pytest.mark.parametrize(("machine", "read", "arch"), [("x86_64", 0, 0xC00000B7), ("aarch64", 63, 0xC000003E)])
def test_the_filter_of_system_calls_denies_and_allows(machine, read, arch):
    which = list(sandbox.ARCHITECTURES).index(machine)
    clone = sandbox.CLONE[which]
    assert verdict(machine, read) == verdict(machine, clone, signal.SIGCHLD) == sandbox.ALLOW
    denied = {verdict(machine, pair[which]) for pair in sandbox.DENIED.values()}
    assert denied == {verdict(machine, clone, 0x10000000)} == {sandbox.EPERM}
    assert verdict(machine, sandbox.CLONE3[which]) == sandbox.ENOSYS
    assert verdict(machine, read, arch=arch) == sandbox.KILL


@pytest.mark.parametrize("waits", [True, False])
def test_waiting_for_a_processor_does_not_count(sandboxes, monkeypatch, waits):
    since = time.monotonic()
    monkeypatch.setattr(sandbox, "waited", lambda _: waits * (time.monotonic() - since))
    with sandbox.Sandbox() as box:
        if waits:
            box.ask({"source": "__import__('time').sleep(2)"}, 1)
            assert 0.5 <= box.took < 1
        else:
            with pytest.raises(sandbox.Died, match="longer than 1 s"):
                box.ask({"source": "__import__('time').sleep(5)"}, 1)


def test_the_clock_of_a_process_that_shares_its_processor_stands_still_while_it_waits():
    loop = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nwhile True: pass"
    jobs = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(3)]
    try:
        time.sleep(0.5)
        clock = sandbox.Clock(jobs[0].pid)
        time.sleep(2)
        assert 0.5 <= clock.seconds([jobs[0].pid]) < 1.5
    finally:
        for job in jobs:
            job.kill()
            job.wait()


def test_a_check_is_stopped_by_processor_time_alone():
    with grade.time_limit(0.2):
        time.sleep(0.5)
    with pytest.raises(grade.TooLong), grade.time_limit(0.2):
        while True:
            pass


def test_a_sandbox_leaves_nothing_behind(sandboxes):
    with sandbox.Sandbox() as box:
        box.ask(
            {
                "source": "import os\nif os.fork() == 0:\n    os.setsid(); __import__('time').sleep(99)"
            },
            60,
        )
        family = [box.process.pid]
        for pid in family:
            family += [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        assert len(family) >= 4
    end = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in family) and time.monotonic() < end:
        time.sleep(0.05)
    assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]


# Feedback -------------------------------------------------------------------------------------


def test_feedback_is_text_and_tells_no_check(toy_path):
    evil = "<script>alert(1)</script>"
    nb = submission(TOY, {"q1-answer": f"def half_square(x, y):\n    raise ValueError({evil!r})"})
    result = grade_notebook(toy_path, nb, student=evil)
    page = feedback.page(result)
    assert "<script" not in page and "&lt;script" in page
    assert "half the mean of the squared differences" in page
    for cell in TOY.nb.cells:
        if role(cell) == "check":
            hidden = [line.strip() for line in cell.source.split("\n") if "same(" in line]
            assert hidden and not any(line in page for line in hidden)


def test_what_a_person_sees_cannot_run_in_a_browser():
    assert harmless("a <b and <script>x</script> ![p](http://x)") == (
        "a < b and < script>x< /script> ! [p](http://x)"
    )
    data = {
        "text/html": "<script>",
        "image/svg+xml": "<svg>",
        "text/plain": "\x1b[31mred",
        "image/png": "aGk=",
    }
    assert outputs({"outputs": [{"data": data}, {"stream": 5}, None, {"data": 1}]}) == [
        {"output_type": "display_data", "metadata": {}, "data": {"text/plain": "[31mred"}}
    ]
    assert outputs({"outputs": "x"}) == outputs({}) == []


def test_a_spreadsheet_reads_no_formula():
    assert grade.table([["=1+1", "@x", 3, "fine", "-"]]) == "'=1+1,'@x,3,fine,'-\n"
