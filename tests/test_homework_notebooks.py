"""The instructor's and the student's notebooks run in plain Jupyter; nbgrader takes the results."""

import subprocess
import sys
from pathlib import Path

import pytest
from homework_toy import toy
from nbclient import NotebookClient

from grader import book
from grader.assignment import Assignment
from grader.grade import GradeBook, grade_rows
from grader.release import sources
from grader.trial import grade_notebook, submission
from tools.notebooks import read, text

ROOT = Path(__file__).parents[1]
PATHS = sources(ROOT / "homework" / "source")
RELEASES = [ROOT / "homework" / "release" / f"{path.stem}.ipynb" for path in PATHS]


LONG = [pytest.param(path, marks=pytest.mark.long) for path in PATHS]


@pytest.mark.parametrize("path", [*RELEASES, *LONG], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_nbval_accepts_the_notebook(path):
    # Without the numbers plugin of this project's own tests: nothing is compared, all must run.
    options = ["-p", "no:cacheprovider", "-c", "/dev/null", "--nbval-lax"]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", *options, str(path)],
                          capture_output=True, text=True, timeout=600, cwd=path.parent)  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.long
@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_nothing_in_the_solved_notebook_raises_although_cells_may(path):
    nb = read(path)
    for cell in nb.cells:
        cell.metadata.pop("tags", None)
    NotebookClient(nb, timeout=300).execute()


@pytest.mark.long
@pytest.mark.parametrize("path", RELEASES, ids=lambda p: p.stem)
def test_the_release_raises_only_what_says_that_an_answer_is_missing(path):
    nb = read(path)
    NotebookClient(nb, timeout=300, allow_errors=True).execute()
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    errors = {output.ename for output in outputs if output.output_type == "error"}
    assert errors == {"NotImplementedError"}


# nbgrader -------------------------------------------------------------------------------------


@pytest.fixture
def handed_over(sandboxes, tmp_path):
    """A grade book with two students, loaded into nbgrader: one answered all, one nothing."""
    pytest.importorskip("nbgrader")
    path = tmp_path / "source" / "toy" / "toy.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(text(toy()), "utf-8")
    assignment, grades = Assignment.load(path), GradeBook(tmp_path / "grades")
    for student, nb in {"ada": submission(assignment), "bob": assignment.released}.items():
        grades.keep(grade_notebook(path, nb, student=student))
    assert book.load(grades, [path]) == 2
    return grades, path


def test_a_person_grades_in_nbgrader_and_the_grades_come_back(handed_over):
    grades, path = handed_over
    with book._gradebook(grades.folder / "nbgrader") as gradebook:
        grade = gradebook.find_grade("q3-person-why", "toy", "toy", "ada")
        assert grade.needs_manual_grade
        assert not gradebook.find_grade("q3-person-why", "toy", "toy", "bob").needs_manual_grade
        assert gradebook.find_submission("toy", "ada").score == 6
        grade.manual_score, grade.needs_manual_grade = 1.5, False
        gradebook.find_comment("q3-person-why", "toy", "toy", "ada").manual_comment = "<b>Well</b>"
        gradebook.db.commit()
    assert book.export(grades) == 0
    rows = {row[0]: row for r in grades.all() for row in grade_rows(r) if row[2] == "q3"}
    assert rows["ada"][3:6] == ["1.5", "2", ""] and rows["bob"][3:6] == ["0", "2", ""]
    page = (grades.folder / "feedback" / "ada" / "toy.html").read_text("utf-8")
    assert "7.5 of 8 points" in page and "&lt;b&gt;Well" in page
    assert book.load(grades, [path]) == 2  # loading again keeps what a person gave
    with book._gradebook(grades.folder / "nbgrader") as gradebook:
        assert gradebook.find_submission("toy", "ada").score == 7.5


def test_formgrader_gets_notebooks_without_hidden_checks_and_solutions_of_others(handed_over):
    grades, _ = handed_over
    shown = read(grades.folder / "nbgrader" / "autograded" / "bob" / "toy" / "toy.ipynb")
    assert "HIDDEN" not in text(shown) and "NotImplementedError" in text(shown)
