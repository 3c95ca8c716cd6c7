"""Make what students get, and look for leaks: ``make homework``.

    python -m grader.release [--tidy]

Writes homework/release/<name>.ipynb and <name>.zip for each source, and looks for anything of the
solutions and hidden checks in them, and in the built book if there is one. With --tidy it only
brings the sources into normal form.
"""

import html
import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from grader.assignment import (
    BEGIN_HIDDEN,
    BEGIN_SOLUTION,
    END_HIDDEN,
    END_SOLUTION,
    Assignment,
    role,
    tidy,
)
from tools.notebooks import read, text, write_whole

SOURCE, RELEASE, SITE = Path("homework/source"), Path("homework/release"), Path("_build/html")
NEEDS = "torch\nnumpy\nscikit-learn\nmatplotlib\njupyterlab\n"
TELLING = 16  # characters, without blanks: a shorter line stands anywhere
READ = {".html", ".ipynb", ".js", ".json", ".md", ".py", ".txt", ".inv", ".xml", ".zip"}


def sources(folder: Path = SOURCE) -> list[Path]:
    return sorted(path for path in folder.glob("*/*.ipynb") if path.stem == path.parent.name)


def tidy_file(path: Path) -> None:
    write_whole(path, text(tidy(read(path))))


def files(assignment: Assignment) -> dict[str, bytes]:
    """What is released of an assignment: {name of a file: content}, the same on every machine."""
    notebook = text(assignment.released).encode()
    contents = {f"{assignment.name}.ipynb": notebook, "requirements.txt": NEEDS.encode()}
    return {f"{assignment.name}.ipynb": notebook, f"{assignment.name}.zip": _zip(contents)}


def _zip(contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as zipped:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name)  # dated 1980, so that the bytes are always the same
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            zipped.writestr(entry, content)
    return file.getvalue()


# Leaks --------------------------------------------------------------------------------------


def secrets(assignment: Assignment, public: str = "") -> set[str]:
    """Lines that no student may find, without blanks. ``public`` is text that everybody has."""
    lines = set()
    for cell in assignment.nb.cells:
        hidden = role(cell) == "teacher"
        whole = role(cell) == "person" and BEGIN_SOLUTION not in cell.source
        for line in cell.source.split("\n"):
            if BEGIN_SOLUTION in line or BEGIN_HIDDEN in line:
                hidden = True
            elif END_SOLUTION in line or END_HIDDEN in line:
                hidden = False
            elif hidden or whole:
                lines.add(squeezed(line))
    given = squeezed("\n".join(cell.source for cell in assignment.released.cells) + public)
    return {line for line in lines if len(line) >= TELLING and line not in given}


def squeezed(text: str) -> str:
    """The text without blanks, and without the backslashes that JSON writes."""
    return re.sub(r"\\[nt]|\\(?=\")|\s", "", text)


def leaks(found: set[str], name: str, content: bytes) -> Iterator[str]:
    """One message for each secret line in a file; a zip is opened."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as zipped:
            for entry in zipped.namelist():
                yield from leaks(found, f"{name}: {entry}", zipped.read(entry))
            return
    raw = content.decode("utf-8", "replace")
    # As it is, and as JSON reads it (where letters may be written by number).
    texts = [raw, *_strings(raw)] if name.endswith((".ipynb", ".json")) else [raw]
    if name.endswith(".html"):
        texts.append(html.unescape(re.sub(r"<[^<>]*>", "", raw)))  # as it is read
    told = "".join(squeezed(one) for one in texts)
    yield from (f"{name}: tells {line!r}" for line in sorted(found) if line in told)


def _strings(raw: str) -> Iterator[str]:
    def walk(node):
        if isinstance(node, str):
            yield node
        elif isinstance(node, list):
            yield "".join(item for item in node if isinstance(item, str))
            for item in node:
                yield from walk(item)
        elif isinstance(node, dict):
            for key, value in node.items():
                yield from walk(key)
                yield from walk(value)

    try:
        yield from walk(json.loads(raw))
    except ValueError:
        return


def site_leaks(found: set[str], site: Path) -> Iterator[str]:
    for path in sorted(site.rglob("*")):
        if path.is_file() and path.suffix in READ:
            yield from leaks(found, path.relative_to(site).as_posix(), path.read_bytes())


def chapters(folder: Path = Path("notebooks")) -> str:
    """The text of the book's chapters: what stands there is no secret."""
    return "\n".join(
        cell.source for path in sorted(folder.glob("*.ipynb")) for cell in read(path).cells
    )


def main(arguments: list[str]) -> int:
    for path in sources():
        tidy_file(path)
    if "--tidy" in arguments:
        return 0
    RELEASE.mkdir(parents=True, exist_ok=True)
    public, problems, names = chapters(), [], set()
    for path in sources():
        assignment = Assignment.load(path)
        found = secrets(assignment, public)
        for name, content in files(assignment).items():
            names.add(name)
            problems += leaks(found, name, content)
            if not (RELEASE / name).exists() or (RELEASE / name).read_bytes() != content:
                (RELEASE / name).write_bytes(content)
        if SITE.is_dir():
            problems += site_leaks(found, SITE)
        print(f"{RELEASE}/{assignment.name}.ipynb and .zip, looked through for {len(found)} lines")
    stale = [p for p in RELEASE.iterdir() if p.suffix in (".ipynb", ".zip") and p.name not in names]
    problems += [f"{path} belongs to no source; remove it" for path in stale]
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
