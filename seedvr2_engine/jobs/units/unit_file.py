"""The file of a finished unit: its pictures as the code values that the output's encoder takes, packed without loss.

Layout, integers of 32 bits, little-endian: `SVR2UNIT`; length and text of a header (JSON: version, unit, coding, what
unpacking needs); length and bytes of each picture; 0; length and text of the end (JSON: times and metadata of each
picture). The file's name holds its SHA-256.
"""

from __future__ import annotations

import json
import os
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ...errors import OutputError
from ...output.names import unique_sibling
from ...output.signals import held_signals
from ...output.unfinished import PARTIAL_MARK, system_errors
from ...video import Coding, PictureMetadata
from ...video.lossless import Packer, Unpacker

VERSION = 1
_MAGIC = b"SVR2UNIT"
_STEM = "unit"
_MOST_TEXT_BYTES = 1 << 30
_DIGEST_DIGITS = 32


@dataclass(frozen=True)
class Passed:
    """What goes from a source's frame to the picture made of it, beside the pixels."""

    pts: int
    duration: int
    metadata: PictureMetadata | None = None


@dataclass(frozen=True)
class Stored:
    """The file of a finished unit."""

    path: Path
    frames: int
    size_bytes: int


class DamagedUnitError(OutputError):
    """A unit's file is not what was written."""


def write_unit(folder: Path, number: int, coding: Coding, pictures: Iterable[tuple[torch.Tensor, Passed]]) -> Stored:
    """Write a unit under a name of its own, and rename it when it is whole.

    pictures: uint8 (bytes,) as the coding says, on the CPU. Raises OutputError where the disk is full.
    """
    packer, digest = Packer(coding), sha256()
    passed: list[Passed] = []
    unfinished = unique_sibling(folder / f"{_STEM}-{number:06d}", PARTIAL_MARK, keeps_ending=False)
    with system_errors(unfinished):
        file = unfinished.open("xb")

    def put(data: bytes) -> None:
        with system_errors(unfinished):
            file.write(data)
        digest.update(data)

    try:
        put(_MAGIC)
        put(_text({"version": VERSION, "unit": number, "packing": b64encode(packer.header).decode()}))
        for codes, facts in pictures:
            data = packer.pack(codes)
            put(struct.pack("<I", len(data)) + data)
            passed.append(facts)
        put(struct.pack("<I", 0))
        put(_text({"pictures": [_facts(facts) for facts in passed]}))
        path = folder / f"{_STEM}-{number:06d}-{digest.hexdigest()[:_DIGEST_DIGITS]}"
        with held_signals(), system_errors(unfinished):
            size_bytes = file.tell()
            file.flush()
            os.fsync(file.fileno())
            file.close()
            unfinished.replace(path)
    except BaseException:
        with held_signals(), suppress(OSError):
            file.close()
            unfinished.unlink()
        raise
    return Stored(path, len(passed), size_bytes)


def read_unit(path: Path, coding: Coding) -> Iterator[tuple[torch.Tensor, Passed]]:
    """The pictures of a unit, in order; raises DamagedUnitError for a file that `write_unit` did not write."""
    with system_errors(path), path.open("rb") as file:
        header, pictures, facts = _scanned(file, path)
        unpacker = Unpacker(coding, b64decode(header["packing"]))
        if len(pictures) != len(facts):
            raise _damaged(path)
        for (offset, length), passed in zip(pictures, facts, strict=True):
            file.seek(offset)
            yield unpacker.unpack(file.read(length)), passed


def is_whole(path: Path) -> bool:
    """Whether a unit's file is what its name says."""
    digest = sha256()
    with system_errors(path), path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return path.name.rpartition("-")[2] == digest.hexdigest()[:_DIGEST_DIGITS]


def number_of(path: Path) -> int | None:
    """The number of a finished unit by its file's name; None for any other file."""
    parts = path.name.split("-")
    if len(parts) != 3 or parts[0] != _STEM or len(parts[2]) != _DIGEST_DIGITS or not parts[1].isdecimal():
        return None
    return int(parts[1])


def _scanned(file: BinaryIO, path: Path) -> tuple[dict[str, Any], list[tuple[int, int]], list[Passed]]:
    """The header, (offset, length) of every picture, and what goes with it."""
    try:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise _damaged(path)
        header = _read_text(file)
        if header["version"] != VERSION:
            raise _damaged(path)
        pictures = []
        while length := struct.unpack("<I", file.read(4))[0]:
            pictures.append((file.tell(), length))
            file.seek(length, 1)
        return header, pictures, [_passed(facts) for facts in _read_text(file)["pictures"]]
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> DamagedUnitError:
    return DamagedUnitError(f"{path}: expected a finished unit, found a damaged file; run the same command again.")


def _text(facts: dict[str, Any]) -> bytes:
    data = json.dumps(facts, separators=(",", ":")).encode()
    return struct.pack("<I", len(data)) + data


def _read_text(file: BinaryIO) -> dict[str, Any]:
    length = struct.unpack("<I", file.read(4))[0]
    if length > _MOST_TEXT_BYTES:
        raise ValueError("too long")
    facts = json.loads(file.read(length))
    if not isinstance(facts, dict):
        raise TypeError("no object")
    return facts


def _facts(passed: Passed) -> list[Any]:
    metadata = passed.metadata
    if metadata is None:
        return [passed.pts, passed.duration]
    parts = (None if part is None else b64encode(part).decode() for part in (metadata.icc, metadata.exif, metadata.xmp))
    return [passed.pts, passed.duration, *parts, metadata.dpi, metadata.text]


def _passed(facts: list[Any]) -> Passed:
    pts, duration, *rest = facts
    if not rest:
        return Passed(int(pts), int(duration))
    *parts, dpi, text = rest
    icc, exif, xmp = (None if part is None else b64decode(part) for part in parts)
    size = None if dpi is None else (float(dpi[0]), float(dpi[1]))
    notes = tuple((str(key), str(value)) for key, value in text)
    return Passed(int(pts), int(duration), PictureMetadata(icc, exif, xmp, size, notes))
