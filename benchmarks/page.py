"""From the results to the page: Markdown, and the pictures that it shows.

Nothing is measured here, and no number stands here that a run didn't measure.
"""

import importlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.timing import spread

PAGE, PICTURES = Path("book/benchmarks.md"), Path("book/_static/benchmarks")
STAGES = ("training", "lasso", "growth", "book", "builds", "grading")
PLACE = re.compile(r"^!\[\]\((\w+)\)$", re.MULTILINE)  # where a section wants a picture
HEAD = """(benchmarks-page)=
# Benchmarks

How long does it take with this book's tools, and how long with what you would use instead?
`make bench` measures all of this in one run, on the machine that it runs on, and writes this page.
No number here was written by hand.

A table shows the median of several runs and, in brackets, the lower and the upper quartile.
Contenders run in turn, so that whatever else the machine does slows all of them. What runs on one
thread is given in seconds of processor time; what takes two threads or several processes, and
everything about the book, in seconds on the clock. A run in which the contenders didn't compute
the same thing stops, and writes no page.

## The machine
"""
TRIAL = "A trial at small sizes, to see that everything runs: its times mean nothing."


# --- words and numbers -------------------------------------------------------------------


def number(value: float, digits: int = 3) -> str:
    """Three significant digits, without an exponent; thousands are set apart."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    if abs(rounded) >= 10 ** (digits - 1):
        return f"{rounded:,.0f}".replace(",", "\u202f")
    return f"{value:#.{digits}g}" if abs(value) >= 1e-4 else f"{value:.{digits - 1}e}"


def middle(values: Sequence[float]) -> str:
    """Median, and the quartiles in brackets if there was more than one run.

    A word joiner keeps what is in brackets in one line of a narrow column.
    """
    low, median, high = map(number, spread(values))
    return median if len(values) == 1 else f"{median} ({low}–\u2060{high})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column is a name, the others are numbers."""
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


# --- the page ----------------------------------------------------------------------------


def page(results: dict) -> tuple[str, dict]:
    """The whole page, and {name: figure} of its pictures."""
    from helpers import plots, setup

    setup()
    parts, pictures = [HEAD, TRIAL * results["quick"], _machine(results)], {}
    for name, stage in _stages(results):
        section = importlib.import_module(f"benchmarks.{name}")
        own = section.figures(stage["results"])
        shown = {n: _picture(n, fig, plots.describe(fig)) for n, fig in own.items()}
        text = section.page(stage["results"]).strip()
        placed = set(PLACE.findall(text))
        text = PLACE.sub(lambda match, shown=shown: shown[match[1]], text)
        parts += [text, *(picture for n, picture in shown.items() if n not in placed)]
        pictures |= own
    return "\n\n".join(part.strip() for part in parts if part) + "\n", pictures


def _stages(results: dict) -> Iterator[tuple[str, dict]]:
    return ((name, results["stages"][name]) for name in STAGES if name in results["stages"])


def _picture(name: str, fig, text: str) -> str:
    """What a screen reader says of it is read from what was drawn."""
    width, height = (round(96 * inches) for inches in fig.get_size_inches())
    return "\n".join([
        f"```{{image}} {PICTURES.relative_to('book') / name}.png",
        f":alt: {json.dumps(' '.join(text.split()), ensure_ascii=False)}",
        ":class: measured",
        f":width: {width}px",
        f":height: {height}px",
        "```",
    ])


def _machine(results: dict) -> str:
    machine, stages = results["machine"], dict(_stages(results))
    days = sorted({stage["date"] for stage in stages.values()})
    minutes = sum(stage["seconds"] for stage in stages.values()) / 60
    loads = ", ".join(f"{stage['load']} before {name}" for name, stage in stages.items())
    versions = {}
    for stage in stages.values():
        versions |= stage["versions"]
        if browser := stage["results"].get("pages", {}).get("browser"):
            versions |= dict([browser.split(" ", 1)])
    rows = [
        ["date", " to ".join(dict.fromkeys([days[0], days[-1]]))],
        ["processor", machine["processor"]],
        ["cores", str(machine["cores"])],
        ["memory", f"{machine['memory_gb']} GB"],
        ["system", machine["system"]],
        ["processes that wanted a core", loads],
        ["the run took", f"{number(minutes)} minutes"],
        ["versions", ", ".join(f"{name} {version}" for name, version in versions.items())],
    ]
    absent = [f"{name} is absent: {why}." for name, why in results["peers"].items() if why]
    lines = [":header-rows: 0", ""]
    listed = [f"* - {name}\n  - {value}" for name, value in rows]
    return "\n".join(["```{list-table}", *lines, *listed, "```", "", *absent])


def write(results: dict, folder: Path) -> None:
    """The page and its pictures under a folder, each file whole; pictures of old pages go."""
    import io

    from matplotlib import pyplot as plt

    from tools.notebooks import write_whole

    text, pictures = page(results)
    pictures_at = folder / PICTURES
    pictures_at.mkdir(parents=True, exist_ok=True)
    for name, fig in pictures.items():
        png = io.BytesIO()
        fig.savefig(png, format="png", dpi=144, metadata={"Software": None})
        plt.close(fig)
        new = pictures_at / f".{name}.new"
        new.write_bytes(png.getvalue())
        new.replace(pictures_at / f"{name}.png")
    for old in pictures_at.glob("*.png"):
        if old.stem not in pictures:
            old.unlink()
    write_whole(folder / PAGE, text)
