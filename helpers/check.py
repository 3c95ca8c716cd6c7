"""Turn a sentence into a test."""

import numpy as np


def check(claim: str, ok: bool) -> None:
    """Print the claim if it holds; raise otherwise, so that a cell can't state what isn't so.

    claim  a sentence about what was measured
    ok     one truth value: a bool, also NumPy's or torch's

    Raises AssertionError if ok is false, TypeError if ok is no truth value (a number, say,
    which would pass whenever it isn't 0).
    """
    value = np.asarray(ok)
    if value.dtype != bool or value.ndim:
        raise TypeError(f"check: ok must be one True or False, got {ok!r}")
    if not value:
        raise AssertionError(f"This claim does not hold: {claim}")
    print(f"✓ {claim}")


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
