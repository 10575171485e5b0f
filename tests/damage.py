"""Damage to files, for tests that it is noticed."""

import random
from collections.abc import Iterator


def damage(whole: bytes) -> Iterator[bytes]:
    """Give 300 copies, in each of which one byte, drawn at random, has changed."""
    draw = random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= draw.randrange(1, 256)
        yield bytes(data)
