"""Turn a sentence into a test."""

import numpy as np


class Finding(int):
    """True or False (Python allows no subclass of bool), and the estimates that decided it."""

    def __new__(cls, outcome: bool, estimates: list):
        self = super().__new__(cls, bool(outcome))
        self.estimates = estimates
        return self

    def __repr__(self) -> str:
        return repr(bool(self))


def check(claim: str, *ok: bool) -> None:
    """Print the claim if it holds; raise otherwise, so that a cell can't state what isn't so.

    claim  a sentence about what was measured
    ok     what must be true for it, one truth value or several: bool, also NumPy's or torch's

    Where a truth value compares the interval of an estimate (``gain.low > 5``), the estimate is
    printed under the claim. What ``all`` and ``and`` make of several such values is a plain
    bool, so give them one by one: ``check("each gains", *(e.low > 0 for e in gains))``.

    Raises AssertionError if one of ok is false, TypeError if there is none, or one that is no
    truth value (a number, say, which would pass whenever it isn't 0).
    """
    if not ok:
        raise TypeError("check: give at least one True or False")
    for one in ok:
        value = np.asarray(bool(one) if isinstance(one, Finding) else one)
        if value.dtype != bool or value.ndim:
            raise TypeError(f"check: ok must be one True or False, got {one!r}")
        if not value:
            raise AssertionError(f"This claim does not hold: {claim}")
    print(f"✓ {claim}")
    for line in _evidence(ok):
        print(f"  {line}")


def _evidence(ok: tuple) -> list[str]:
    """Up to three estimates line by line, of more the smallest and the largest."""
    seen = list(dict.fromkeys(e for one in ok for e in getattr(one, "estimates", ())))
    if len(seen) <= 3:
        return [str(e) for e in seen]
    # Means that differ by rounding are equal on another machine.
    ordered = sorted(seen, key=lambda e: (float(f"{e.mean:.9g}"), e.se))
    count = len(seen)
    return [f"smallest of {count}: {ordered[0]}", f"largest of {count}: {ordered[-1]}"]


def close(a, b, atol: float) -> bool:
    """Is |a − b| ≤ atol for every element? NaN is close to nothing.

    a, b  numbers, arrays or tensors; b has a's shape or is one number
    atol  the largest absolute difference allowed, ≥ 0

    Raises ValueError if the shapes differ or atol is negative.
    """
    a, b = (np.asarray(v.detach() if hasattr(v, "detach") else v) for v in (a, b))
    if not atol >= 0:
        raise ValueError(f"close: atol must be at least 0, got {atol}")
    if b.ndim and a.shape != b.shape:
        raise ValueError(f"close: a has shape {a.shape} and b {b.shape}; they must be equal")
    return bool(np.all(np.abs(a - b) <= atol))
