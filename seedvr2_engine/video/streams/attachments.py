"""Fonts and other attached files, and cover art."""

from __future__ import annotations

from dataclasses import dataclass

import av

from ..demuxing import packets_of

_PICTURES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png"), "bmp": ("cover.bmp", "image/bmp")}


@dataclass(frozen=True)
class Attachment:
    """A file within the file."""

    name: str
    mime_type: str
    data: bytes
    codec: str | None = None
    """FFmpeg's name of the picture's codec, for cover art."""


def is_cover(stream: av.stream.Stream) -> bool:
    """Whether a video stream is one picture that stands for the clip."""
    return stream.type == "video" and bool(stream.disposition & av.stream.Disposition.attached_pic)


def holds_attachment(muxer: str) -> bool:
    """Whether a kind of file has a place for fonts and the like."""
    return muxer == "matroska"


def holds_cover(muxer: str, codec: str) -> bool:
    """Whether a kind of file has a place for a cover of this codec."""
    return codec in _PICTURES and muxer in ("matroska", "mp4")


def read_covers(container: av.container.InputContainer, wanted: dict[int, str]) -> dict[int, Attachment]:
    """The cover art of these streams (index -> codec); a container gives its covers before anything else."""
    found: dict[int, Attachment] = {}
    for packet in packets_of(container):
        codec = wanted.get(packet.stream.index)
        if codec is None or not packet.size:
            break
        name, mime_type = _PICTURES[codec]
        tags = packet.stream.metadata
        found[packet.stream.index] = Attachment(
            tags.get("filename", name), tags.get("mimetype", mime_type), bytes(packet), codec
        )
        if len(found) == len(wanted):
            break
    return found


def attached_file(stream: av.stream.Stream) -> Attachment:
    """What an attachment stream holds."""
    name, mime_type, data = (getattr(stream, field) for field in ("name", "mimetype", "data"))
    return Attachment(name or "attachment", mime_type or "application/octet-stream", bytes(data))
