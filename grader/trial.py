"""Try an assignment while you write it: rules, reference solution, release, wrong answers.

    python -m grader.trial [--single] <name> ...        (default: all of homework/source)

Wrong answers to different questions are tried together, as of a student with several mistakes;
with --single each is tried alone.
"""

import copy
import math
import runpy
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from grader.assignment import BEGIN_SOLUTION, END_SOLUTION, Assignment, definitions, role
from grader.grade import grade
from grader.release import tidy_file
from grader.rules import broken_rules
from tools.notebooks import text

SOURCE, WRONG = Path("homework/source"), Path("homework/wrong")


def wrong_answers(name: str, folder: Path = WRONG) -> list:
    """The table of an assignment: (what is wrong, {cell: change}, [checks that are lost])."""
    return runpy.run_path(str(folder / f"{name}.py"))["WRONG"]


def together(wrong: list) -> list:
    """The same table with as few rows as is easy: mistakes in different questions share one."""
    rows = []
    for name, changes, lost in wrong:
        theirs = {cell.split("-")[0] for cell in changes}
        for row in rows:
            if not theirs & {cell.split("-")[0] for cell in row[1]}:
                row[:] = [f"{row[0]} + {name}", row[1] | changes, row[2] + lost]
                break
        else:
            rows.append([name, dict(changes), list(lost)])
    return [tuple(row) for row in rows]


def submission(assignment: Assignment, changes: dict | None = None):
    """The notebook of a student who answers as the reference does, but for the changes."""
    nb = copy.deepcopy(assignment.released)
    for cell in nb.cells:
        if role(cell) in ("answer", "person"):
            cell.source = _answer(
                assignment.ids[cell["id"]].source, (changes or {}).get(cell["id"])
            )
    return nb


def _answer(reference: str, change) -> str:
    if isinstance(change, str):
        return change
    lines = [
        line for line in reference.split("\n") if line.strip() not in (BEGIN_SOLUTION, END_SOLUTION)
    ]
    return "\n".join(lines).replace(*change) if change else "\n".join(lines)


def lost(result: dict) -> list[str]:
    """The checks that did not give their points."""
    checks = [check for question in result["questions"] for check in question["checks"]]
    return [check["cell"] for check in checks if not check["points"]]


def grade_notebook(source: Path, nb, student: str = "trial") -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "submission.ipynb")
        path.write_text(nb if isinstance(nb, str) else text(nb), encoding="utf-8")
        return grade(source, path, key="trial", student=student)


def reference_answers(assignment: Assignment, seed: int) -> tuple[dict, dict]:
    """The names that checks use, and what each question's probe gives for the reference."""
    names, solved = assignment.namespace(), {"__name__": "reference"}
    for cell in assignment.nb.cells:
        if role(cell) in ("given", "answer"):
            exec(cell.source, solved)
        if role(cell) == "look":
            exec(definitions(cell.source), solved)
    probes = [q for q in assignment.questions if q.checks]
    return names, {q.name: solved[q.probe](seed=seed) for q in probes}


# Garbage ------------------------------------------------------------------------------------

ANYTHING = [
    None, True, False, 0, 1, -1, 10**18, 0.0, 1.0, -1.0, 1e300, math.nan, math.inf, -math.inf, "",
    "1.0", "nan", "True", "x" * 10_000, [], [[]], [1], [None], [math.nan], [1.0] * 1000, {},
    {"a": 1},    {"": None}, {"loss": 0.0}, [[1, 2], [3]],
]  # fmt: skip


def garbage() -> Iterator[object]:
    """Values that are no answer to anything."""
    yield from ANYTHING
    for dtype in (
        torch.float64,
        torch.float32,
        torch.int64,
        torch.bool,
        torch.uint8,
        torch.float16,
    ):
        for shape in ((), (0,), (1,), (3,), (2, 3), (1, 0, 2), (1, 1, 1, 1)):
            yield torch.ones(shape, dtype=dtype)
    for value in (math.nan, math.inf, -math.inf, 1e308, 0.0, -1.0):
        for shape in ((), (1,), (5,), (4, 4)):
            yield torch.full(shape, value, dtype=torch.float64)


def spoiled(answer) -> Iterator[object]:
    """The right answer with one part of it spoiled, in each part and in many ways."""
    if isinstance(answer, dict):
        for key, value in answer.items():
            yield {k: v for k, v in answer.items() if k != key}
            yield from ({**answer, key: bad} for bad in spoiled(value))
    elif isinstance(answer, (list, tuple)):
        yield list(answer)[:-1]
        for i, value in enumerate(answer):
            yield from ([*answer[:i], bad, *answer[i + 1 :]] for bad in spoiled(value))
    elif isinstance(answer, torch.Tensor):
        yield from (answer[None].repeat(2, *[1] * answer.dim()), "tensor")
        if answer.dim():
            yield answer.tolist()
        if answer.is_floating_point():
            holed = answer.clone()
            holed.view(-1)[-1:] = math.nan
            yield from (holed, answer + 0.01, answer + math.inf, -answer - 1, answer * 1e30 + 1e30)
    elif isinstance(answer, bool):
        yield from (not answer, None, "yes")
    elif isinstance(answer, (int, float)):
        yield from (answer + 1, math.nan, math.inf, -math.inf, str(answer), None, [answer])
    yield None


def try_all(name: str, single: bool) -> bool:
    """Does an assignment do what it should? Says so line by line."""
    path = SOURCE / name / f"{name}.ipynb"
    tidy_file(path)
    assignment, wrong = Assignment.load(path), wrong_answers(name)
    broken = broken_rules(assignment, wrong)
    print("\n".join([f"{name}: {assignment.version[:8]}", *broken]), flush=True)
    every = [check.cell for q in assignment.questions for check in q.checks]
    jobs = [
        ("reference solution", submission(assignment), []),
        ("untouched release", assignment.released, every),
    ]
    for what, changes, losing in wrong if single else together(wrong):
        jobs.append((what, submission(assignment, changes), losing))
    return all([_try(path, *job) for job in jobs]) and not broken


def _try(path: Path, what: str, nb, losing: list) -> bool:
    start = time.perf_counter()
    result = grade_notebook(path, nb)
    seconds, missed = time.perf_counter() - start, lost(result)
    ok = sorted(missed) == sorted(losing)
    points = f"{result['points']:g} of {result['max']:g}"
    print(f"{'✓' if ok else '✗'} {seconds:4.1f} s  {what}: {points}", flush=True)
    if not ok:
        print(f"   loses {missed}, should lose {losing}", *result["notes"])
        print("  ", *[(q["question"], q["look"]) for q in result["questions"] if q["look"]])
    return ok


def main(arguments: list[str]) -> int:
    names = [name for name in arguments if name != "--single"]
    names = names or sorted(path.name for path in SOURCE.iterdir())
    return int(not all([try_all(name, "--single" in arguments) for name in names]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
