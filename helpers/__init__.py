"""Helpers that the notebooks of *Regularization, Measured* share.

Nothing happens on import. A notebook begins with ``setup()`` and imports what it needs.
"""

from helpers.check import check, close
from helpers.setup import setup

__all__ = ["check", "checkup", "close", "setup"]


def __getattr__(name: str):
    """``helpers.checkup``, fetched when it is asked for: it needs torch, which loads slowly."""
    if name == "checkup":
        from helpers.inspection import checkup

        return checkup
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
