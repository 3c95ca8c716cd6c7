"""The peers of the group ``bench``, in an environment of their own on top of the locked one.

The new environment sees the packages of the one that makes it, so that only the peers and what
they need beyond the lock are installed, and nothing in the locked environment changes.
"""

import json
import os
import re
import subprocess
import sysconfig
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks import ROOT

LOCKED = "import site; site.addsitedir({!r})\n"  # follows the .pth files there, too
REASONS = "BENCHMARKS_ABSENT"  # in the environment of a stage: what `install` returned
NAME = re.compile(r"[A-Za-z0-9._-]+")


def peers(pyproject: str | None = None) -> list[str]:
    """The requirements of the group."""
    text = pyproject or (ROOT / "pyproject.toml").read_text("utf-8")
    return tomllib.loads(text)["project"]["optional-dependencies"]["bench"]


def install(folder: Path, requirements: Sequence[str], *options: str) -> dict[str, str]:
    """Make the environment if there is none, and install one peer after the other.

    Returns {peer: why it is absent}, with '' for those that are there.
    """
    python = interpreter(folder)
    if not python.exists():
        venv.create(folder, with_pip=True)
    purelib = ask(python, "import sysconfig; print(sysconfig.get_path('purelib'))")
    here = LOCKED.format(sysconfig.get_path("purelib"))
    (Path(purelib) / "locked.pth").write_text(here, "utf-8")  # each time: the project may move
    return {name(need): _install(python, need, options) for need in requirements}


def refused(peer: str) -> str:
    """Why the run that this process is part of could not install a peer; '' if it didn't try."""
    return json.loads(os.environ.get(REASONS, "{}")).get(peer, "")


def name(requirement: str) -> str:
    return NAME.match(requirement).group()


def interpreter(folder: Path) -> Path:
    return folder / "bin" / "python"


def _install(python: Path, requirement: str, options: Sequence[str]) -> str:
    lock = ROOT / "requirements.lock"
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               "--retries", "1", "-c", lock, *options, requirement]
    run = subprocess.run(command, capture_output=True, text=True)
    return "" if run.returncode == 0 else reason(run.stderr)


def reason(said: str) -> str:
    """pip's own reason in one line, without addresses and places on this machine."""
    errors = [line[7:] for line in said.splitlines() if line.startswith("ERROR: ")]
    text = re.sub(r"\S*/\S*/\S*", "…", errors[0] if errors else "pip gave no reason")
    return text if len(text) <= 120 else text[:119] + "…"


def ask(python: Path | str, code: str, **options) -> str:
    """What an interpreter prints."""
    command = [python, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True, **options)
    return run.stdout.strip()
