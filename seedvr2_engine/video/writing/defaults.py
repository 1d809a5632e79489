"""What an output takes from its source where nothing else was asked: depth and colour tags."""

from __future__ import annotations

from ..color_tags import ColorRange, ColorTags, Matrix
from ..info import SourceInfo
from .hdr_output import BANDING_BITS


def output_tags(source: SourceInfo | None, *, is_rgb: bool) -> ColorTags:
    """Return fully decided tags for an output.

    Y'CbCr keeps the matrix and range that the source was read with. R'G'B' sources, and none at all, become limited
    BT.709, or BT.2020 where the primaries are. Primaries and transfer are the source's; unspecified stays so.
    """
    tags = source.conversion if source is not None else ColorTags()
    if is_rgb:
        return ColorTags(ColorRange.FULL, Matrix.RGB, tags.primaries, tags.transfer)
    if tags.matrix in (Matrix.RGB, Matrix.UNSPECIFIED):
        matrix = Matrix.BT2020_NCL if tags.primaries == 9 else Matrix.BT709
        return ColorTags(ColorRange.LIMITED, matrix, tags.primaries, tags.transfer)
    return tags


def wanted_depth(source: SourceInfo | None) -> int:
    """Return the bits per sample that a source asks for: its own, and at least 10 for PQ and HLG."""
    if source is None:
        return 8
    return max(source.bit_depth, BANDING_BITS) if source.color.is_hdr else source.bit_depth


def alpha_of(source: SourceInfo | None) -> str:
    """A source's alpha, as the subject of a sentence; only decoding all pictures would tell whether all are opaque."""
    is_sequence = source is not None and source.kind == "sequence"
    return "that of the pictures, where they are not opaque, is" if is_sequence else "it is"
