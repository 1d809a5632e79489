"""How a stream's samples mean colours: range, matrix, primaries and transfer, by their code points."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ColorRange(IntEnum):
    """Code range of the samples, numbered as in FFmpeg's AVColorRange."""

    UNSPECIFIED = 0
    LIMITED = 1
    FULL = 2


class Matrix(IntEnum):
    """Y'CbCr matrix coefficients, numbered as in ITU-T H.273 and FFmpeg's AVColorSpace."""

    RGB = 0
    BT709 = 1
    UNSPECIFIED = 2
    FCC = 4
    BT470BG = 5
    SMPTE170M = 6
    SMPTE240M = 7
    YCGCO = 8
    BT2020_NCL = 9
    BT2020_CL = 10
    SMPTE2085 = 11
    CHROMA_DERIVED_NCL = 12
    CHROMA_DERIVED_CL = 13
    ICTCP = 14
    IPT_C2 = 15
    YCGCO_RE = 16
    YCGCO_RO = 17


PQ_TRANSFER = 16
"""SMPTE ST 2084, the code of absolute luminance, as H.273 numbers transfer characteristics."""
HLG_TRANSFER = 18
"""ARIB STD-B67, hybrid log-gamma."""

_PRIMARIES_NAMES = {
    1: "bt709",
    2: "unspecified",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "film",
    9: "bt2020",
    10: "smpte428",
    11: "smpte431",
    12: "smpte432",
    22: "ebu3213",
}
_TRANSFER_NAMES = {
    1: "bt709",
    2: "unspecified",
    4: "gamma22",
    5: "gamma28",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    9: "log100",
    10: "log316",
    11: "iec61966-2-4",
    12: "bt1361e",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    17: "smpte428",
    18: "arib-std-b67",
}


@dataclass(frozen=True)
class ColorTags:
    """The colour description of a stream; primaries and transfer are carried through, and never applied here."""

    range: ColorRange = ColorRange.UNSPECIFIED
    """Limited (16..235 of 255) or full (0..255) code range."""
    matrix: Matrix = Matrix.UNSPECIFIED
    """How R'G'B' became Y'CbCr; RGB for samples that are R'G'B' already."""
    primaries: int = 2
    """Chromaticities of the primaries, an H.273 code point; 2 is unspecified."""
    transfer: int = 2
    """Transfer characteristics, an H.273 code point; 2 is unspecified."""

    @property
    def is_hdr(self) -> bool:
        """Whether the transfer is PQ or HLG."""
        return self.transfer in (PQ_TRANSFER, HLG_TRANSFER)

    def describe(self) -> str:
        """Return the tags under FFmpeg's names, for people: `bt709, limited, primaries bt709, transfer bt709`."""
        primaries = _PRIMARIES_NAMES.get(self.primaries, str(self.primaries))
        transfer = _TRANSFER_NAMES.get(self.transfer, str(self.transfer))
        matrix, code_range = self.matrix.name.lower(), self.range.name.lower()
        return f"{matrix}, {code_range}, primaries {primaries}, transfer {transfer}"
