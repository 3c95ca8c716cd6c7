"""Named streams of random numbers: randomness is an argument.

A stream is named by a seed and a purpose. So the initial weights of seed 3 stay the same
whether or not labels were drawn before them, and settings that share a seed share its noise.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def generator(seed: int, stream: str) -> torch.Generator:
    """The random generator of one seed and one purpose.

    seed    a whole number; stream  what the numbers are for, "batches" say

    Raises TypeError if seed is no whole number.
    """
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed must be a whole number, got {seed!r}")
    digest = hashlib.sha256(f"{int(seed)}/{stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


@contextmanager
def seeded(seed: int, stream: str = "init") -> Iterator[None]:
    """Seed torch's global generator inside the block, and restore it afterwards.

    For code of others that takes no generator: ``with seeded(0): model = nn.Linear(3, 1)``.
    """
    state = torch.get_rng_state()
    torch.set_rng_state(generator(seed, stream).get_state())
    try:
        yield
    finally:
        torch.set_rng_state(state)
