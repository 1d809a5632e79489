"""Ways to damage a file; each gets the file and another one, and returns the damaged bytes."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

ODD_NUMBERS = (0, 1, 2, 7, 255, 256, 0x7FFF, 0xFFFF, 1 << 16, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 63)

Mutation = Callable[[random.Random, bytes, bytes], bytes]


def place(rng: random.Random, content: bytes) -> int:
    """Where to change a file: often in its first bytes or its last, where headers and indices are."""
    reach = rng.choice((64, 600, 1500))
    begin, end = rng.choice(((0, reach), (len(content) - reach, len(content)), (0, len(content)), (0, len(content))))
    return min(len(content) - 1, rng.randrange(max(0, begin), max(1, end)))


def piece(rng: random.Random, content: bytes) -> slice:
    begin = place(rng, content)
    return slice(begin, begin + rng.choice((1, 2, 4, 16, 64, 188, 512, len(content) // 4)))


def byte(rng: random.Random, content: bytes, other: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[place(rng, content)] = rng.randrange(256)
    return bytes(changed)


def flip(rng: random.Random, content: bytes, other: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        changed[place(rng, content)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def ff(rng: random.Random, content: bytes, other: bytes) -> bytes:
    where = piece(rng, content)
    return content[: where.start] + b"\xff" * len(content[where]) + content[where.stop :]


def zero(rng: random.Random, content: bytes, other: bytes) -> bytes:
    where = piece(rng, content)
    return content[: where.start] + bytes(len(content[where])) + content[where.stop :]


def integer(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """An odd number, or one near the file's size, in either order of bytes."""
    code = rng.choice("HIQ")
    number = rng.choice((*ODD_NUMBERS, len(content), len(content) - rng.randrange(64), rng.randrange(1 << 16)))
    packed = struct.pack(rng.choice("<>") + code, number % (1 << 8 * struct.calcsize(code)))
    at = place(rng, content)
    return (content[:at] + packed + content[at + len(packed) :])[: len(content)]


def dup(rng: random.Random, content: bytes, other: bytes) -> bytes:
    where = piece(rng, content)
    return content[: where.stop] + content[where] * rng.choice((1, 1, 3)) + content[where.stop :]


def drop(rng: random.Random, content: bytes, other: bytes) -> bytes:
    where = piece(rng, content)
    return content[: where.start] + content[where.stop :]


def splice(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """A piece of another file, or of this one, over a piece or before it."""
    source = rng.choice((content, other))
    moved, at = source[piece(rng, source)], place(rng, content)
    return content[:at] + moved + content[at + rng.choice((0, len(moved))) :]


def trunc(rng: random.Random, content: bytes, other: bytes) -> bytes:
    return content[: max(1, place(rng, content))]


def head(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """The beginning of another file, or nothing, in place of this one's."""
    length = rng.choice((1, 4, 16, 64, 200))
    return rng.choice((other[:length], b"", rng.randbytes(length))) + content[length:]


def tail(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """Something after the end."""
    return content + rng.choice((rng.randbytes(100), bytes(100), content, other, content[-200:]))


MUTATIONS: dict[str, Mutation] = {
    "byte": byte,
    "flip": flip,
    "ff": ff,
    "zero": zero,
    "int": integer,
    "dup": dup,
    "drop": drop,
    "splice": splice,
    "trunc": trunc,
    "head": head,
    "tail": tail,
}
