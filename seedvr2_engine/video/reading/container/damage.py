"""Find out from a file's outer structure whether something is missing, without decoding anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..structure.animated import PNG_SIGNATURE, walk_gif, walk_png
from ..structure.asf import ASF_HEADER, walk_asf
from ..structure.flv import walk_flv
from ..structure.isobmff import FIRST_BOXES, walk_boxes
from ..structure.ivf import walk_ivf
from ..structure.matroska import EBML_ID, walk_matroska
from ..structure.mxf import MXF_KEY, walk_mxf
from ..structure.nut import NUT_SIGNATURE, walk_nut
from ..structure.ogg import walk_ogg
from ..structure.parts import Budget, Structure, TooManyPartsError
from ..structure.program import PACK, walk_program_stream
from ..structure.riff import walk_riff
from ..structure.transport import walk_transport_stream

__all__ = ["Structure", "inspect", "missing_bytes"]

Walker = Callable[[BinaryIO, int, Budget], Structure]


def inspect(path: Path) -> Structure:
    """Walker through the file's parts; nothing is out of order where its format is not known or does not say.

    The number of parts that are looked at is bounded by the file's size, so that a forged file of many tiny parts
    costs no time. Raises OSError if the file cannot be read.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        walk = _walk_for(file.read(16))
        try:
            return walk(file, size_bytes, Budget(size_bytes))
        except TooManyPartsError:
            return Structure(is_forged=True)


def missing_bytes(path: Path) -> int:
    """Return how many bytes the file lacks by its own account; 0 if complete, or if its format does not say."""
    return inspect(path).missing_bytes


def _walk_for(head: bytes) -> Walker:
    if head[4:8] in FIRST_BOXES:
        return walk_boxes
    if head == ASF_HEADER:
        return walk_asf
    starts: tuple[tuple[bytes, Walker], ...] = (
        (EBML_ID.to_bytes(4, "big"), walk_matroska),
        (b"RIFF", walk_riff),
        (b"FLV", walk_flv),
        (b"OggS", walk_ogg),
        (b"GIF8", walk_gif),
        (PNG_SIGNATURE, walk_png),
        (b"DKIF", walk_ivf),
        (MXF_KEY, walk_mxf),
        (NUT_SIGNATURE[:16], walk_nut),
        (PACK, walk_program_stream),
    )
    return next((walk for start, walk in starts if head.startswith(start)), walk_transport_stream)
