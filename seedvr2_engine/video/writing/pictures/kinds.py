"""Kinds of picture that are written, by their endings."""

from __future__ import annotations

from dataclasses import dataclass

PICTURES = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP"}
"""Single pictures."""


@dataclass(frozen=True)
class AnimationKind:
    """How one kind of animated picture is written."""

    muxer: str
    """FFmpeg's muxer."""
    encoder: str
    """FFmpeg's encoder."""
    ticks: int
    """Per second: what its times are counted in."""
    longest_edge: int
    """In pixels."""


ANIMATIONS = {
    ".gif": AnimationKind("gif", "gif", 100, 65535),
    ".apng": AnimationKind("apng", "apng", 1000, 16383),
    ".webp": AnimationKind("webp", "libwebp_anim", 1000, 16383),
}
"""Animated pictures; one of several frames in WebP's case."""
