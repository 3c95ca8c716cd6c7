"""The book itself: running its notebooks, checking them, building it, and opening its pages;
next to a plain default Jupyter Book of the same notebooks.

Everything happens in copies in a temporary folder. Times are wall clock.
"""

import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import browser
from benchmarks.builds import (
    DEFAULT,
    LENIENT,
    MAKE,
    QUICK,
    build,
    content,
    copy_book,
    notebooks,
    only,
    require_same,
    together,
    write_toc,
)
from benchmarks.kernel import run_notebook

RUNS, CHECKS, BUILDS, LOADS = 2, 2, 3, 3
KINDS = ("full", "unchanged", "one page changed")
# Runs before the first cell: adds up the seconds inside import statements, wherever they stand.
WATCH = """
def _watch():
    import builtins, time
    plain, inside, builtins._import_seconds = builtins.__import__, [], 0.0
    def timed(*args, **kwargs):
        if inside:
            return plain(*args, **kwargs)
        inside.append(True)
        start = time.perf_counter()
        try:
            return plain(*args, **kwargs)
        finally:
            builtins._import_seconds += time.perf_counter() - start
            inside.clear()
    builtins.__import__ = timed
_watch()
"""
TELL = "print(__import__('builtins')._import_seconds)"
PLAIN = {  # the two lines of Jupyter Book's own example that this book must change
    r"(?m)^title: .*$": "title: Plain",
    r"(?m)^( *execute_notebooks:) .*$": r"\1 off",
}


def run(quick: bool) -> dict:
    runs, checks, building, loads = (1, 1, 1, 1) if quick else (RUNS, CHECKS, BUILDS, LOADS)
    with tempfile.TemporaryDirectory() as temporary:
        ours, plain = Path(temporary) / "ours", Path(temporary) / "plain"
        names = QUICK if quick else notebooks()
        copy_book(ours)
        if quick:
            only(ours, names)
        default_book(plain, ours, names)
        commands = {ours: LENIENT if quick else MAKE, plain: DEFAULT}
        return {
            "notebooks": execute(ours, names[:1] if quick else names, runs),
            "nbval": together([nbval(ours, names[:1] if quick else names, 0 if quick else 2)
                               for _ in range(checks)]),
            "builds": builds(commands, names, building, KINDS[::2] if quick else KINDS),
            "built": {folder.name: len(listed(folder)) for folder in commands},
            "pages": pages(ours, plain, loads),
        }


# --- running -----------------------------------------------------------------------------


def execute(folder: Path, names: Sequence[str], runs: int) -> dict:
    """{notebook: its seconds in a fresh kernel, and those of them spent importing}."""
    found = {name: [] for name in names}
    for _ in range(runs):
        for name in names:
            found[name].append(execute_one(folder / "notebooks" / f"{name}.ipynb"))
    return {name: together(times) for name, times in found.items()}


def execute_one(path: Path) -> dict[str, float]:
    """From the start of the kernel to its end. Raises what nbclient raises if a cell does."""
    import nbformat

    nb = nbformat.read(path, as_version=4)
    first, last = (nbformat.v4.new_code_cell(code) for code in (WATCH, TELL))
    nb.cells = [first, *nb.cells, last]
    start = time.perf_counter()
    run_notebook(nb, path.parent, timeout=600)
    seconds = time.perf_counter() - start
    importing = float(last.outputs[0].text)
    if not 0 < importing < seconds:
        raise AssertionError(f"{path.name}: {importing} s of imports in {seconds} s")
    return {"seconds": round(seconds, 3), "importing": round(importing, 3)}


def nbval(folder: Path, names: Sequence[str], workers: int) -> dict:
    """Seconds to compare every output of the notebooks with a fresh run, as `make test` does.

    Raises RuntimeError if one differs: what is wrong has no speed.
    """
    paths = [f"notebooks/{name}.ipynb" for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "--dist", "loadfile",
               "-p", "no:cacheprovider", *paths]
    start = time.perf_counter()
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    passed = re.search(r"(\d+) passed", said.stdout)
    if said.returncode or not passed:
        raise RuntimeError(f"nbval found differences:\n{said.stdout[-2000:]}{said.stderr[-500:]}")
    return {"seconds": round(seconds, 2), "cells": int(passed.group(1))}


# --- building ----------------------------------------------------------------------------


def default_book(folder: Path, ours: Path, names: Sequence[str]) -> None:
    """The notebooks with the settings of Jupyter Book's own example, nothing executed."""
    import jupyter_book

    example = Path(jupyter_book.__file__).parent / "book_template"
    folder.mkdir()
    for name in ("logo.png", "references.bib"):
        shutil.copy2(example / name, folder / name)
    settings = (example / "_config.yml").read_text("utf-8")
    for old, new in PLAIN.items():
        settings, count = re.subn(old, new, settings)
        if count != 1:
            raise RuntimeError(f"Jupyter Book's example has {count} lines like {old}")
    (folder / "_config.yml").write_text(settings, "utf-8")
    (folder / "notebooks").mkdir()
    for name in names:
        shutil.copy2(ours / "notebooks" / f"{name}.ipynb", folder / "notebooks")
    write_toc(folder, [f"notebooks/{name}" for name in names])


def builds(
    commands: dict[Path, Sequence[str]], names: Sequence[str], runs: int, kinds: Sequence[str]
) -> dict:
    """Each book built whole, again with nothing changed, and after a change of one page."""
    found = {folder.name: {kind: [] for kind in kinds} for folder in commands}
    for number in range(runs):
        for folder, command in commands.items():  # in turn, so that a busy neighbour slows all
            shutil.rmtree(folder / "_build", ignore_errors=True)
            for kind in kinds:
                if kind == "one page changed":
                    change(folder, names[0], f"Changed {number}")
                found[folder.name][kind].append(build(folder, command))
            page = (folder / "_build" / "html" / "notebooks" / f"{names[0]}.html")
            if f"Changed {number}" not in page.read_text("utf-8"):
                raise AssertionError(f"{folder.name}: the build missed the change")
    ours, plain = (content(folder / "_build" / "html", names) for folder in commands)
    require_same(plain, ours, "the default book")
    return {
        book: {kind: together(some) for kind, some in kinds.items()}
        for book, kinds in found.items()
    }


def listed(folder: Path) -> list[str]:
    """The pages of a book, in order."""
    return re.findall(r"(?:file|root): (\S+)", (folder / "_toc.yml").read_text("utf-8"))


def change(folder: Path, name: str, words: str) -> None:
    """Add words to the first cell of a notebook, which is prose."""
    path = folder / "notebooks" / f"{name}.ipynb"
    nb = json.loads(path.read_text("utf-8"))
    nb["cells"][0]["source"] = "".join(nb["cells"][0]["source"]) + f"\n\n{words}\n"
    path.write_text(json.dumps(nb), "utf-8")


# --- opening -----------------------------------------------------------------------------


def pages(ours: Path, plain: Path, loads: int) -> dict:
    """What `browser.visit` measures on all pages of both books."""
    html = {
        folder.name: (folder / "_build" / "html", [f"{page}.html" for page in listed(folder)])
        for folder in (ours, plain)
    }
    return browser.visit(html, loads)


# --- the page ----------------------------------------------------------------------------


def page(results: dict) -> str:
    return "\n".join([
        "## The book itself\n",
        _running(results),
        _building(results),
        _opening(results["pages"]),
    ])


def _running(results: dict) -> str:
    from benchmarks.page import middle, number, table

    measured = results["notebooks"]
    rows = [
        [f"`{name}`", middle(times["seconds"]), middle(times["importing"])]
        for name, times in measured.items()
    ]
    every = {
        kind: [sum(run) for run in zip(*(times[kind] for times in measured.values()), strict=True)]
        for kind in ("seconds", "importing")
    }
    rows.append(["all, one after the other", *map(middle, every.values())])
    share = statistics.median(every["importing"]) / statistics.median(every["seconds"])
    nbval = results["nbval"]
    return f"""### Running the notebooks

Each runs from top to bottom in a fresh kernel: seconds from the start of the kernel to its end.
Importing is the time inside `import` statements, wherever in the notebook they stand.

{table(["notebook", "seconds", "of them importing"], rows)}
![](book_notebooks)

{number(100 * share)} % of the time goes into importing. Comparing every output with a fresh run
(nbval, {nbval["cells"][0]} cells, notebooks side by side in two processes as in `make test`) takes
{middle(nbval["seconds"])} seconds.
"""


def _building(results: dict) -> str:
    from benchmarks.page import middle, number, table

    ours, plain, built = results["builds"]["ours"], results["builds"]["plain"], results["built"]
    rows = [
        [kind, *(middle(book[kind][m]) for book in (ours, plain) for m in ("seconds", "megabytes"))]
        for kind in ours
    ]
    full, default = (statistics.median(book["full"]["seconds"]) for book in (ours, plain))
    return f"""### Building

`make book`, against a default Jupyter Book of the same notebooks: `jupyter-book build` with the
settings of Jupyter Book's own example, and nothing executed. Both show the same headings, cells and
pictures of each notebook. This book has {built["ours"]} pages, the default one {built["plain"]}.
Memory is the peak of the build's largest process.

{table(["build", "seconds", "MB", "default: seconds", "default: MB"], rows)}
A full build takes {number(full / default)} times the time of the default one, and per page
{number(full / built["ours"] / default * built["plain"])} times.
"""


def _opening(pages: dict) -> str:
    from benchmarks.page import middle, number, table

    title = "### Opening the pages\n\n"
    if "absent" in pages:
        return f"{title}Absent: {pages['absent']}.\n"
    ours, plain = pages["books"]["ours"], pages["books"]["plain"]

    def cells(measured):
        if measured is None:
            return ["", "", ""]
        return [number(measured["first"] / 1000), number(measured["next"] / 1000),
                middle(measured["paint"])]

    rows = [
        [f"`{Path(page).stem}`", *cells(measured), *cells(plain.get(page))]
        for page, measured in ours.items()
    ]
    medians = {
        (book, what): number(statistics.median(
            statistics.median(m[what]) if what == "paint" else m[what] / 1000
            for page, m in measured.items() if page in plain))
        for book, measured in pages["books"].items() for what in ("first", "next", "paint")
    }
    head = ["page", "kB", "next: kB", "paint: ms", "default: kB", "next: kB", "paint: ms"]
    return f"""{title}In {pages["browser"]}, from a server on this machine that compresses text, as
servers do. The first number is what a first visit transfers; *next*, what it transfers after a
visit to another page of the same book; *paint*, how long after the start of a first visit the first
text or picture is there. No time on a network is in it.

{table(head, rows)}
![](book_pages)

Over the notebooks' pages, the median first visit transfers {medians["ours", "first"]} kB here and
{medians["plain", "first"]} kB in the default book, a next one {medians["ours", "next"]} and
{medians["plain", "next"]} kB, and the first paint comes after {medians["ours", "paint"]} and
{medians["plain", "paint"]} ms. {_elsewhere("This book", ours)}
{_elsewhere("The default book", plain)}
"""


def _elsewhere(book: str, measured: dict) -> str:
    """What a book wants from other hosts."""
    hosts = {}
    for page in measured.values():
        for host, count in page["elsewhere"].items():
            hosts.setdefault(host, []).append(count)
    if not hosts:
        return f"{book} asks no other host for anything."
    asked = " and ".join(
        f"{host} for {sum(counts)} file{'s' if sum(counts) > 1 else ''} "
        f"(on {len(counts)} of {len(measured)} pages)" for host, counts in hosts.items()
    )
    return f"{book} asks {asked}; here nobody answers, so neither their bytes nor their time count."


def figures(results: dict) -> dict:
    from matplotlib import pyplot as plt

    measured = results["notebooks"]
    fig, ax = plt.subplots(figsize=(6.4, 1.2 + 0.26 * len(measured)))
    for kind, label, marker in (("seconds", "everything", "o"), ("importing", "importing", "s")):
        medians = [statistics.median(times[kind]) for times in measured.values()]
        ax.plot(medians, range(len(medians)), marker, linestyle="none", label=label)
    _names(ax, measured, "notebook")
    _from_zero(ax, "seconds")
    ax.legend()
    found = {"book_notebooks": fig}
    if "books" in results["pages"]:
        found["book_pages"] = _pages_figure(results["pages"]["books"])
    return found


def _pages_figure(books: dict):
    from matplotlib import pyplot as plt

    pages = list(books["ours"])
    fig, axes = plt.subplots(1, 2, figsize=(8, 1.2 + 0.26 * len(pages)), sharey=True)
    for book, label, marker in (("ours", "this book", "o"), ("plain", "default", "s")):
        measured = books[book]
        at = [pages.index(page) for page in measured]
        axes[0].plot([m["first"] / 1000 for m in measured.values()], at, marker,
                     linestyle="none", label=label)
        axes[1].plot([statistics.median(m["paint"]) for m in measured.values()], at, marker,
                     linestyle="none", label=label)
    axes[0].margins(y=0.05)
    _names(axes[0], [Path(page).stem for page in pages], "page")
    _from_zero(axes[0], "first visit (kB)")
    _from_zero(axes[1], "first paint (ms)")
    axes[0].legend()
    return fig


def _from_zero(ax, label: str) -> None:
    largest = max(max(line.get_xdata()) for line in ax.lines)
    ax.set(xlabel=label, xlim=(0, 1.08 * largest))


def _names(ax, names, what: str) -> None:
    ax.set_yticks(range(len(names)), list(names))
    ax.invert_yaxis()
    ax.set_ylabel(what)
