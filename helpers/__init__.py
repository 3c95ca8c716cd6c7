"""Helpers that the notebooks of *Regularization, Measured* share.

Nothing happens on import. A notebook begins with ``setup()`` and imports what it needs.
"""

from helpers.check import check, close
from helpers.setup import setup

__all__ = ["check", "close", "setup"]
