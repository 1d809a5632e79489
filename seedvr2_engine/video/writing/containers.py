"""Kinds of clip: what each holds, and how it is written so that what a killed process leaves can be played."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from ...errors import OutputError
from .options import NVENC
from .pictures.kinds import ANIMATIONS, PICTURES

UNIT_FRAMES = 4
"""Frames of a fragment (MP4, MOV) or cluster (Matroska, WebM); a killed process loses those of the last one."""


@dataclass(frozen=True)
class Container:
    """One kind of output file."""

    muxer: str
    """FFmpeg's muxer."""
    codecs: tuple[str, ...]
    """The choices of `SinkOptions.codec` it takes, the default first."""
    options: dict[str, str] = field(default_factory=dict)
    """Muxer options; with those of `unit_options` they make a file that is cut off at any moment playable."""

    def holds_alpha_of(self, codec: str) -> bool:
        """Whether alpha survives: VP9's is a second picture beside each packet, which only Matroska and WebM have."""
        return codec != "vp9" or self.muxer in ("matroska", "webm")

    @property
    def is_fragmented(self) -> bool:
        """Whether it is MP4 or MOV, which is written in fragments until it is complete."""
        return "movflags" in self.options

    def unit_options(self, rate: Fraction) -> dict[str, str]:
        """Muxer options that have every UNIT_FRAMES frames written to the file as soon as the encoder gives them.

        Measured in frames and not on the clock, so that the same frames give the same bytes.
        """
        unit_s = UNIT_FRAMES / rate
        unit_us = str(max(1, round(unit_s * 1_000_000)))
        # FFmpeg waits ten seconds of the clip for a packet of every stream, be it sound that has ended or subtitles.
        waiting = {"max_interleave_delta": unit_us}
        if self.is_fragmented:
            return {**waiting, "frag_duration": unit_us}
        return {**waiting, "cluster_time_limit": str(max(1, round(unit_s * 1000)))}


# delay_moov keeps the offset between audio and video; hybrid files turn into ordinary ones when they are closed.
_FRAGMENTS = {"movflags": "+hybrid_fragmented+delay_moov", "flush_packets": "1"}
# Without bitexact, FFmpeg gives every file and each of its tracks a random identity.
_CLUSTERS = {"fflags": "+bitexact", "flush_packets": "1"}
CONTAINERS: dict[str, Container] = {
    ".mp4": Container("mp4", ("h264", "h265", "vp9", "av1", *NVENC), _FRAGMENTS),
    ".m4v": Container("mp4", ("h264", "h265", "av1", *NVENC), _FRAGMENTS),
    ".mov": Container("mov", ("h264", "h265", "prores", *NVENC[:2]), _FRAGMENTS),
    ".mkv": Container("matroska", ("h264", "h265", "ffv1", "prores", "vp9", "av1", *NVENC), _CLUSTERS),
    ".webm": Container("webm", ("vp9", "av1", NVENC[2]), _CLUSTERS),
}


def container_for(path: Path) -> Container:
    """Return the container that the file name asks for; raises OutputError for an unknown ending."""
    try:
        return CONTAINERS[path.suffix.lower()]
    except KeyError as error:
        known = " ".join(sorted({*CONTAINERS, *PICTURES, *ANIMATIONS}))
        found = path.suffix or "no ending"
        raise OutputError(
            f"{path}: expected a name ending in one of {known}, found {found!r}; rename the output."
        ) from error
