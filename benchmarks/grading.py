"""Time grading: ours in sandboxes, and stock nbgrader on the same notebooks, in one run.

    python -m benchmarks.grading [number of notebooks]

A normal notebook may take 5 s on one core, and two cores must grade at least 20 in a minute.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from grader.assignment import Assignment
from grader.collect import Submission
from grader.grade import GradeBook, grade_all
from grader.release import sources
from grader.trial import submission
from tools.notebooks import text


def ours(path: Path, files: list[Path], folder: Path, workers: int) -> float:
    found = [Submission(f"s{i}", path.stem, file, file.name) for i, file in enumerate(files)]
    start = time.perf_counter()
    results = list(grade_all({path.stem: path}, found, GradeBook(folder), workers))
    assert all(result["points"] == result["max"] for _, result in results)
    return time.perf_counter() - start


def stock(path: Path, files: list[Path], folder: Path) -> float:
    """Seconds of `nbgrader autograde`, which has one process and no sandbox."""
    name, bin_folder = path.stem, Path(sys.executable).parent
    places = [folder / "source" / name, *(folder / "submitted" / f"s{i}" / name
                                          for i in range(len(files)))]  # fmt: skip
    for place, file in zip(places, [path, *files], strict=True):
        place.mkdir(parents=True)
        (place / f"{name}.ipynb").write_bytes(file.read_bytes())
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}

    def nbgrader(command: str) -> None:
        arguments = [sys.executable, "-m", "nbgrader", command, name, "--force"]
        subprocess.run(arguments, cwd=folder, env=environment, check=True, capture_output=True)

    nbgrader("generate_assignment")
    start = time.perf_counter()
    nbgrader("autograde")
    return time.perf_counter() - start


def main(number: int) -> None:
    for path in sources():
        with tempfile.TemporaryDirectory() as place:
            nb = text(submission(Assignment.load(path)))
            files = [Path(place, f"{i}.ipynb") for i in range(number)]
            for file in files:
                file.write_text(nb, "utf-8")
            one = ours(path, files, Path(place, "one"), 1) / number
            two = ours(path, files, Path(place, "two"), 2) / number
            theirs = stock(path, files, Path(place, "stock")) / number
        print(f"{path.stem}: {one:.1f} s a notebook on one core, {60 / two:.0f} a minute on two; "
              f"stock nbgrader {theirs:.1f} s a notebook")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
