"""Find the submissions in a folder or in a zip: nbgrader's layout, Moodle's, Canvas's, plain files.

    <student>/<assignment>/<anything>.ipynb                        nbgrader
    <name>_<number>_assignsubmission_file…/<anything>.ipynb        Moodle (or in one file name)
    <name>_<number>_<number>_<anything>.ipynb                      Canvas (also with LATE)
    <student>/<anything>.ipynb, <student>_<assignment>.ipynb       plain

Nothing of a zip is written outside of the folder that it is unpacked into, links are not
followed, and what is too large, or neither a notebook nor a student's own zip, is left packed.
"""

import hashlib
import os
import re
import stat
import unicodedata
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from grader.rebuild import LARGEST

FILES, TOTAL = 20_000, 4_000_000_000  # of a zip: number, bytes
FILES_INSIDE, TOTAL_INSIDE = 200, 100_000_000  # of a student's zip in it
LEADS_OUT = "its name leads out of the zip"
IGNORED = re.compile(
    r"(^|/)(__MACOSX|\.ipynb_checkpoints|\.[^./][^/]*|timestamp\.txt|Thumbs\.db)(/|$)"
)
MOODLE = re.compile(
    r"(?P<student>[^/]+?)_(?P<id>\d+)_assignsubmission_(file|onlinetext)_?(?P<rest>.*)"
)
CANVAS = re.compile(r"(?P<student>[^_/]+)_(LATE_)?(?P<id>\d+)_\d+_(?P<rest>.*)")


class Submission(NamedTuple):
    student: str
    assignment: str
    path: Path
    name: str  # as it was handed in


class Refused(NamedTuple):
    """A file that is not graded, and why. The student and assignment may be unknown: ''."""

    student: str
    assignment: str
    file: str
    reason: str


def collect(
    place: Path, assignments: Iterable[str], room: Path, assignment: str = ""
) -> tuple[list[Submission], list[Refused]]:
    """Submissions and refused files of a folder or zip.

    assignments  the names that there are;  assignment  the one that all files are of, if said
    room         a folder to unpack into
    """
    files, refused = _files(place, room)
    known, found = sorted(assignments, key=len, reverse=True), {}
    for name, path in sorted(files.items()):
        student, which = identify(name, known, assignment)
        if not name.lower().endswith(".ipynb"):
            refused.append(Refused(student, which, name, "this is no notebook (.ipynb)"))
        elif not student:
            refused.append(Refused("", which, name, "no student can be read from the file's name"))
        elif not which:
            wanted = ", ".join(known)
            reason = f"its name has no assignment in it ({wanted}), and ASSIGNMENT= says none"
            refused.append(Refused(student, "", name, reason))
        else:
            found.setdefault((student, which), []).append((_version(name), name, path))
    refused = [
        one if one.student or one.reason == LEADS_OUT else
        Refused(*identify(one.file, known, assignment), one.file, one.reason) for one in refused
    ]  # fmt: skip
    submissions = []
    for (student, which), versions in sorted(found.items()):
        *older, (_, last, path) = sorted(versions)
        submissions.append(Submission(student, which, path, last))
        reason = f"another notebook of the same student was graded: {last}"
        refused += [Refused(student, which, name, reason) for _, name, _ in older]
    return submissions, refused


def _version(name: str) -> int:
    """Canvas numbers what is handed in again: overfitting-2.ipynb."""
    found = re.search(r"-(\d{1,9})\.ipynb$", name)
    return int(found[1]) if found else 0


def identify(name: str, known: list[str], assignment: str = "") -> tuple[str, str]:
    """(student, assignment) as far as a path says them, '' where it doesn't."""
    parts = list(PurePosixPath(name).parts)
    which = assignment or _named(name, known) or (known[0] if len(known) == 1 else "")
    for part in parts:
        for layout in (MOODLE, CANVAS):
            if found := layout.fullmatch(part):
                return clean(f"{found['student']}_{found['id']}"), which
    folders = [part for part in parts[:-1] if part not in known and part != "submitted"]
    if folders:
        return clean(folders[0]), which
    stem = PurePosixPath(parts[-1]).stem
    for one in known:
        stem = re.sub(rf"(^|[-_ ]){re.escape(one)}($|[-_ ])", r"\1", stem, flags=re.IGNORECASE)
    return clean(stem.strip("-_ ")), which


def _named(name: str, known: list[str]) -> str:
    return next((one for one in known if one.lower() in name.lower()), "")


def clean(student: str) -> str:
    """A name that can be a file's name anywhere, still readable; two names never become one."""
    name = unicodedata.normalize("NFC", student).strip()
    safe = re.sub(r"[^\w.,'@+ -]|[\x00-\x1f]", "_", name).strip(". ")[:80]
    if safe == name or not name:
        return safe
    return f"{safe}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:6]}"


# Files --------------------------------------------------------------------------------------


def _files(place: Path, room: Path) -> tuple[dict[str, Path], list[Refused]]:
    """{path inside the place: file}, and what is refused."""
    if not place.exists():
        raise FileNotFoundError(f"there is no folder or zip {place}")
    files, refused = {}, []
    if place.is_dir():
        _walk(place, files, refused)
    elif zipfile.is_zipfile(place):
        _unpack(place, room, "", files, refused, FILES, TOTAL)
    elif place.suffix == ".ipynb":
        files[place.name] = place
    else:
        raise ValueError(f"{place} is no folder, no zip and no notebook")
    for name, path in list(files.items()):
        if name.lower().endswith(".zip"):  # a student's zip with the notebook in it
            del files[name]
            if zipfile.is_zipfile(path):
                inside = name[: -len(".zip")] + "/"
                _unpack(path, room, inside, files, refused, FILES_INSIDE, TOTAL_INSIDE)
            else:
                refused.append(Refused("", "", name, "this is no zip, whatever its name says"))
    return files, refused


def _walk(place: Path, files: dict, refused: list) -> None:
    for folder, inner, names in os.walk(place):  # does not follow links
        for one in [*inner, *names]:
            path = Path(folder, one)
            # A name that is no UTF-8 can't be written into a table.
            name = os.fsencode(path.relative_to(place).as_posix()).decode("utf-8", "replace")
            if IGNORED.search(name):
                continue
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                refused.append(Refused("", "", name, "this is a link"))
            elif not os.access(path, os.R_OK):
                refused.append(Refused("", "", name, "you have no right to read this"))
            elif stat.S_ISREG(mode):
                files[name] = path
            elif not stat.S_ISDIR(mode):
                refused.append(Refused("", "", name, "this is no ordinary file"))


def _unpack(
    archive: Path, room: Path, prefix: str, files: dict, refused: list, most: int, total: int
) -> None:
    """The notebooks and zips of a zip, each in a file of its own whose name we choose."""
    with open(archive, "rb") as file:
        room = room / hashlib.file_digest(file, "sha256").hexdigest()[:16]
    room.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as zipped:
            for number, entry in enumerate(zipped.infolist()):
                name, kind = prefix + entry.filename, PurePosixPath(entry.filename).suffix.lower()
                if entry.is_dir() or IGNORED.search(entry.filename):
                    continue
                path, reason = room / f"{number}{kind[:8]}", _unfit(entry)
                if not reason and (number >= most or total < 0):
                    reason = "the zip is too large"
                if not reason and kind in (".ipynb", ".zip"):
                    content, reason = _content(zipped, entry)
                    path.write_bytes(content)
                    total -= len(content)
                if reason:
                    refused.append(Refused("", "", name, reason))
                else:
                    files[name] = path
    except Exception as error:  # of what zipfile raises for a damaged zip there is no list
        what = str(error) if isinstance(error, OSError) else "this zip is damaged"
        refused.append(Refused("", "", prefix or archive.name, what))


def _content(zipped, entry) -> tuple[bytes, str]:
    try:
        with zipped.open(entry) as file:
            return file.read(LARGEST + 1)[:LARGEST], ""
    except Exception:  # see above
        return b"", "this part of the zip is damaged"


def _unfit(entry: zipfile.ZipInfo) -> str:
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", entry.filename):
        return LEADS_OUT
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "this is a link"
    if entry.flag_bits & 1:
        return "this is encrypted"
    if entry.file_size > LARGEST:
        return f"this is larger than {LARGEST // 1_000_000} MB"
    return ""
