"""A source assignment: what its cells are, its questions and points, and its checks.

The id of a cell says what it is (see homework/README.md):

    given-…        code that the students get; the checks may use it too
    run-…          code that the students get and that uses their answers
    q1             the question
    q1-answer      the student's code; the reference solution stands in a solution region
    q1-look        defines probe_q1 and look_q1, and calls them: the visible check
    q1-check-half  a hidden check worth points: defines check_q1_half, and calls it
    q1-person-why  text or plot that a person grades
    teacher-…      notes for instructors; not released

Any other markdown cell is text.
"""

import ast
import contextlib
import copy
import functools
import hashlib
import io
import re
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import nbformat

from tools.notebooks import METADATA, read, text

NAME = re.compile(r"(given|run|teacher|q[1-9])(?:-(.+))?")
PARTS = ("answer", "look", "check", "person")
BEGIN_SOLUTION, END_SOLUTION = "### BEGIN SOLUTION", "### END SOLUTION"
BEGIN_HIDDEN, END_HIDDEN = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"
CODE_STUB = "# YOUR CODE HERE\nraise NotImplementedError()"
TEXT_STUB = "YOUR ANSWER HERE"
# What nbgrader calls the kinds of cell: (grade, solution, locked)
KINDS = {
    "given": (False, False, True),
    "run": (False, False, True),
    "look": (False, False, True),
    "answer": (False, True, False),
    "check": (True, False, True),
    "person": (True, True, False),
}


class Check(NamedTuple):
    """A hidden check: its cell, its function, its points, and what it asks for in words."""

    cell: str
    function: str
    points: float
    words: str


class Question(NamedTuple):
    name: str  # q1
    title: str
    checks: tuple[Check, ...]
    person: MappingProxyType  # cell id: points that a person gives

    @property
    def probe(self) -> str:
        return f"probe_{self.name}"

    @property
    def look(self) -> str:
        return f"look_{self.name}"


def role(cell) -> str:
    """given, run, teacher, question, answer, look, check, person, or text."""
    found = NAME.fullmatch(cell.get("id", ""))
    if not found:
        return "text"
    first, rest = found.groups()
    if not first.startswith("q"):
        return first
    return (rest or "question").split("-")[0]


def question_of(cell) -> str | None:
    """q1 for a cell of question 1, None for one that belongs to no question."""
    found = NAME.fullmatch(cell.get("id", ""))
    return found[1] if found and found[1].startswith("q") else None


class Assignment:
    """A source notebook. ``name`` is the name of its folder and file."""

    def __init__(self, nb, name: str):
        self.nb, self.name = nb, name
        self.ids = {cell["id"]: cell for cell in nb.cells}
        self.released = release(nb)
        # Changes where anything that could change a grade does.
        self.version = hashlib.sha256(text(nb).encode()).hexdigest()

    @classmethod
    def load(cls, path: Path) -> "Assignment":
        return cls(read(path), path.stem)

    @functools.cached_property
    def questions(self) -> list[Question]:
        names = dict.fromkeys(filter(None, map(question_of, self.nb.cells)))
        return [self._question(name) for name in names]

    def _question(self, name: str) -> Question:
        cells = [cell for cell in self.nb.cells if question_of(cell) == name]
        heading = re.search(r"^#+ (.*)$", self.ids[name].source, re.MULTILINE)
        checks = tuple(_check(cell) for cell in cells if role(cell) == "check")
        person = {cell["id"]: points(cell) for cell in cells if role(cell) == "person"}
        return Question(name, heading[1] if heading else name, checks, MappingProxyType(person))

    def namespace(self) -> dict:
        """The names that the checks use: what is given, probes and checks; no answers."""
        names = {"__name__": "checks"}
        for cell in self.nb.cells:
            if role(cell) in ("given", "look", "check"):
                source = cell.source if role(cell) == "given" else definitions(cell.source)
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(source, f"<{self.name}, cell {cell['id']}>", "exec"), names)
        return names


def points(cell) -> float:
    return cell.metadata.get("nbgrader", {}).get("points", 0)


def _check(cell) -> Check:
    function = cell["id"].replace("q", "check_q", 1).replace("-check", "", 1).replace("-", "_")
    words = ""
    for node in ast.parse(cell.source).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            words = " ".join((ast.get_docstring(node) or "").split())
    return Check(cell["id"], function, points(cell), words)


def definitions(source: str) -> str:
    """The source without the calls at its top level."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not isinstance(node, ast.Expr)]
    return ast.unparse(tree)


# The students' version ----------------------------------------------------------------------


def release(nb):
    """A copy without solutions, hidden checks, notes for instructors and outputs."""
    new = tidy(nb)
    new.cells = [cell for cell in new.cells if role(cell) != "teacher"]
    for cell in new.cells:
        cell.source = _released(cell)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return new


def _released(cell) -> str:
    if role(cell) in ("answer", "person"):
        stub = CODE_STUB if cell.cell_type == "code" else TEXT_STUB
        if BEGIN_SOLUTION not in cell.source:
            return stub
        return _replace(cell.source, BEGIN_SOLUTION, END_SOLUTION, stub)
    return _replace(cell.source, BEGIN_HIDDEN, END_HIDDEN, "")


def _replace(source: str, begin: str, end: str, stub: str) -> str:
    lines, inside = [], False
    for line in source.split("\n"):
        if begin in line:
            inside, indent = True, line[: len(line) - len(line.lstrip())]
            lines += [indent + part for part in stub.split("\n") if part]
        elif end in line:
            inside = False
        elif not inside:
            lines.append(line)
    return "\n".join(lines).rstrip()


def tidy(nb):
    """A copy in normal form: the metadata that nbgrader and the tests read, nothing else.

    An author sets ids and, on check- and person- cells, points: ``metadata.nbgrader.points``.
    """
    new = copy.deepcopy(nb)
    new.nbformat, new.nbformat_minor = 4, 5
    new.metadata = nbformat.from_dict(METADATA)
    for cell in new.cells:
        cell.metadata = nbformat.from_dict(_metadata(cell))
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return new


def _metadata(cell) -> dict:
    kind = role(cell)
    if kind not in KINDS:
        return {}
    grade, solution, locked = KINDS[kind]
    told = {"grade": grade, "grade_id": cell["id"], "locked": locked, "schema_version": 3}
    told |= {"solution": solution, "task": False}
    if grade:
        told |= {"points": points(cell)}
    # An open question raises NotImplementedError when its answer is first called.
    open_ends = cell.cell_type == "code" and kind in ("look", "run", "person")
    return {"nbgrader": told} | ({"tags": ["raises-exception"]} if open_ends else {})
