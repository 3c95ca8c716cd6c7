"""Grading the homework: this book's grader, each notebook in a sandbox of its own, and nbgrader.

The reference solutions are handed in again and again: to the grader, whose process has loaded what
it needs, and to `nbgrader autograde`, where a further notebook takes the difference between a
small batch and a larger one, so that starting the program counts for neither. Both must give full
points.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from matplotlib.figure import Figure

from benchmarks import ROOT
from benchmarks.page import middle, number, table
from benchmarks.timing import spread
from grader.assignment import Assignment
from grader.collect import Submission
from grader.grade import GradeBook, grade_all
from grader.release import SOURCE, sources
from grader.sandbox import Sandbox, SandboxError, family_of, require
from grader.trial import grade_notebook, submission
from tools.notebooks import text

CORES, SMALL = 2, 1  # cores; notebooks in a small batch of nbgrader's


def run(quick: bool) -> dict:
    try:
        require()
    except SandboxError as error:
        return {"absent": str(error).splitlines()[0], "rows": []}
    paths = [ROOT / path for path in sources(ROOT / SOURCE)][: 1 if quick else None]
    one, batch, stock = (1, 2, 2) if quick else (5, 12, 4)
    rows = [{"assignment": path.stem, "ours": ours(path, one), "a minute": a_minute(path, batch),
             "stock": further(path, stock)} for path in paths]  # fmt: skip
    return {"one": one, "batch": batch, "stock": stock, "rows": rows}


class Metered(Sandbox):
    """A sandbox that tells how much processor time it took."""

    seconds: list[float] = []

    def close(self) -> None:
        self.seconds.append(sum(map(processor, family_of(self.process.pid))))
        super().close()


def processor(pid: int) -> float:
    """Processor seconds of a process and of those below it that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def ours(path: Path, runs: int) -> list[float]:
    """Processor seconds of one notebook, one after the other, behind one that isn't counted."""
    solved, found = submission(Assignment.load(path)), []
    with mock.patch("grader.grade.Sandbox", Metered):
        for _ in range(runs + 1):
            Metered.seconds.clear()
            start = time.process_time()
            result = grade_notebook(path, solved)
            found.append(time.process_time() - start + sum(Metered.seconds))
            require_full(path, [result["points"]], 1)
    return found[1:]


def a_minute(path: Path, students: int) -> float:
    """Notebooks a minute in a batch on two cores, of a grader that has loaded what it needs."""
    with tempfile.TemporaryDirectory() as place:
        files = hand_in(path, students, Path(place, "submitted"))
        found = [Submission(f"s{i}", path.stem, file, file.name) for i, file in enumerate(files)]
        book, start = GradeBook(Path(place, "grades")), time.perf_counter()
        points = [r["points"] for _, r in grade_all({path.stem: path}, found, book, CORES)]
        seconds = time.perf_counter() - start
    require_full(path, points, students)
    return 60 * students / seconds


def further(path: Path, most: int) -> dict[str, float]:
    """Seconds that a further notebook takes nbgrader: of processor time, and on the wall."""
    small, large = (autograde(path, number) for number in (SMALL, most))
    return {clock: (large[clock] - small[clock]) / (most - SMALL) for clock in small}


def autograde(path: Path, students: int) -> dict[str, float]:
    from nbgrader.api import Gradebook

    with tempfile.TemporaryDirectory() as place:
        hand_in(path, students, Path(place, "submitted"))
        (Path(place) / "source" / path.stem).mkdir(parents=True)
        Path(place, "source", path.stem, path.name).write_bytes(path.read_bytes())
        command = [sys.executable, "-m", "nbgrader"]
        clocked([*command, "generate_assignment", path.stem], Path(place))
        seconds = clocked([*command, "autograde", path.stem], Path(place))
        with Gradebook(f"sqlite:///{place}/gradebook.db") as gradebook:
            points = [one.score for one in gradebook.assignment_submissions(path.stem)]
    require_full(path, points, students)
    return seconds


def hand_in(path: Path, students: int, folder: Path) -> list[Path]:
    """As many notebooks with the reference solution, as nbgrader lays them out."""
    solved = text(submission(Assignment.load(path)))
    files = [folder / f"student{i}" / path.stem / path.name for i in range(students)]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text(solved, "utf-8")
    return files


def clocked(command: Sequence, place: Path) -> dict[str, float]:
    """Seconds that a program and all that it starts take."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    before, start = children(), time.perf_counter()
    done = subprocess.run(list(map(str, command)), cwd=place, env=environment, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[-2000:])
    return {"processor": children() - before, "wall": time.perf_counter() - start}


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def require_full(path: Path, points: list[float], students: int) -> None:
    assignment = Assignment.load(path)
    full = sum(check.points for question in assignment.questions for check in question.checks)
    assert points == [full] * students, f"{path.stem}: {points} instead of {full} points each"


# --- the page ----------------------------------------------------------------------------


def page(results: dict) -> str:
    if not results["rows"]:
        return f"## Grading homework\n\nNot measured: {results['absent']}"
    head = ["homework", "this book's: processor s", "a minute on two cores",
            "nbgrader: processor s", "a minute"]  # fmt: skip
    rows = [[row["assignment"], middle(row["ours"]), number(row["a minute"]),
             number(row["stock"]["processor"]), number(60 / row["stock"]["wall"])]
            for row in results["rows"]]  # fmt: skip
    ratios = [spread(row["ours"])[1] / row["stock"]["processor"] for row in results["rows"]]
    return f"""## Grading homework

A notebook with right answers, for this book's grader and for nbgrader's `autograde`. This book's
grader runs each in a sandbox of its own and the checks outside of it, two notebooks at a time
(batches of {results['batch']}); nbgrader runs one at a time, checks and answers in one kernel.
Neither counts the start of the program.

{table(head, rows)}
![](grading)

Ours takes {number(min(ratios))} to {number(max(ratios))} times nbgrader's processor time."""


def figures(results: dict) -> dict[str, Figure]:
    from matplotlib import pyplot as plt

    rows = results["rows"]
    if not rows:
        return {}
    fig, ax = plt.subplots(figsize=(7, 1.4 + 0.4 * len(rows)))
    mine = [spread(row["ours"])[1] for row in rows]
    theirs = [row["stock"]["processor"] for row in rows]
    for seconds, name, marker in ((mine, "this book's", "o"), (theirs, "nbgrader", "s")):
        ax.plot(seconds, range(len(rows)), marker, linestyle="none", label=name)
    ax.set_yticks(range(len(rows)), [row["assignment"] for row in rows])
    ax.invert_yaxis()
    ax.set_xlim(left=0)
    ax.set_xlabel("processor seconds for a notebook")
    ax.legend()
    return {"grading": fig}
