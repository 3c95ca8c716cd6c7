"""The rules that every source assignment keeps (homework/README.md says why).

``broken_rules`` yields one message for each place where one is broken.
"""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace

from grader.assignment import (
    BEGIN_HIDDEN,
    BEGIN_SOLUTION,
    END_HIDDEN,
    END_SOLUTION,
    KINDS,
    NAME,
    Assignment,
    points,
    question_of,
    role,
)
from tools.notebooks import readable
from tools.rules import calm_prose

FEWEST, MOST, WRONG_ANSWERS, COLUMNS, HIDDEN_COLUMNS = 4, 6, 4, 88, 100
NUMBERS = {3: "Three", 4: "Four", 5: "Five", 6: "Six"}
MARKDOWN = {"question", "teacher", "text"}
ORDER = ["question", "answer", "look", "check", "person", "teacher"]
AWAY = {"helpers", "d2l", "nbgrader", "grader", "tools"}  # students may not have them
TOP = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign)
TOOLS = '''
def attempt(function, *inputs):
    """What a function returns, or the error that it raises, as text."""
    try:
        return function(*inputs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def same_shape(what, got, shape):
    """Fail with a message that helps, unless got has this shape; a number has ()."""
    if isinstance(got, str) and got.startswith("NotImplementedError"):
        raise NotImplementedError(what)
    came = got if isinstance(got, str) else type(got).__name__
    number = isinstance(got, (int, float)) and not isinstance(got, bool)
    fits = number or isinstance(got, torch.Tensor)
    assert fits, f"{what}: a number or tensor is wanted, got {came}"
    came = () if number else tuple(got.shape)
    assert came == tuple(shape), f"{what}: shape {tuple(shape)} is wanted, got {came}"


def same(what, got, want, atol=1e-8):
    """Fail with a message that helps, unless got is a tensor or number like want."""
    want = torch.as_tensor(want)
    same_shape(what, got, want.shape)
    got = got if isinstance(got, torch.Tensor) else torch.tensor(got, dtype=want.dtype)
    assert got.dtype == want.dtype, f"{what}: {want.dtype} is wanted, got {got.dtype}"
    far = (got.double() - want.double()).abs().max()
    assert far <= atol, f"{what}: differs from what is wanted by up to {far:.3g}"


def part(answer, i):
    """Item i of a tuple or list; the answer itself if it is none (an error, say)."""
    fits = isinstance(answer, (tuple, list)) and len(answer) > i
    return answer[i] if fits else answer


def column(answer, j):
    """Column j of a matrix; the answer itself if it is none."""
    matrix = isinstance(answer, torch.Tensor) and answer.dim() == 2
    return answer[:, j] if matrix and answer.shape[1] > j else answer
'''.strip()  # fmt: skip


def broken_rules(assignment: Assignment, wrong: list) -> list[str]:
    rules = (_cells, _title, _questions, _answers, _looks, _checks, _people, _order, _code, _prose)
    found = [message for rule in rules for message in rule(assignment)]
    return [f"{assignment.name}: {message}" for message in [*found, *_wrong(assignment, wrong)]]


def _cells(a: Assignment) -> Iterator[str]:
    names = [cell.get("id", "") for cell in a.nb.cells]
    for cell, name in zip(a.nb.cells, names, strict=True):
        kind = role(cell)
        if not readable(name) or names.count(name) > 1:
            yield f"the cell id {name!r} is not readable, or there twice"
        if kind not in {*KINDS, *MARKDOWN} or (kind == "text" and NAME.fullmatch(name)):
            yield f"cell {name}: unknown kind {kind!r}"
        elif kind != "person" and (cell.cell_type == "markdown") != (kind in MARKDOWN):
            yield f"cell {name}: a {kind} cell is no {cell.cell_type} cell"
    tools = a.ids.get("given-tools")
    if tools is None or TOOLS not in tools.source:
        yield "there is no cell given-tools with the function `same` of grader/rules.py in it"


def _title(a: Assignment) -> Iterator[str]:
    total = sum(map(points, a.nb.cells))
    words = f"{NUMBERS.get(len(a.questions))} questions, {total:g} points, about 90 minutes."
    if words not in a.ids.get("title", {}).get("source", ""):
        yield f"the title cell does not say {words!r}"


def _questions(a: Assignment) -> Iterator[str]:
    names = [question.name for question in a.questions]
    if names != [f"q{i + 1}" for i in range(len(names))] or not FEWEST <= len(names) <= MOST:
        yield f"there must be {FEWEST} to {MOST} questions, q1, q2, …; there are {names}"
    for question in a.questions:
        source = a.ids[question.name].source if question.name in a.ids else ""
        total = sum(check.points for check in question.checks) + sum(question.person.values())
        heading = rf"## Question {question.name[1:]}: .+ \({total:g} points?\)"
        if not re.search(rf"^{heading}$", source, re.MULTILINE):
            yield f"{question.name}: there is no heading that matches {heading!r}"
        for word in ("**Given**", "**Wanted**"):
            if word not in source:
                yield f"{question.name}: does not say {word}"


def _answers(a: Assignment) -> Iterator[str]:
    for cell in a.nb.cells:
        regions = cell.source.count(BEGIN_SOLUTION), cell.source.count(END_SOLUTION)
        if role(cell) == "answer" and (regions[0] < 1 or regions[0] != regions[1]):
            yield f"cell {cell['id']}: its solutions must stand in solution regions"
        if role(cell) != "answer" and role(cell) != "person" and BEGIN_SOLUTION in cell.source:
            yield f"cell {cell['id']}: has a solution region, and students would get it"
    for question in a.questions:
        cells = [role(cell) for cell in a.nb.cells if question_of(cell) == question.name]
        if "answer" in cells and not {"look", "check"} <= set(cells):
            yield f"{question.name}: has an answer cell, so it needs a look and a check"


def _looks(a: Assignment) -> Iterator[str]:
    for cell in a.nb.cells:
        if role(cell) == "look":
            q = question_of(cell)
            wanted = {f"probe_{q}", f"look_{q}"}
            yield from _defines_and_calls(cell, wanted, f"look_{q}(probe_{q}())")
            if BEGIN_HIDDEN in cell.source:
                yield f"cell {cell['id']}: a visible check hides something"


def _checks(a: Assignment) -> Iterator[str]:
    for question in a.questions:
        for check in question.checks:
            cell = a.ids[check.cell]
            ends = re.escape(f"{check.function}({question.probe}(") + r"\d+\), \d+\)"
            yield from _defines_and_calls(cell, {check.function}, ends)
            lines = cell.source.rstrip().split("\n")
            if lines[1] != BEGIN_HIDDEN or lines[-1] != END_HIDDEN or lines[0][:2] != "# ":
                yield f"cell {check.cell}: a comment, then all the rest in a hidden region"
            if not check.words:
                yield f"cell {check.cell}: {check.function} has no docstring for the feedback"
            if not check.points > 0:
                yield f"cell {check.cell}: has no points"


def _defines_and_calls(cell, functions: set[str], call: str) -> Iterator[str]:
    body = ast.parse(cell.source).body
    for name in functions - {node.name for node in body if isinstance(node, ast.FunctionDef)}:
        yield f"cell {cell['id']}: does not define {name}"
    last = ast.unparse(body[-1]) if body else ""
    if not (last == call or re.fullmatch(call, last)):
        yield f"cell {cell['id']}: its last line must be {call}"
    if not all(isinstance(node, TOP) for node in body[:-1]):
        yield f"cell {cell['id']}: only imports, definitions and assignments stand above that line"


def _people(a: Assignment) -> Iterator[str]:
    people = [cell for cell in a.nb.cells if role(cell) == "person"]
    if not people or not any(role(cell) == "teacher" for cell in a.nb.cells):
        yield "a person must grade something, and a teacher- cell say how"
    for cell in people:
        if not points(cell) > 0:
            yield f"cell {cell['id']}: has no points"


def _order(a: Assignment) -> Iterator[str]:
    for question in a.questions:
        cells = [cell for cell in a.nb.cells if question_of(cell) == question.name]
        for one, two in pairwise(cells):
            if role(one) in ORDER and role(two) in ORDER:
                if ORDER.index(role(one)) > ORDER.index(role(two)):
                    yield f"cell {two['id']} stands behind {one['id']}"


def _code(a: Assignment) -> Iterator[str]:
    for cell in a.nb.cells:
        if cell.cell_type != "code":
            continue
        most = HIDDEN_COLUMNS if role(cell) == "check" else COLUMNS
        if max(map(len, cell.source.split("\n"))) > most:
            yield f"cell {cell['id']}: has a line of more than {most} characters"
        for node in ast.walk(ast.parse(cell.source)):
            names = [n.name for n in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.split(".")[0] in AWAY:
                    yield f"cell {cell['id']}: imports {name}, which students may not have"


def _prose(a: Assignment) -> Iterator[str]:
    for cell, what in calm_prose(SimpleNamespace(cells=a.nb.cells)):
        yield f"cell {cell['id']}: {what}"


def _wrong(a: Assignment, wrong: list) -> Iterator[str]:
    if len(wrong) < WRONG_ANSWERS:
        yield f"there must be at least {WRONG_ANSWERS} wrong answers"
    checks = {check.cell for question in a.questions for check in question.checks}
    for name, changes, lost in wrong:
        if not lost or not set(lost) <= checks:
            yield f"wrong answer {name!r}: it must name the checks that it loses"
        for cell, change in changes.items():
            known = cell in a.ids and role(a.ids[cell]) in ("answer", "person")
            if not known or (
                not isinstance(change, str) and a.ids[cell].source.count(change[0]) != 1
            ):
                yield f"wrong answer {name!r}: does not fit cell {cell}"
