"""Grade submissions: ``make grade SUBMISSIONS=<folder or zip>``.

    python -m grader.grade <folder or zip> [--assignment NAME] [--grades FOLDER] [--source FOLDER]

Writes into the grade book, a folder (default: _grades): grades.csv, rejected.csv and a feedback
page per student. What was graded stays graded: the same file is not run twice, and a batch that
was interrupted goes on where it stopped.
"""

import argparse
import contextlib
import csv
import functools
import hashlib
import hmac
import io
import json
import os
import resource
import secrets
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from grader import feedback
from grader.answers import decode, plain
from grader.assignment import Assignment, Question
from grader.collect import Refused, Submission, collect
from grader.rebuild import Rejected, Step, graded_notebook, read_submission, rebuild
from grader.sandbox import MB, MEMORY, Died, Sandbox, SandboxError, require
from tools.notebooks import write_whole

CHECK_SECONDS = 20
WORKER_MEMORY = 6144 * MB
PUBLIC_SEED = 0  # of the visible checks
SHOWN = 20_000_000  # characters of the outputs of one notebook, pictures among them
TOO_MUCH = [{"stream": "The outputs of this notebook are too large to be kept."}]
LOST = "no answer came back: "


class Limits(NamedTuple):
    """What a student's notebook may take, in bytes, and in seconds as `sandbox.Clock` counts."""

    cell: float = 30
    notebook: float = 240
    memory: int = MEMORY


LIMITS = Limits()


def secret_seed(key: str, *parts: str) -> int:
    """A seed that nobody can guess, and the same one for the same key and parts."""
    digest = hmac.new(key.encode(), "\0".join(parts).encode(), hashlib.sha256).digest()
    return 1 + int.from_bytes(digest[:4], "big") % (2**31 - 2)


# In the sandbox -----------------------------------------------------------------------------


class Run:
    """Steps of one submission, run in order in a sandbox, in a new one after each that died."""

    def __init__(self, steps: list[Step], limits: Limits):
        self.steps, self.limits = steps, limits
        self.left = limits.notebook  # seconds
        self.box, self.left_out = None, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._close()

    def _close(self) -> None:
        if self.box:
            self.box.close()
        self.box = None

    def ask(self, number: int, request: dict) -> dict:
        """The reply to a request at a step; raises Died, after which the rest can go on."""
        self._open(number)
        return self._send(request)

    def _send(self, request: dict) -> dict:
        try:
            reply = self.box.ask(request, min(self.limits.cell, self.left))
        except Died:
            self.left -= self.box.took
            self._close()
            raise
        self.left -= self.box.took
        reply.pop("died", None)  # only we say so
        return reply

    def _open(self, number: int) -> None:
        """A sandbox in which all cells above a step have run, but for those that ended one."""
        while self.box is None or self.left <= 0:
            if self.left <= 0:
                raise Died("the whole notebook took too long")
            self.box = Sandbox(self.limits.memory)
            for i, step in enumerate(self.steps[:number]):
                if step.kind == "cell" and i not in self.left_out:
                    try:
                        self._send({"source": step.source})
                    except Died as died:
                        self.left_out[i] = str(died)
                        break


def run(steps: list[Step], questions, seeds, limits: Limits):
    """Run all steps. Returns what came back: (cells: {step number: reply}, answers: {question:
    {seed: raw reply}}), all of it a student's."""
    cells, answers, room = {}, {}, SHOWN
    by_cell = {f"{q.name}-look": q for q in questions}
    with Run(steps, limits) as box:
        for number, step in enumerate(steps):
            if step.kind == "cell":
                reply = _try(box, number, {"source": step.source})
                if "died" in reply:
                    box.left_out[number] = reply["died"]
                room -= reply.get("size", 0)
                cells[number] = reply if room > 0 or "died" in reply else {"outputs": TOO_MUCH}
                continue
            question = by_cell[step.cell]
            replies, died = {}, {}
            for seed in (PUBLIC_SEED, seeds[question.name]):  # what hangs once would hang again
                asked = {"probe": question.probe, "seed": seed}
                replies[seed] = died or _try(box, number, asked)
                died = replies[seed] if "died" in replies[seed] else {}
            answers[question.name] = replies
    return cells, answers


def _try(box: Run, number: int, request: dict) -> dict:
    try:
        return box.ask(number, request)
    except Died as died:
        return {"died": str(died)}


# Outside of it ------------------------------------------------------------------------------


class TooLong(Exception):
    pass


@contextlib.contextmanager
def time_limit(seconds: float):
    """Raise TooLong in the block after that many seconds of processor time.

    It must run in a process's main thread.
    """

    def stop(*_):
        raise TooLong

    old = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)


def answer_of(reply: dict):
    """The answer in a reply of the sandbox; raises ValueError that says why there is none."""
    if "died" in reply:
        raise ValueError(LOST + str(reply["died"]))
    if "value" not in reply:
        raise ValueError(LOST + plain(reply.get("error", "nothing")))
    return decode(reply["value"])


def passes(function, answer, seed: int) -> bool:
    """Does a check accept an answer? Whatever it raises on what a student sent is a no."""
    try:
        with time_limit(CHECK_SECONDS), contextlib.redirect_stdout(io.StringIO()):
            function(answer, seed)
    except (Exception, TooLong):
        return False
    return True


def look(function, reply: dict) -> str:
    """What the visible check says: '' if it accepts."""
    try:
        answer = answer_of(reply)
        with time_limit(CHECK_SECONDS), contextlib.redirect_stdout(io.StringIO()):
            function(answer, PUBLIC_SEED)
    except TooLong:
        return "the check took too long"
    except Exception as error:
        return plain(error) or type(error).__name__
    return ""


def judge(names: dict, question: Question, replies: dict, seed: int) -> dict:
    """Points and reasons of one question."""
    result = {
        "question": question.name,
        "title": question.title,
        "points": 0,
        "max": sum(check.points for check in question.checks),
        "person": dict(question.person),
        "checks": [],
    }
    if not question.checks:
        return result | {"look": ""}
    result["look"] = look(names[question.look], replies[PUBLIC_SEED])
    try:
        answer, lost = answer_of(replies[seed]), ""
    except ValueError as error:
        answer, lost = None, str(error)
    for check in question.checks:
        ok = not lost and passes(names[check.function], answer, seed)
        result["points"] += check.points if ok else 0
        result["checks"].append(
            {"cell": check.cell, "points": check.points if ok else 0, "max": check.points,
             "words": check.words, "lost": lost}
        )  # fmt: skip
    return result


@functools.cache
def _load(path: Path) -> tuple[Assignment, dict]:
    assignment = Assignment.load(path)
    return assignment, assignment.namespace()


def grade(
    source: Path, submission: Path, key: str, student: str = "", limits: Limits = LIMITS
) -> dict:
    """Grade one file. Raises Rejected if it is no notebook of the assignment."""
    assignment, names = _load(source)
    content = hashlib.sha256(submission.read_bytes()).hexdigest()
    submitted = read_submission(submission)
    steps = rebuild(assignment, submitted)
    seeds = {
        q.name: secret_seed(key, student, assignment.name, q.name, content)
        for q in assignment.questions
    }
    cells, answers = run(steps, [q for q in assignment.questions if q.checks], seeds, limits)
    questions = [
        judge(names, q, answers.get(q.name, {}), seeds[q.name]) for q in assignment.questions
    ]
    return {
        "student": student,
        "assignment": assignment.name,
        "file": content,
        "version": assignment.version,
        "points": sum(q["points"] for q in questions),
        "max": sum(q["max"] for q in questions),
        "questions": questions,
        "notes": [
            f"a cell behind {step.cell or 'the top'} was left out: {cells[number]['died']}"
            for number, step in enumerate(steps)
            if step.kind == "cell" and "died" in cells[number]
        ],
        "notebook": graded_notebook(assignment, submitted, steps, cells),
    }


# A batch ------------------------------------------------------------------------------------


class GradeBook:
    """The folder of a course's grades: key of the secret seeds, results, tables, feedback."""

    def __init__(self, folder: Path):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder, self.results = folder, folder / "results"
        key = folder / "key"
        if not key.exists():
            with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        self.key = key.read_text().strip()

    def path(self, student: str, assignment: str) -> Path:
        return self.results / assignment / f"{student}.json"

    def result(self, student: str, assignment: str) -> dict | None:
        try:
            return json.loads(self.path(student, assignment).read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def all(self) -> list[dict]:
        return [
            json.loads(path.read_text("utf-8")) for path in sorted(self.results.glob("*/*.json"))
        ]

    def is_graded(self, submission: Submission, version: str) -> bool:
        """Is this very file graded already, by these very checks?"""
        known = self.result(submission.student, submission.assignment) or {}
        if known.get("version") != version:
            return False
        return known.get("file") == hashlib.sha256(submission.path.read_bytes()).hexdigest()

    def keep(self, result: dict) -> None:
        path = self.path(result["student"], result["assignment"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        html = self.folder / "feedback" / result["student"] / f"{result['assignment']}.html"
        html.parent.mkdir(parents=True, exist_ok=True)
        write_whole(html, feedback.page(result))

    def refused(self) -> list[Refused]:
        """The files of the last batch that were not graded."""
        try:
            return [Refused(*one) for one in json.loads((self.folder / "refused.json").read_text())]
        except OSError:
            return []

    def write_tables(self, refused: list[Refused]) -> None:
        write_whole(self.folder / "refused.json", json.dumps(refused))
        results = self.all()
        graded = {(r["student"], r["assignment"]) for r in results}
        rows = [row for result in results for row in grade_rows(result)]
        for one in sorted(set(refused)):
            if one.student and one.assignment and (one.student, one.assignment) not in graded:
                rows.append([one.student, one.assignment, "all", 0, "", "", one.reason])
        head = [
            "student",
            "assignment",
            "question",
            "points",
            "max",
            "waits for a person",
            "reason",
        ]
        write_whole(self.folder / "grades.csv", table([head, *rows]))
        head = ["file", "student", "assignment", "reason"]
        rows = [[one.file, one.student, one.assignment, one.reason] for one in sorted(set(refused))]
        write_whole(self.folder / "rejected.csv", table([head, *rows]))


def grade_rows(result: dict) -> list[list]:
    """The lines of one graded notebook in grades.csv: one for each question."""
    if result.get("rejected"):
        return [[result["student"], result["assignment"], "all", 0, "", "", result["rejected"]]]
    return [_row(result, question) for question in result["questions"]]


def _row(result: dict, question: dict) -> list:
    given = question.get("given", {})
    reasons = [
        check["lost"] or check["words"] for check in question["checks"] if not check["points"]
    ]
    points = question["points"] + sum(given.values())
    waiting = sum(most for cell, most in question["person"].items() if cell not in given)
    most = question["max"] + sum(question["person"].values())
    reason = "; ".join(dict.fromkeys(reasons))
    return [result["student"], result["assignment"], question["question"], f"{points:g}",
            f"{most:g}", f"{waiting:g}" if waiting else "", reason]  # fmt: skip


def table(rows: list[list]) -> str:
    """CSV that a spreadsheet shows as it is: a text that begins like a formula gets a quote."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for row in rows:
        writer.writerow(
            ["'" + v if isinstance(v, str) and v[:1] in "=+-@\t\r" and v else v for v in row]
        )
    return file.getvalue()


def rejection(submission: Submission, version: str, reason: str) -> dict:
    """The record of a file that can't be graded: 0 points and a reason."""
    content = hashlib.sha256(submission.path.read_bytes()).hexdigest()
    return {"student": submission.student, "assignment": submission.assignment, "file": content,
            "version": version, "rejected": reason, "points": 0, "max": 0, "questions": [],
            "notes": [f"The file was not graded: {reason}."]}  # fmt: skip


def _work(source: Path, submission: Submission, key: str, limits: Limits) -> dict:
    """In a worker: the record of one submission."""
    try:
        return grade(source, submission.path, key, submission.student, limits)
    except Rejected as error:
        return rejection(submission, _load(source)[0].version, str(error))
    except SandboxError:
        raise
    except Exception as error:  # a fault of ours: nobody loses a point, and the rest go on
        return {"failed": plain(f"{type(error).__name__}: {error}")}


def _begin() -> None:
    """In a new worker: the batch's own process hears Ctrl-C; checks can't fill the memory.

    A fork has none of its parent's threads, so it must not wait for them: torch takes one.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whatever the batch's own process does at it
    resource.setrlimit(resource.RLIMIT_DATA, (WORKER_MEMORY, WORKER_MEMORY))


def grade_all(
    sources: dict[str, Path],
    submissions: list[Submission],
    book: GradeBook,
    workers: int,
    limits: Limits = LIMITS,
):
    """Grade what is not graded yet, and keep each result as soon as it is there.

    Yields (submission, result); a result with ``failed`` is not kept. Raises SandboxError where
    there is no sandbox.
    """
    torch.set_num_threads(1)  # see `_begin`
    versions = {name: _load(path)[0].version for name, path in sources.items()}
    waiting = [s for s in submissions if not book.is_graded(s, versions[s.assignment])]
    for attempt in range(
        3
    ):  # a worker that dies takes the pool with it; the rest go on in a new one
        pool = ProcessPoolExecutor(workers, get_context("fork"), _begin)
        jobs = {pool.submit(_work, sources[s.assignment], s, book.key, limits): s for s in waiting}
        try:
            for job in as_completed(jobs):
                result = job.result()
                if "failed" not in result:
                    book.keep(result)
                waiting.remove(jobs[job])
                yield jobs[job], result
            return
        except BrokenProcessPool:
            if attempt == 2:
                raise
        finally:
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make grade SUBMISSIONS=<folder or zip>")
    parser.add_argument("submissions", type=Path, help="folder, or zip of an LMS")
    parser.add_argument("--assignment", default="", help="what all files are answers to")
    parser.add_argument("--grades", type=Path, default=Path("_grades"), help="the grade book")
    parser.add_argument("--source", type=Path, default=Path("homework/source"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    sources = {path.stem: path.absolute() for path in sorted(options.source.glob("*/*.ipynb"))}
    if options.assignment and options.assignment not in sources:
        parser.error(f"there is no assignment {options.assignment}, only {', '.join(sources)}")
    try:
        require()
        book = GradeBook(options.grades)
        room = book.folder / "received"
        submissions, refused = collect(options.submissions, sources, room, options.assignment)
        return _batch(sources, submissions, refused, book, options.workers)
    except (SandboxError, FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2


def _batch(sources, submissions, refused, book: GradeBook, workers: int) -> int:
    start, done, code = time.monotonic(), 0, 0
    try:
        for submission, result in grade_all(sources, submissions, book, workers):
            done += 1
            said = result.get("rejected") or result.get("failed")
            said = said or f"{result['points']:g} of {result['max']:g}"
            if "failed" in result:
                said, code = f"NOT GRADED, by a fault of the grader: {said}", 1
            print(f"[{done}] {submission.assignment}  {submission.student}: {said}", flush=True)
    except KeyboardInterrupt:
        print(
            "\nInterrupted. What is graded stays graded; the same command goes on.", file=sys.stderr
        )
        code = 130
    names = {(s.student, s.assignment): s.name for s in submissions}
    for result in book.all():
        if result.get("rejected"):
            name = names.get((result["student"], result["assignment"]), "")
            refused.append(
                Refused(result["student"], result["assignment"], name, result["rejected"])
            )
    book.write_tables(refused)
    seconds = time.monotonic() - start
    kept = len(submissions) - done if code != 130 else 0
    print(f"{done} graded in {seconds:.0f} s, {kept} had been graded before, {len(refused)} files "
          f"rejected. See {book.folder}/grades.csv, rejected.csv and feedback/.")  # fmt: skip
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
