"""Every source assignment keeps the rules; its checks refuse garbage; its release tells nothing."""

import copy
import re
from pathlib import Path

import nbformat
import pytest
from homework_toy import CHECK, toy
from nbformat.v4 import new_code_cell

from grader import release
from grader.assignment import Assignment, role, tidy
from grader.grade import passes
from grader.rules import broken_rules
from grader.trial import garbage, reference_answers, spoiled, wrong_answers
from tools.notebooks import read, text

ROOT = Path(__file__).parents[1]
PATHS = release.sources(ROOT / "homework" / "source")
NAMES = [path.stem for path in PATHS]
TOY = Assignment(toy(), "toy")
TOY_WRONG = [("half", {"q1-answer": ("0.5", "1.0")}, ["q1-check-one"])] * 4


@pytest.fixture(scope="module", params=PATHS, ids=NAMES)
def assignment(request):
    return Assignment.load(request.param)


@pytest.fixture(scope="module")
def judged(assignment):
    return assignment, *reference_answers(assignment, seed=11)


def test_a_source_keeps_the_rules(assignment):
    wrong = wrong_answers(assignment.name, ROOT / "homework" / "wrong")
    assert broken_rules(assignment, wrong) == []


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_source_is_in_normal_form(path):
    assert path.read_text("utf-8") == text(tidy(read(path)))


@pytest.mark.parametrize("seed", [1, 2, 1234567, 2**31 - 2])
def test_every_check_accepts_the_reference_solution_for_any_seed(assignment, seed):
    names, answers = reference_answers(assignment, seed)
    for question in assignment.questions:
        for check in question.checks:
            names[check.function](answers[question.name], seed)


@pytest.mark.filterwarnings("ignore")  # of torch, about garbage
def test_every_check_refuses_garbage(judged):
    assignment, names, answers = judged
    values = list(garbage())
    assert len(values) >= 95
    for question in assignment.questions:
        others = [answer for name, answer in answers.items() if name != question.name]
        for check in question.checks:
            accepted = [v for v in [*values, *others] if passes(names[check.function], v, 11)]
            assert accepted == [], check.cell


def test_no_answer_is_right_for_two_seeds(judged):
    assignment, names, answers = judged
    for question in assignment.questions:
        found = [
            passes(names[check.function], answers[question.name], 12) for check in question.checks
        ]
        assert not found or not all(found), question.name


@pytest.mark.filterwarnings("ignore")
def test_every_spoiled_part_of_an_answer_is_refused(judged):
    assignment, names, answers = judged
    for question in assignment.questions:
        functions = [names[check.function] for check in question.checks]
        tried = list(spoiled(answers[question.name])) if functions else []
        for value in tried[:: max(1, len(tried) // 25)]:
            assert not all(passes(function, value, 11) for function in functions), value


def test_the_rules_accept_the_toy_but_for_its_size():
    assert broken_rules(TOY, TOY_WRONG) == [
        "toy: there must be 4 to 6 questions, q1, q2, …; there are ['q1', 'q2', 'q3']"
    ]


def without(name):
    def change(nb):
        nb.cells = [cell for cell in nb.cells if cell["id"] != name]

    return change


def replaced(name, old, new):
    def change(nb):
        cell = next(cell for cell in nb.cells if cell["id"] == name)
        assert old in cell.source
        cell.source = cell.source.replace(old, new)

    return change


def moved(name, place):
    def change(nb):
        cell = next(cell for cell in nb.cells if cell["id"] == name)
        nb.cells.remove(cell)
        nb.cells.insert(place, cell)

    return change


BROKEN = [
    (without("given-tools"), "given-tools"),
    (replaced("title", "8 points", "9 points"), "title"),
    (without("teacher-q3"), "teacher- cell"),
    (without("q1-look"), "needs a look"),
    (replaced("q1", "(3 points)", "(4 points)"), "no heading"),
    (replaced("q1", "**Given**", "Given"), "Given"),
    (replaced("q1", "one number.", "simply one number."), "simply"),
    (replaced("q1-answer", "### BEGIN SOLUTION", ""), "solution regions"),
    (replaced("q1-look", "look_q1(probe_q1())", "print(probe_q1())"), "last line"),
    (replaced("q1-look", "def look_q1", "print(1)\n\n\ndef look_q1"), "only imports"),
    (replaced("q1-look", "def probe_q1", "### BEGIN HIDDEN TESTS\n\ndef probe_q1"), "hides"),
    (replaced("q1-check-one", "### BEGIN HIDDEN TESTS", ""), "hidden region"),
    (replaced("q1-check-one", "def check_q1_one", "def check_q1_two"), "does not define"),
    (replaced("given-setup", "import torch", "import torch\nfrom helpers import check"), "imports"),
    (replaced("given-setup", "import torch", "import torch  # " + "x" * 90), "characters"),
    (moved("q1-look", 4), "stands behind"),
]


@pytest.mark.parametrize(("change", "word"), BROKEN, ids=[word for _, word in BROKEN])
def test_a_broken_source_is_told(change, word):
    nb = toy()
    change(nb)
    assert any(word in message for message in broken_rules(Assignment(nb, "toy"), TOY_WRONG))


WRONG_TABLES = [
    (TOY_WRONG[:3], "at least 4"),
    ([*TOY_WRONG, ("x", {"q1-answer": ("0.5", "1")}, [])], "must name"),
    ([*TOY_WRONG, ("x", {"q1-answer": ("0.7", "1")}, ["q1-check-one"])], "does not fit"),
    ([*TOY_WRONG, ("x", {"q1-look": ""}, ["q1-check-one"])], "does not fit"),
]


@pytest.mark.parametrize(("table", "word"), WRONG_TABLES)
def test_a_broken_table_of_wrong_answers_is_told(table, word):
    assert any(word in message for message in broken_rules(TOY, table))


# Releases -----------------------------------------------------------------------------------


def test_the_committed_release_is_the_generated_one(assignment):
    folder = ROOT / "homework" / "release"
    for name, content in release.files(assignment).items():
        assert (folder / name).read_bytes() == content, f"{name}: run `make homework`"


def test_nothing_else_is_released():
    names = {f"{name}.{ending}" for name in NAMES for ending in ("ipynb", "zip")}
    assert {path.name for path in (ROOT / "homework" / "release").iterdir()} == names


def test_a_release_tells_nothing(assignment):
    found = release.secrets(assignment, release.chapters(ROOT / "notebooks"))
    assert len(found) > 30
    for name, content in release.files(assignment).items():
        assert list(release.leaks(found, name, content)) == []


def test_a_release_has_no_metadata_but_what_is_needed(assignment):
    for cell in assignment.released.cells:
        assert set(cell.metadata) <= {"nbgrader", "tags"}
        assert role(cell) != "teacher" and not cell.get("attachments")
        assert not cell.get("outputs")


def leaking(change):
    """The messages about the toy's release after a change to it."""
    nb = copy.deepcopy(TOY.released)
    change(nb)
    return list(release.leaks(release.secrets(TOY), "toy.ipynb", text(nb).encode()))


def leak_in_metadata(nb):
    nb.metadata["author"] = {"note": "return 0.5 * (x - y).square().mean()"}


def leak_in_a_cell(nb):
    nb.cells.append(new_code_cell("def  check_q1_one(out,\n    seed):", id="x"))


def leak_in_an_output(nb):
    nb.cells[1].outputs = [nbformat.v4.new_output("stream", text="Two points for a reason.")]


def leak_in_an_attachment(nb):
    nb.cells[0]["attachments"] = {
        "a": {"text/plain": CHECK.format(n=1, name="one", wanted="0", factor=1)}
    }


LEAKS = [leak_in_metadata, leak_in_a_cell, leak_in_an_output, leak_in_an_attachment]


@pytest.mark.parametrize("change", LEAKS)
def test_the_leak_check_goes_red(change):
    assert leaking(change)


def test_the_leak_check_opens_zips_and_reads_pages(tmp_path):
    found = release.secrets(TOY)
    told = text(TOY.nb).encode()
    assert list(release.leaks(found, "a.zip", release._zip({"toy.ipynb": told})))
    page = (
        "<pre><span class='k'>return</span> <span>0.5</span> * (x - y).<b>square</b>().mean()</pre>"
    )
    (tmp_path / "page.html").write_text(page)
    assert list(release.site_leaks(found, tmp_path))
    (tmp_path / "page.html").write_text("<p>Two &#112;oints for a reason.</p>")
    assert list(release.site_leaks(found, tmp_path))
    (tmp_path / "page.html").write_text("<p>Nothing.</p>")
    assert not list(release.site_leaks(found, tmp_path))


def test_the_release_has_stubs_in_the_place_of_solutions():
    sources = {cell["id"]: cell.source for cell in TOY.released.cells}
    assert sources["q1-answer"].endswith("    # YOUR CODE HERE\n    raise NotImplementedError()")
    assert sources["q3-person-why"] == "YOUR ANSWER HERE"
    assert sources["q1-check-one"] == "# Hidden check of question 1"
    assert "teacher-q3" not in sources


def test_the_site_tells_nothing(assignment, html):
    found = release.secrets(assignment, release.chapters(ROOT / "notebooks"))
    assert list(release.site_leaks(found, html)) == []


def test_the_source_is_nbgraders_own_format(assignment):
    nbgraderformat = pytest.importorskip("nbgrader.nbgraderformat.v3")
    nbgraderformat.MetadataValidatorV3().validate_nb(assignment.nb)
    ids = [c.metadata.nbgrader.grade_id for c in assignment.nb.cells if "nbgrader" in c.metadata]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[a-z0-9-]+", one) for one in ids)


def test_a_release_is_a_valid_notebook(assignment):
    nbformat.validate(nbformat.reads(text(assignment.released), as_version=4))
