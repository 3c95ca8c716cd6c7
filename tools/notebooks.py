"""Run the notebooks again in place and write them in normal form: ``make notebooks``.

    python -m tools.notebooks [notebook ...]        (default: notebooks/*.ipynb)

Each notebook runs top to bottom in a fresh kernel, with its own folder as the working folder.
A notebook that raises is left as it was. Running twice leaves the same bytes.
"""

import copy
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
METADATA = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
KEPT = ("mystnb", "tags")  # cell metadata that the page or the tests read
AT_ONCE = 2
CELL_SECONDS = 300

READABLE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MADE_BY_MACHINE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){0,3}(-[0-9a-f]{12})?")


def readable(cell_id: str) -> bool:
    """Is this an id that somebody chose (``run-degrees``), not one that Jupyter drew?"""
    return bool(READABLE.fullmatch(cell_id)) and not MADE_BY_MACHINE.fullmatch(cell_id)


def read(path: Path):
    """The notebook in a file, as it is. (nbformat.read would make up ids where they lack.)

    Raises OSError if there is no such file, ValueError if it is no notebook of format 4.
    """
    try:
        nb = nbformat.v4.reads_json(path.read_text(encoding="utf-8"))
        found = [error.message for error in nbformat.validator.iter_validate(nb)]
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"this is no notebook of format 4: {error}") from error
    # A missing id has a better message: see `readable`.
    if found := [message for message in found if "'id'" not in message]:
        raise ValueError(f"this is no notebook of format 4: {found[0]}")
    return nb


def description(cell) -> str | None:
    """What the cell's figure says it shows: the text/plain beside the image, or None."""
    data = (output.get("data", {}) for output in cell.get("outputs", []))
    return next((d.get("text/plain") for d in data if "image/png" in d), None)


def normalise(nb):
    """A copy of a notebook without anything that neither a reader nor a test needs.

    Format 4.5; metadata of the notebook: kernel and language; of a cell: ``tags`` and
    ``mystnb``, where the alt text of a figure is the figure's own description; neighbouring
    outputs of one stream joined.
    """
    new = copy.deepcopy(nb)
    new.nbformat, new.nbformat_minor = 4, 5
    new.metadata = nbformat.from_dict(METADATA)
    for cell in new.cells:
        cell.metadata = nbformat.from_dict(_metadata(cell))
        if "outputs" in cell:
            cell.outputs = _join_streams(cell.outputs)
    return new


def _metadata(cell) -> dict:
    kept = {key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)}
    options = kept.pop("mystnb", {})
    image = _without(options.get("image", {}), "alt")
    if alt := description(cell):
        image["alt"] = alt
    options = {**options, "image": image} if image else _without(options, "image")
    return {**kept, "mystnb": options} if options else kept


def _without(options: dict, name: str) -> dict:
    return {key: value for key, value in options.items() if key != name}


def _join_streams(outputs: list) -> list:
    joined = []
    for output in outputs:
        if joined and output.get("name") and output.get("name") == joined[-1].get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def text(nb) -> str:
    """The notebook as it stands in its file, with one newline at the end."""
    return nbformat.v4.writes_json(nb).rstrip("\n") + "\n"


def write_whole(path: Path, content: str) -> None:
    """Write a file whole or not at all, and not at all if it holds this already."""
    if path.exists() and path.read_bytes() == content.encode():
        return
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(content, encoding="utf-8", newline="\n")
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def execute(path: Path):
    """The notebook after running it top to bottom in a fresh kernel.

    Raises ValueError for a cell without a readable id, RuntimeError naming the cell that
    raised or took too long, and what ``read`` raises.
    """
    nb = read(path)
    _require_readable_ids(nb)
    client = NotebookClient(
        nb,
        timeout=CELL_SECONDS,
        record_timing=False,
        kernel_name=KERNEL["name"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    running = []
    client.on_cell_start = lambda cell, cell_index: running.append(cell["id"])
    try:
        return client.execute(stderr=subprocess.DEVNULL)  # a greeting of the kernel's own
    except (CellControlSignal, DeadKernelError) as error:
        raise RuntimeError(f"cell {running[-1]}: {_summary(error)}") from error


def _require_readable_ids(nb) -> None:
    seen = set()
    for number, cell in enumerate(nb.cells, start=1):
        name = cell.get("id", "")
        if not readable(name) or name in seen:
            raise ValueError(
                f"cell number {number} has the id {name!r}; give it a readable one of its own, "
                "lower-case words joined by hyphens, like run-degrees"
            )
        seen.add(name)


def _summary(error: Exception) -> str:
    if isinstance(error, CellExecutionError):
        return f"{error.ename}: {error.evalue}"
    return str(error).strip().split("\n")[0]


def rerun(path: Path) -> str:
    """Run one notebook and write it; returns '' or a message that says why it was not written."""
    start = time.perf_counter()
    try:
        content = text(normalise(execute(path)))
    except Exception as error:  # whatever it is, the other notebooks go on
        return f"{path}: {error}"
    write_whole(path, content)
    print(f"{path}: {time.perf_counter() - start:.1f} s", flush=True)
    return ""


def main(arguments: list[str]) -> int:
    os.environ["TQDM_DISABLE"] = "1"  # a progress bar is no output; kernels inherit this
    paths = [Path(a) for a in arguments] or sorted(Path("notebooks").glob("*.ipynb"))
    if not paths:
        print("python -m tools.notebooks: there is no notebook in notebooks/", file=sys.stderr)
        return 1
    with ThreadPoolExecutor(AT_ONCE) as pool:
        problems = [problem for problem in pool.map(rerun, paths) if problem]
    for problem in problems:
        print(f"not written: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
