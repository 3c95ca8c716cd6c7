"""Copies of the book and what it takes to build them; with 1, 2, 4 and 8 times the notebooks.

Everything happens in copies in a temporary folder. Times are wall clock. The memory of a build
is the largest resident set of its largest process, as the system counts it.
"""

import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

from benchmarks import ROOT, timing

PARTS = [
    "Makefile", "_config.yml", "_toc.yml", "pyproject.toml", "requirements.lock",
    "book", "helpers", "notebooks", "studies", "tools",
]
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
MAKE = ["make", "-o", ".venv/.stamp", "book"]  # with the environment as it is
# Copied notebooks name pages that only the whole book has: a warning is no error there.
LENIENT = [*MAKE, "BUILD=.venv/bin/jupyter-book build . -q"]
# By its place: Jupyter Book would take a folder .venv for a part of the book.
DEFAULT = [f"{sys.prefix}/bin/jupyter-book", "build", "."]
LABEL = re.compile(
    r"^\(([\w-]+)\)=$|^:(?:label|name): *(\S+)|\$\$ *\(([\w-]+)\)$", re.MULTILINE
)
TIMES, RUNS = (1, 2, 4, 8), 3
QUICK = ["13_mnist_study", "00_welcome"]  # two short ones, for a trial


def notebooks() -> list[str]:
    """The names of the book's notebooks, in order."""
    return sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


# --- copies ------------------------------------------------------------------------------


def copy_book(folder: Path) -> Path:
    """The whole book as it is, in a new folder."""
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        options = {"ignore": LEFT_OUT} if copy is shutil.copytree else {}
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / part, folder / part, **options)
    (folder / ".venv").symlink_to(sys.prefix)
    if not (own := folder / "book" / "benchmarks.md").exists():
        own.write_text("# Benchmarks\n", "utf-8")  # before the first run
    return folder


def only(folder: Path, names: Sequence[str], times: int = 1) -> Path:
    """Leave a copied book with these notebooks alone, several times over."""
    stored = {name: (folder / "notebooks" / f"{name}.ipynb").read_text("utf-8") for name in names}
    for path in [*(folder / "notebooks").glob("*.ipynb"), *(folder / "book").glob("*.md")]:
        path.unlink()
    for copy in range(times):
        for name, text in stored.items():
            path = folder / "notebooks" / f"{copied(name, copy)}.ipynb"
            path.write_text(relabelled(text, copy) if copy else text, "utf-8")
    write_toc(folder, [f"notebooks/{copied(name, c)}" for c in range(times) for name in names])
    return folder


def copied(name: str, copy: int) -> str:
    return f"{name}-{copy}" if copy else name


def write_toc(folder: Path, pages: Sequence[str]) -> None:
    root, *chapters = pages
    listed = [f"  - file: {page}" for page in chapters]
    lines = ["format: jb-book", f"root: {root}", *(["chapters:", *listed] if listed else [])]
    (folder / "_toc.yml").write_text("\n".join(lines) + "\n", "utf-8")


def relabelled(text: str, copy: int) -> str:
    """A notebook whose labels carry a number: no two pages of a book may share a label."""
    nb = json.loads(text)
    prose = ["".join(c["source"]) for c in nb["cells"] if c["cell_type"] == "markdown"]
    found = {name for part in prose for match in LABEL.findall(part) for name in match if name}
    figures = (c["metadata"].get("mystnb", {}).get("figure", {}) for c in nb["cells"])
    found |= {figure["name"] for figure in figures if "name" in figure}
    if not found:
        return text
    names = "|".join(sorted(map(re.escape, found), key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w-])({names})(?![\w-])")
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = pattern.sub(rf"\1-{copy}", "".join(cell["source"]))
        cell["metadata"] = json.loads(pattern.sub(rf"\1-{copy}", json.dumps(cell["metadata"])))
    return json.dumps(nb)


# --- builds ------------------------------------------------------------------------------


def build(folder: Path, command: Sequence[str]) -> dict[str, float]:
    """Seconds and peak megabytes of a command that must succeed.

    Raises RuntimeError with the end of what it said if it doesn't, or if the peak is no more
    than this process's own: a child begins with its parent's peak, so that is not its own.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=kept | {"PYTHONPATH": str(folder)},
            stdout=said, stderr=subprocess.STDOUT,
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        if process.returncode:
            raise RuntimeError(f"{shlex.join(command)} failed:\n{said.read()[-2000:]}")
    peak = usage.ru_maxrss / 1e6 if sys.platform == "darwin" else usage.ru_maxrss * 1024 / 1e6
    if peak <= 1.05 * timing.megabytes():
        raise RuntimeError(f"{command[0]}: its peak memory is hidden by this process's own")
    return {"seconds": round(seconds, 3), "megabytes": round(peak, 1)}


def together(builds: Sequence[dict]) -> dict[str, list]:
    """Runs of the same: a list for each measure."""
    return {name: [one[name] for one in builds] for name in builds[0]}


class Content(HTMLParser):
    """Counts what a page shows of a notebook, whatever theme it is in."""

    def __init__(self, page: str):
        super().__init__()
        self.counts = {"headings": 0, "pictures": 0, "cells": 0}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        classes = (given.get("class") or "").split()
        self.counts["headings"] += tag in {"h2", "h3"}
        self.counts["pictures"] += tag == "img" and "_images/" in (given.get("src") or "")
        self.counts["cells"] += tag == "div" and "cell_input" in classes


def content(html: Path, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """{notebook: what its page shows}."""
    pages = {name: (html / "notebooks" / f"{name}.html").read_text("utf-8") for name in names}
    return {name: Content(page).counts for name, page in pages.items()}


def require_same(found: dict, expected: dict, what: str) -> None:
    """Raises AssertionError naming the first page that shows something else."""
    for name, counts in expected.items():
        if found[name] != counts or not counts["cells"]:
            raise AssertionError(f"{what}: {name} shows {found[name]}, not {counts}")


# --- growth ------------------------------------------------------------------------------


def run(quick: bool) -> dict:
    """Time and memory of whole builds of books with several copies of every notebook."""
    names = QUICK[:1] if quick else notebooks()
    times, runs = (TIMES[:3], 1) if quick else (TIMES, RUNS)
    found = {n: [] for n in times}
    for _ in range(runs):  # in turn, so that a busy neighbour slows all
        for n in times:
            with tempfile.TemporaryDirectory() as temporary:
                folder = only(copy_book(Path(temporary) / "book"), names, n)
                found[n].append(build(folder, LENIENT))
                html = folder / "_build" / "html"
                once = content(html, names)
                for copy in range(1, n):
                    copies = content(html, [copied(name, copy) for name in names])
                    originals = {copied(name, copy): once[name] for name in names}
                    require_same(copies, originals, f"copy {copy}")
    measured = [together(found[n]) for n in times]
    return {"notebooks": [n * len(names) for n in times]} | {
        name: [one[name] for one in measured] for name in ("seconds", "megabytes")
    }


# --- the page ----------------------------------------------------------------------------


def page(results: dict) -> str:
    from benchmarks.page import middle, number, table

    sizes = results["notebooks"]
    measured = zip(sizes, results["seconds"], results["megabytes"], strict=True)
    rows = [[str(n), *map(middle, both)] for n, *both in measured]
    grown = {}
    for name in ("seconds", "megabytes"):
        medians = [statistics.median(values) for values in results[name]]
        more = (medians[-1] - medians[0]) / (sizes[-1] - sizes[0])
        grown[name] = (*map(number, timing.exponent(sizes, medians)), number(more))
    (time, time_se, seconds), (memory, memory_se, megabytes) = grown.values()
    return f"""## Builds of a larger book

The same book with 1, 2, 4, … copies of its notebooks and no other pages, built whole: seconds on
the clock, and the peak memory of the build's largest process.

{table(["notebooks", "seconds", "MB"], rows)}
![](builds)

Time grows as the number of notebooks to the power {time} ± {time_se}, memory to the power
{memory} ± {memory_se} (a line through logarithms, with its standard error). From the smallest
book to the largest, a further notebook takes {seconds} s and {megabytes} MB.
"""


def figures(results: dict) -> dict:
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    fig, axes = plt.subplots(1, 2, figsize=(8, 3.2))
    for ax, name, label in zip(axes, ("seconds", "megabytes"), ("seconds", "peak memory (MB)"),
                               strict=True):
        for run in zip(*results[name], strict=True):
            ax.plot(results["notebooks"], run, "o", color="grey", alpha=0.6)
        medians = [statistics.median(values) for values in results[name]]
        ax.plot(results["notebooks"], medians, label="median")
        ax.set(xlabel="notebooks", ylabel=label, xscale="log", yscale="log")
        ax.set_xticks(results["notebooks"], map(str, results["notebooks"]))
        ax.xaxis.set_minor_locator(ticker.NullLocator())
        for at in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
            at(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        ax.legend()
    return {"builds": fig}
