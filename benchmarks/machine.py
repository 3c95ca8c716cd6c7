"""What the page says of the machine, and of the programs that took part."""

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = [
    "torch", "numpy", "scipy", "scikit-learn", "joblib", "d2l", "lightning", "skorch",
    "jupyter-book", "Sphinx", "nbclient", "nbval", "playwright",
]


def machine() -> dict:
    """What doesn't change during a run. It names no host, no user and no path."""
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
    }


def processor() -> str:
    """The processor's own name, or its kind where the system doesn't tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()


def cores() -> int:
    """How many of them this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def moment() -> dict:
    """When a stage began, and how busy the machine was then: processes that wanted a core."""
    return {"date": datetime.date.today().isoformat(), "load": round(os.getloadavg()[0], 2)}


def versions() -> dict[str, str]:
    """Python's and those of the packages that this environment has."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass  # peers that are absent are named with their reason
    return found
