"""Hand the results to nbgrader, where a person grades texts and plots, and take its grades back.

    python -m grader.book load [--grades FOLDER]      after `make grade`, which calls it
    python -m grader.book export [--grades FOLDER]    after a person has graded: `make export`

The grade book's folder ``nbgrader`` is a course folder as nbgrader wants it: its database, and for
each student the rebuilt notebook with what it showed. nbgrader itself never runs a student's code.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

import nbformat

from grader.assignment import Assignment, points, role
from grader.grade import GradeBook
from grader.release import SOURCE, sources
from tools.notebooks import read, text, write_whole

CONFIG = """\
# Written by `make grade`. Formgrader reads this folder; it does not run students' code.
c = get_config()
c.CourseDirectory.course_id = "regularization-measured"
c.CourseDirectory.root = {root!r}
c.CourseDirectory.db_url = {db!r}
c.HTMLExporter.sanitize_html = True
c.ServerApp.allow_root = True  # where root runs `make`, as in a container, root runs this
"""


def _gradebook(folder: Path):
    try:
        from nbgrader.api import Gradebook
    except ImportError as error:
        raise SystemExit(
            "nbgrader is not installed, and `make` installs it: it is in requirements.lock"
        ) from error
    # For a new database nbgrader calls `alembic`, by name.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return Gradebook(f"sqlite:///{(folder / 'gradebook.db').absolute()}")


def load(book: GradeBook, paths: list[Path]) -> int:
    """Put every result into nbgrader's database and folder. A person's grades stay as they are."""
    course = book.folder / "nbgrader"
    course.mkdir(exist_ok=True)
    root = str(course.absolute())
    config = CONFIG.format(root=root, db=f"sqlite:///{root}/gradebook.db")
    write_whole(course / "nbgrader_config.py", config)
    assignments = {path.stem: Assignment.load(path) for path in paths}
    number = 0
    with _gradebook(course) as gradebook:
        for assignment in assignments.values():
            _save_cells(gradebook, assignment)
            _write(course / "source" / assignment.name, assignment.name, assignment.nb)
            _write(course / "release" / assignment.name, assignment.name, assignment.released)
        for result in book.all():
            if result["assignment"] in assignments and not result.get("rejected"):
                _save_result(gradebook, course, assignments[result["assignment"]], result)
                number += 1
    return number


def _write(folder: Path, name: str, nb) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{name}.ipynb", text(nbformat.from_dict(nb)))


def _save_cells(gradebook, assignment: Assignment) -> None:
    name = assignment.name
    gradebook.update_or_create_assignment(name)
    gradebook.update_or_create_notebook(name, name)
    for cell in assignment.released.cells:
        told = cell.metadata.get("nbgrader")
        if not told:
            continue
        kind, about = cell.cell_type, (cell["id"], name, name)
        gradebook.update_or_create_source_cell(
            *about, cell_type=kind, locked=told["locked"], source=cell.source
        )
        if told["grade"]:
            gradebook.update_or_create_grade_cell(*about, cell_type=kind, max_score=points(cell))
        if told["solution"]:
            gradebook.update_or_create_solution_cell(*about)


def _save_result(gradebook, course: Path, assignment: Assignment, result: dict) -> None:
    name, student = assignment.name, result["student"]
    nb = nbformat.from_dict(result["notebook"])
    before = _sources(course / "autograded" / student / name / f"{name}.ipynb")
    _write(course / "autograded" / student / name, name, nb)
    gradebook.update_or_create_student(student)
    gradebook.update_or_create_submission(name, student)
    auto = {c["cell"]: c["points"] for q in result["questions"] for c in q["checks"]}
    for cell in assignment.released.cells:
        if role(cell) == "check":
            grade = gradebook.find_grade(cell["id"], name, name, student)
            grade.auto_score, grade.needs_manual_grade = auto.get(cell["id"], 0), False
        elif role(cell) == "person":
            _wait(gradebook.find_grade(cell["id"], name, name, student), cell, nb, before)
    gradebook.db.commit()


def _sources(path: Path) -> dict[str, str]:
    """{id of a cell: its text} of a notebook, {} if there is none."""
    return {cell["id"]: cell.source for cell in read(path).cells} if path.exists() else {}


def _wait(grade, cell, nb, before: dict[str, str]) -> None:
    """A person's question waits for a person, unless nothing was answered or it was graded."""
    answer = next(one.source for one in nb.cells if one["id"] == cell["id"])
    if before.get(cell["id"], answer) != answer:
        grade.manual_score = None  # it was given for another answer
    if answer.strip() in ("", cell.source.strip()):
        grade.auto_score, grade.needs_manual_grade = 0, False
    else:
        grade.auto_score, grade.needs_manual_grade = None, grade.manual_score is None


def export(book: GradeBook) -> int:
    """Take what a person gave and wrote into results, grades.csv and feedback."""
    waiting = 0
    with _gradebook(book.folder / "nbgrader") as gradebook:
        for result in book.all():
            name, student = result["assignment"], result["student"]
            for question in result["questions"]:
                question["given"], question["comments"] = {}, {}
                for cell in question["person"]:
                    grade = gradebook.find_grade(cell, name, name, student)
                    comment = gradebook.find_comment(cell, name, name, student).comment
                    waiting += bool(grade.needs_manual_grade)
                    if not grade.needs_manual_grade:
                        question["given"][cell] = grade.score
                    if comment:
                        question["comments"][cell] = comment
            book.keep(result)
    book.write_tables(book.refused())
    return waiting


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="grader.book")
    parser.add_argument("action", choices=["load", "export"])
    parser.add_argument("--grades", type=Path, default=Path("_grades"))
    parser.add_argument("--source", type=Path, default=SOURCE)
    options = parser.parse_args(arguments)
    if not (options.grades / "key").exists():
        print(
            f"there is no grade book in {options.grades}: `make grade` comes first", file=sys.stderr
        )
        return 2
    warnings.filterwarnings("ignore", module="nbgrader")  # of sqlalchemy, about nbgrader's own code
    book = GradeBook(options.grades)
    if options.action == "load":
        print(
            f"{load(book, sources(options.source))} notebooks are in formgrader: `make formgrader`"
        )
    else:
        waiting = export(book)
        print(f"{options.grades}/grades.csv and feedback/ have the grades that a person gave; "
              f"{waiting} answers wait for one.")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
