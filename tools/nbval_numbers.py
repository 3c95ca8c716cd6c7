"""A pytest plugin on top of nbval: the last printed digit of a number is its tolerance.

nbval runs every notebook again and compares each output with the stored one. This plugin
replaces the comparison: a number with decimals or an exponent may differ by one unit of its
last printed digit, everything else must be equal. So an author chooses the tolerance by
choosing how many digits to print. No tag and no comment exempts a cell.

Load it with ``pytest -p tools.nbval_numbers --nbval``.
"""

import json
import os
import re
from decimal import Decimal
from itertools import pairwise, zip_longest
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile, NbCellError

from tools.notebooks import read

# A number stands alone: in `w10`, `x_1`, `1.2.3` and `0.5s` the digits are part of a word.
NUMBER = r"(?<![\w.])[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?!\w|\.[0-9])"
TOKEN = re.compile(rf"(?P<number>{NUMBER})|(?P<blank>[ \t]+)|\w+|.")
HAS_DECIMALS = re.compile(r"[-+]?[0-9]*\.[0-9]|.*[eE]")

PICTURES = ("image/png", "image/jpeg")
SHOWN = 6  # differing lines in a message; the rest is counted
TRACEBACK_LINES = 12
PLAINER = {
    "Cell outputs differ": "the output is not the stored one.",
    "Cell execution caused an exception": "the cell raised an exception.",
    "Unrun reference cell has outputs": "it has outputs, but was never run.",
}
ADVICE = """\
If what the cell does now is right, run `make notebooks` and commit the result.
If it is not, look for what has changed: this cell, a cell above it, a helper, a library."""


# Comparing text ---------------------------------------------------------------------------


def close(stored: str, now: str) -> bool:
    """Are two printed numbers equal to within one unit of the last digit of the finer print?

    |stored − now| ≤ 10^min(e), where e is the exponent of a print's last digit. Decimal
    arithmetic is exact here, so no slack is needed. Whole numbers (also ``3.``, which torch
    and NumPy print when nothing follows the point) are counts or labels and must be equal.
    """
    if not (HAS_DECIMALS.match(stored) or HAS_DECIMALS.match(now)):
        return stored == now
    a, b = Decimal(stored), Decimal(now)
    unit = Decimal(1).scaleb(min(a.as_tuple().exponent, b.as_tuple().exponent))
    return abs(a - b) <= unit


def tokens(line: str) -> list[re.Match]:
    """Split a line into numbers, words, blanks and single characters.

    Blanks before a number are left out: `` 9.9`` and ``10.0`` fill the same column.
    """
    pairs = pairwise([*TOKEN.finditer(line), None])
    return [t for t, after in pairs if not (t["blank"] and after and after["number"])]


def same(stored: re.Match | None, now: re.Match | None) -> bool:
    """Do two tokens say the same? None stands for a token that is not there."""
    if stored is None or now is None:
        return stored is now
    if stored["number"] and now["number"]:
        return close(stored["number"], now["number"])
    return stored[0] == now[0]


def line_difference(stored: str, now: str) -> str:
    """Both lines with the first token that differs marked, or '' if they say the same."""
    for was, is_ in zip_longest(tokens(stored), tokens(now)):
        if not same(was, is_):
            start = is_.start() if is_ else len(now)
            width = len(is_[0]) if is_ else 1
            return f"stored: {stored}\nnow:    {now}\n        {' ' * start}{'^' * width}"
    return ""


def differences(stored: str, now: str) -> list[str]:
    """The lines in which two texts differ beyond the last printed digit of their numbers.

    Returns one message for each differing line, in order; [] if the texts say the same.
    """
    pairs = zip_longest(stored.split("\n"), now.split("\n"))
    return [found for a, b in pairs if (found := _pair_difference(a, b))]


def _pair_difference(stored: str | None, now: str | None) -> str:
    if stored is None or now is None:
        return f"stored: {_or_no_line(stored)}\nnow:    {_or_no_line(now)}"
    return line_difference(stored, now)


def _or_no_line(line: str | None) -> str:
    return "(no line)" if line is None else line or "(an empty line)"


# Comparing outputs ------------------------------------------------------------------------


def pieces(outputs: list) -> list[tuple[str, str]]:
    """What a reader sees of a cell's outputs, in order: (kind, text).

    Of a picture only that it is there: its text/plain description says what it shows.
    """
    return [piece for output in outputs for piece in _pieces(output)]


def _pieces(output) -> list[tuple[str, str]]:
    kind = output["output_type"]
    if kind == "stream":
        return [(output["name"], output["text"])]
    if kind == "error":
        return [("error", f"{output['ename']}: {output['evalue']}")]
    return [(f"{kind} {mime}", _text(mime, data)) for mime, data in sorted(output["data"].items())]


def _text(mime: str, data) -> str:
    if mime in PICTURES:
        return ""
    return data if isinstance(data, str) else json.dumps(data, indent=1, sort_keys=True)


def output_differences(stored: list, now: list) -> list[str]:
    """The differences between a cell's stored outputs and those of running it now.

    Outputs are compared in order, by kind and text. At the first one that is missing, extra
    or of another kind the comparison ends: what follows would be compared with a neighbour.
    """
    found = []
    for was, is_ in zip_longest(pieces(stored), pieces(now), fillvalue=("nothing", "")):
        if was[0] != is_[0]:
            return [*found, f"stored: {_preview(*was)}\nnow:    {_preview(*is_)}"]
        found += differences(was[1], is_[1])
    return found


def _preview(kind: str, text: str) -> str:
    first = next((line for line in text.split("\n") if line.strip()), "")
    return f"({kind}) {first}".rstrip()


# pytest -----------------------------------------------------------------------------------


class Cell(IPyNbCell):
    """A code cell; its name in pytest is its id in the notebook."""

    def runtest(self):
        super().runtest()
        if self.cell.execution_count is None:
            self.raise_cell_error("this cell was committed without having been run.")

    def compare_outputs(self, test, ref, skip_compare=None) -> bool:
        found = output_differences(ref, test)
        self.comparison_traceback = found[:SHOWN]
        if len(found) > SHOWN:
            self.comparison_traceback.append(f"... and {len(found) - SHOWN} more lines")
        return not found

    def repr_failure(self, excinfo):
        if not isinstance(excinfo.value, NbCellError):
            return super().repr_failure(excinfo)
        return failure_message(self, str(excinfo.value), excinfo.value.inner_traceback or "")

    def reportinfo(self):
        return self.path, 0, self.name


class Notebook(IPyNbFile):
    """A notebook whose cells are compared by this plugin."""

    def collect(self):
        # From the file itself: nbval's reader makes up ids, other ones in each process.
        ids = [cell.get("id") for cell in read(self.path).cells if cell.cell_type == "code"]
        for item, cell_id in zip(super().collect(), ids, strict=True):
            name = cell_id or item.name
            # Every output is checked, whatever tags and comments ask nbval for.
            options = {**item.options, "skip": False, "check": True}
            options.setdefault("check_exception", False)
            yield Cell.from_parent(
                self, name=name, cell_num=item.cell_num, cell=item.cell, options=options
            )


def failure_message(cell: Cell, what: str, details: str) -> str:
    """Tell a newcomer which cell of which notebook says what instead of what."""
    notebook = os.path.relpath(cell.path, cell.config.rootpath)
    number = cell.cell_num + 1
    head = f"{notebook}, cell {cell.name} (code cell {number}): {PLAINER.get(what, what)}"
    if what != "Cell outputs differ":
        details = "\n".join(_plain(details).strip().split("\n")[-TRACEBACK_LINES:])
    source = f"The cell:\n{_indent(cell.cell.source)}"
    return "\n\n".join(part for part in (head, _indent(details), source, ADVICE) if part)


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n")) if text else ""


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent):
    """Put our Notebook where nbval collected its own."""
    found = yield
    return [
        Notebook.from_parent(parent, path=node.path) if isinstance(node, IPyNbFile) else node
        for node in found
    ]


def pytest_configure(config):
    """Kernels inherit this: a progress bar would be an output that changes on every run."""
    os.environ["TQDM_DISABLE"] = "1"
