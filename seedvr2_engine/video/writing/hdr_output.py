"""HDR10's static metadata on its way out: in the encoder's stream, in the container, and what is lost on the way."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import av

from ..hdr_metadata import HdrMetadata, MasteringDisplay
from ..info import SourceInfo

_MATROSKA_CODECS = {
    "libx264": "V_MPEG4/ISO/AVC",
    "libx265": "V_MPEGH/ISO/HEVC",
    "libvpx-vp9": "V_VP9",
    "ffv1": "V_FFV1",
}
_KEEPERS = ("h264", "h265", "vp9", "ffv1", "av1", "png")
BANDING_BITS = 10
"""Fewer bits per sample than this show bands in PQ and HLG. Source: ITU-R BT.2100, table 9."""


def with_hdr10(encoder: str, options: dict[str, str], source: SourceInfo | None) -> dict[str, str]:
    """Return an encoder's options with the source's static metadata, for the encoders that write it themselves."""
    names = {
        "libx265": ("x265-params", "master-display", "max-cll"),
        "libx264": ("x264-params", "mastering-display", "cll"),
        "libsvtav1": ("svtav1-params", "mastering-display", "content-light"),
    }
    if source is None or encoder not in names:
        return options
    key, display, light = names[encoder]
    told = [options[key]] if key in options else []
    if (mastering := source.hdr.mastering) is not None and (
        text := _encoder_display(mastering, in_units=encoder != "libsvtav1")
    ):
        told.append(f"{display}={text}")
    if source.hdr.light is not None:
        told.append(f"{light}={source.hdr.light.max_cll_nits},{source.hdr.light.max_fall_nits}")
    return {**options, key: ":".join(told)} if told else options


def hdr_losses(name: str, bit_depth: int, source: SourceInfo | None) -> tuple[str, ...]:
    """Return a sentence for everything about HDR that an output does not keep.

    name: a choice of `SinkOptions.codec`, or the ending of a picture without its dot.
    """
    if source is None:
        return ()
    sentences = []
    if source.hdr.dynamic:
        names = " and ".join(source.hdr.dynamic)
        sentences.append(f"The {names} metadata of the source is left out: it belongs to the source's own pixels.")
    if source.hdr.has_static and name not in _KEEPERS:
        sentences.append(
            f"Mastering display and content light level are left out, which {name} has no place for; use h265 or ffv1, "
            "or .png, to keep them."
        )
    if source.color.is_hdr and bit_depth < BANDING_BITS:
        sentences.append(f"{bit_depth} bits per sample show bands in an HDR picture; 10 or more are wanted.")
    return tuple(sentences)


@contextmanager
def metadata_template(encoder: str, size: tuple[int, int], hdr: HdrMetadata) -> Iterator[av.VideoStream | None]:
    """Give a stream that `add_stream_from_template` takes the metadata from, which PyAV reaches in no other way.

    It is the header of a Matroska file in memory, without a picture in it. None where nothing is to be carried over,
    or where FFmpeg's own choice of an encoder for this kind of stream would be another one.
    """
    name = _MATROSKA_CODECS.get(encoder)
    if name is None or not hdr.has_static:
        yield None
        return
    with av.open(io.BytesIO(_matroska_header(name, size, hdr)), format="matroska") as container:
        stream = container.streams.video[0]
        yield stream if av.Codec(stream.codec_context.codec.name, "w").name == encoder else None


def _encoder_display(display: MasteringDisplay, *, in_units: bool) -> str | None:
    """As encoders want it, SVT-AV1 plainly and x264 and x265 in units of 0.00002 and 0.0001 nits.

    None where something is unknown.
    """
    if display.primaries is None or display.white is None or display.max_nits is None or display.min_nits is None:
        return None
    red, green, blue = display.primaries
    points = zip(("G", "B", "R", "WP"), (green, blue, red, display.white), strict=True)
    if not in_units:
        text = "".join(f"{name}({x:.5f},{y:.5f})" for name, (x, y) in points)
        return f"{text}L({display.max_nits:.4f},{display.min_nits:.4f})"
    text = "".join(f"{name}({round(x * 50000)},{round(y * 50000)})" for name, (x, y) in points)
    return f"{text}L({round(display.max_nits * 10000)},{round(display.min_nits * 10000)})"


def _matroska_header(codec: str, size: tuple[int, int], hdr: HdrMetadata) -> bytes:
    """EBML, one video track, an empty cluster. Source: RFC 9559."""
    display = hdr.mastering or MasteringDisplay()
    points = () if display.primaries is None or display.white is None else (*display.primaries, display.white)
    mastering = [_float(0x55D1 + index, value) for index, value in enumerate(value for xy in points for value in xy)]
    if display.max_nits is not None and display.min_nits is not None:
        mastering += [_float(0x55D9, display.max_nits), _float(0x55DA, display.min_nits)]
    color = [_element(0x55D0, *mastering)] if mastering else []
    if hdr.light is not None:
        color += [_number(0x55BC, hdr.light.max_cll_nits), _number(0x55BD, hdr.light.max_fall_nits)]
    video = _element(0xE0, _number(0xB0, size[0]), _number(0xBA, size[1]), _element(0x55B0, *color))
    track = [_number(0xD7, 1), _number(0x73C5, 1), _number(0x83, 1), _element(0x86, codec.encode()), video]
    return _element(0x1A45DFA3, _element(0x4282, b"matroska")) + _element(
        0x18538067,
        _element(0x1549A966, _number(0x2AD7B1, 1_000_000)),
        _element(0x1654AE6B, _element(0xAE, *track)),
        _element(0x1F43B675, _number(0xE7, 0)),
    )


def _element(name: int, *parts: bytes) -> bytes:
    data = b"".join(parts)
    # A length in seven bytes after the mark 01.
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + b"\x01" + len(data).to_bytes(7, "big") + data


def _number(name: int, value: int) -> bytes:
    return _element(name, value.to_bytes(8, "big"))


def _float(name: int, value: float) -> bytes:
    return _element(name, struct.pack(">d", value))
