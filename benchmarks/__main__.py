"""Measure everything in one run and write the page: ``make bench``.

    python -m benchmarks [--quick] [stage ...]        (default: every stage)

Each stage runs in a process of its own. What is finished is kept in _build/bench as it comes, so
the run can be stopped by Ctrl-C, and the same command goes on. At the end the results go to
benchmarks/results.json, the page to book/benchmarks.md, its pictures to book/_static/benchmarks.

``--quick`` runs the same code at small sizes, to see that nothing is broken, and writes to
_build/bench-quick alone. A stage that is named is measured again; the page is written when all
stages are there.
"""

import hashlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import ROOT, install, machine
from benchmarks.page import PAGE, STAGES, write

RESULTS = Path("benchmarks/results.json")
WITH_PEERS = {"training"}  # runs in the environment of the peers
DECIDES = ["Makefile", "_config.yml", "_toc.yml", "requirements.lock", "pyproject.toml",
           "benchmarks/*.py", "grader/*.py", "helpers/*.py", "tools/*.py", "notebooks/*.ipynb",
           "homework/source/*/*.ipynb", "book/*.md"]
CHILD = "import sys; from benchmarks import __main__; __main__.measure(*sys.argv[1:])"
NOT_INSTALLED = "not installed; make bench installs it"


def measure(stage: str, path: str, quick: str) -> None:
    """One stage, in this process."""
    stopped = catch_signals()
    begun, start = machine.moment(), time.perf_counter()
    try:
        results = importlib.import_module(f"benchmarks.{stage}").run(bool(quick))
    except BaseException:
        if not stopped:
            raise
        # Without a traceback: the parent says what there is to say. Whatever was interrupted may
        # have made another error of it, as nbclient does.
        sys.exit(130)
    found = begun | {
        "seconds": round(time.perf_counter() - start, 1),
        "versions": machine.versions(),
        "results": results,
    }
    new = Path(path).with_suffix(".new")
    new.write_text(json.dumps(found), "utf-8")
    new.replace(path)


def run(stages: Sequence[str], quick: bool, kept: Path, root: Path = ROOT) -> dict | None:
    """Measure what isn't kept; the results, or None if stages that weren't named are missing.

    Raises RuntimeError naming the stage that failed.
    """
    kept.mkdir(parents=True, exist_ok=True)
    peers, python = _peers(quick, kept)
    paths = {stage: kept / f"{stage}-{_digest(peers)}.json" for stage in STAGES}
    for stage in stages:
        paths[stage].unlink(missing_ok=True)
    for stage in stages or STAGES:
        if paths[stage].is_file():
            print(f"{stage}: kept from before", flush=True)
            continue
        print(f"{stage} …", end=" ", flush=True)
        executable = python if stage in WITH_PEERS else sys.executable
        command = [executable, "-c", CHILD, stage, paths[stage], "quick" if quick else ""]
        _child(command, root, {install.REASONS: json.dumps(peers)})
        print(f"{json.loads(paths[stage].read_text('utf-8'))['seconds']:.0f} s", flush=True)
    if missing := [stage for stage in STAGES if not paths[stage].is_file()]:
        print(f"The page needs {', '.join(missing)}, too.")
        return None
    found = {stage: json.loads(path.read_text("utf-8")) for stage, path in paths.items()}
    return {"quick": quick, "machine": machine.machine(), "peers": peers, "stages": found}


def _peers(quick: bool, kept: Path) -> tuple[dict[str, str], str]:
    """{peer: why it is absent, or ''}, and the Python that has those that aren't."""
    needs = install.peers()
    if not quick:
        environment = kept / f"python{sys.version_info.major}.{sys.version_info.minor}"
        return install.install(environment, needs), str(install.interpreter(environment))
    names = [install.name(need) for need in needs]
    there = machine.versions()
    return {name: "" if name in there else NOT_INSTALLED for name in names}, sys.executable


def _child(command: Sequence, root: Path, more: dict[str, str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(root), "TQDM_DISABLE": "1"} | more
    process = subprocess.Popen(command, cwd=root, env=environment)
    try:
        if process.wait():
            raise RuntimeError(f"{command[3]} failed, and so there is no page")
    finally:  # Ctrl-C in a terminal reaches the child, too; a kill of this process doesn't
        process.terminate()
        process.wait()


def catch_signals() -> list[int]:
    """Ctrl-C and a kill end this process alike, once: nothing disturbs it while it cleans up.

    Returns a list that gets the number of the signal that comes.
    """
    stopped = []

    def stop(number, _):
        stopped.append(number)
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, stop)
    return stopped


def _digest(peers: dict) -> str:
    """Names all that decides a result, so that no result of something else is taken."""
    files = sorted(path for pattern in DECIDES for path in ROOT.glob(pattern))
    digest = hashlib.sha256(json.dumps([peers, machine.machine(), machine.versions()]).encode())
    for path in files:
        if path != ROOT / PAGE:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def as_text(found: dict) -> str:
    """JSON with the innermost lists and objects on one line each."""
    text = json.dumps(found, indent=1, ensure_ascii=False)
    return re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda m: " ".join(m.group().split()), text) + "\n"


def main(arguments: Sequence[str]) -> int:
    quick, stages = "--quick" in arguments, [a for a in arguments if a != "--quick"]
    if unknown := [name for name in stages if name not in STAGES]:
        print(f"there is no stage {unknown[0]}; there are {', '.join(STAGES)}", file=sys.stderr)
        return 2
    kept = ROOT / "_build" / ("bench-quick" if quick else "bench")
    written = kept if quick else ROOT
    try:
        found = run(stages, quick, kept)
    except KeyboardInterrupt:
        print(f"\nStopped. What is finished is kept in {os.path.relpath(kept)}; the same command "
              "goes on from there.", file=sys.stderr)
        return 130
    except RuntimeError as error:
        print(f"make bench: {error}", file=sys.stderr)
        return 1
    if found:
        publish(found, written)
        for path in kept.glob("*.json"):  # the next run measures anew
            path.unlink()
        print(f"wrote {os.path.relpath(written / RESULTS)} and {os.path.relpath(written / PAGE)}")
    return 0


def publish(found: dict, folder: Path) -> None:
    """The results, the page and its pictures, under a folder."""
    from tools.notebooks import write_whole

    (folder / RESULTS).parent.mkdir(parents=True, exist_ok=True)
    write(found, folder)
    write_whole(folder / RESULTS, as_text(found))


if __name__ == "__main__":
    catch_signals()
    sys.exit(main(sys.argv[1:]))
