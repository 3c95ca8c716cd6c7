"""The notebook that is graded: the instructor's cells, with a student's answers in them.

From the student comes the text of the answer cells and of cells that were added, each behind
the cell that it stood behind. So it makes no difference what became of the other cells.
"""

import base64
import binascii
import json
import re
from pathlib import Path
from typing import NamedTuple

from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from grader.assignment import Assignment, definitions, role

LARGEST, CELLS, SOURCE = 20_000_000, 300, 500_000  # bytes, number, characters of a notebook


class Rejected(ValueError):
    """The file can't be graded; the message says why."""


class Cell(NamedTuple):
    """A cell of a submission: any text may stand in it."""

    kind: str
    source: str
    names: tuple[str, ...]  # what it could be called


class Step(NamedTuple):
    """What happens next in the sandbox: run a cell, or put a question's probe."""

    kind: str  # "cell" or "probe"
    cell: str  # id of the instructor's cell, or of the cell behind which it was added
    source: str
    added: bool = False


def read_submission(path: Path) -> list[Cell]:
    """The cells of a notebook of any format; raises Rejected if the file is none."""
    if path.stat().st_size > LARGEST:
        raise Rejected(f"the file is larger than {LARGEST // 1_000_000} MB")
    content = path.read_bytes()
    if not content.strip():
        raise Rejected("the file is empty")
    try:
        nb = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Rejected("this is no notebook: the file is not JSON") from error
    raw = _raw_cells(nb)
    if len(raw) > CELLS:
        raise Rejected(f"the notebook has more than {CELLS} cells")
    cells = [_cell(item) for item in raw if isinstance(item, dict)]
    if sum(len(cell.source) for cell in cells) > SOURCE:
        raise Rejected(f"the notebook has more than {SOURCE} characters of text")
    return cells


def _raw_cells(nb) -> list:
    if isinstance(nb, dict) and isinstance(nb.get("cells"), list):
        return nb["cells"]
    sheets = nb.get("worksheets") if isinstance(nb, dict) else None  # format 3
    if not isinstance(sheets, list):
        raise Rejected("this is no notebook: it has no cells")
    sheets = [sheet.get("cells") for sheet in sheets if isinstance(sheet, dict)]
    return [cell for cells in sheets if isinstance(cells, list) for cell in cells]


def _cell(raw: dict) -> Cell:
    source = raw.get("source", raw.get("input", ""))  # format 3 says input
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    kind = {"code": "code", "markdown": "markdown"}.get(str(raw.get("cell_type")), "raw")
    metadata = raw.get("metadata") if isinstance(raw.get("metadata"), dict) else {}
    nbgrader = metadata.get("nbgrader") if isinstance(metadata.get("nbgrader"), dict) else {}
    names = (nbgrader.get("grade_id"), raw.get("id"), metadata.get("id"))  # the last is Colab's
    source = source if isinstance(source, str) else ""
    source = source.encode("utf-8", "replace").decode("utf-8")  # no half characters
    return Cell(kind, source, tuple(name for name in names if isinstance(name, str)))


def match(assignment: Assignment, cells: list[Cell]) -> tuple[dict[str, Cell], dict]:
    """The student's cell for each of the instructor's, and the added cells behind each.

    The first cell of a name is the one; further ones (a cell that was split keeps its name
    twice) are added cells. A cell that has lost its names is known by its text.
    """
    released = {cell["id"]: cell for cell in assignment.released.cells}
    by_text = {cell.source.strip(): name for name, cell in released.items()}
    found, added, last = {}, {}, None
    for cell in cells:
        name = next((n for n in cell.names if n in released), by_text.get(cell.source.strip()))
        if name is None or (name in found and role(released[name]) in ("answer", "person")):
            added.setdefault(last, []).append(cell)
        elif name not in found:
            found[name] = cell
            last = name
    return found, added


def rebuild(assignment: Assignment, cells: list[Cell]) -> list[Step]:
    """What to run, in order. Raises Rejected if nothing of the assignment is in the notebook."""
    found, added = match(assignment, cells)
    if not found:
        raise Rejected(f"the notebook has none of the cells of the assignment {assignment.name}")
    steps = _added(None, added)
    for cell in assignment.released.cells:
        steps += [_own(cell, found)] if cell.cell_type == "code" else []
        steps += _added(cell["id"], added)
        if role(cell) == "look":
            steps += [Step("probe", cell["id"], "")]
    return [step for step in steps if step.kind == "probe" or step.source.strip()]


def _added(name: str | None, added: dict) -> list[Step]:
    return [
        Step("cell", name or "", c.source, True) for c in added.get(name, []) if c.kind == "code"
    ]


def _own(cell, found: dict[str, Cell]) -> Step:
    kind, name = role(cell), cell["id"]
    if kind in ("answer", "person"):
        theirs = found.get(name)
        return Step("cell", name, theirs.source if theirs and theirs.kind == "code" else "")
    return Step(
        "cell", name, definitions(cell.source) if kind in ("look", "check") else cell.source
    )


# For the person who grades -------------------------------------------------------------------


def graded_notebook(assignment: Assignment, cells: list[Cell], steps: list[Step], replies: dict):
    """The rebuilt notebook with what the student's cells showed, safe to be looked at.

    replies  {number of a step: reply of the sandbox}
    """
    found, added = match(assignment, cells)
    shown = {}
    for number, step in enumerate(steps):
        if step.kind == "cell":
            shown.setdefault((step.cell, step.added), []).append(outputs(replies.get(number, {})))
    new = assignment.released.copy()
    new.cells, number = [], 0
    for cell in [None, *assignment.released.cells]:
        name = cell["id"] if cell else ""
        if cell:
            new.cells.append(_shown(cell, found.get(name), shown.get((name, False), [[]])[0]))
        for extra in added.get(name or None, []):
            number += 1
            new.cells.append(_added_cell(extra, f"added-{number}", shown.get((name, True), [])))
    return new


def _shown(cell, theirs: Cell | None, shown: list):
    kind, new = role(cell), cell.copy()
    if kind in ("answer", "person"):
        new.source = theirs.source if theirs else ""
        new.source = new.source if cell.cell_type == "code" else harmless(new.source)
    if cell.cell_type == "code":
        new.outputs = shown
    return new


def _added_cell(cell: Cell, name: str, shown: list):
    if cell.kind == "code":
        runs = cell.source.strip() and shown
        return new_code_cell(cell.source, id=name, outputs=shown.pop(0) if runs else [])
    return new_markdown_cell(harmless(cell.source), id=name)


def harmless(source: str) -> str:
    """Markdown in which no HTML can begin and no picture is fetched from elsewhere."""
    source = re.sub(r"<(?=[A-Za-z/!?])", "< ", source)
    return re.sub(r"!\[", "! [", source)


def outputs(reply: dict) -> list:
    """The text and pictures of a reply as outputs; nothing that a browser would run."""
    new = []
    raw = reply.get("outputs") if isinstance(reply.get("outputs"), list) else []
    for one in raw[:20]:
        data = one.get("data") if isinstance(one, dict) else None
        if isinstance(one, dict) and isinstance(one.get("stream"), str):
            new.append(new_output("stream", name="stdout", text=_text(one["stream"])))
        elif isinstance(data, dict):
            kept = {"text/plain": _text(str(data.get("text/plain", "")))}
            if png := _png(data.get("image/png")):
                kept["image/png"] = png
            new.append(new_output("display_data", data=kept))
    return new


def _text(text: str) -> str:
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", "", text[:50_000])
    return text


def _png(data) -> str:
    try:
        content = base64.b64decode(data, validate=True) if isinstance(data, str) else b""
    except (binascii.Error, ValueError):
        return ""
    return base64.b64encode(content).decode() if content.startswith(b"\x89PNG\r\n\x1a\n") else ""
