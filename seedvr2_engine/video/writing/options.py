"""What the user asks of an output file."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ...errors import InvalidArgumentError

CodecChoice = Literal["auto", "h264", "h265", "ffv1", "prores", "vp9", "av1", "h264_nvenc", "hevc_nvenc", "av1_nvenc"]
NVENC = ("h264_nvenc", "hevc_nvenc", "av1_nvenc")
"""The choices that an NVIDIA GPU's encoder serves."""
ChromaChoice = Literal["auto", "420", "422", "444", "rgb"]
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
"""The speed presets that x264 and x265 share; AV1 and NVENC have their own, which these are mapped to."""


@dataclass(frozen=True)
class SinkOptions:
    """How a clip or picture is written; checked when it is made, and against the file when that is opened."""

    codec: CodecChoice = "auto"
    """Video codec. auto: H.264 for 8 bits and H.265 for more in MP4, MOV and MKV; VP9 in WebM. Unused by pictures.
    Those of NVENC are never chosen by themselves."""
    quality: float | None = None
    """Constant rate factor, smaller is better; None: 16 (h264), 18 (h265), 20 (vp9), 22 (av1). For
    NVENC its constant quality, None: 19 (h264_nvenc), 21 (hevc_nvenc), 25 (av1_nvenc). Pictures (JPEG, WebP): 1..100,
    larger is better, None: 95. Unused by lossless codecs and ProRes."""
    preset: str = "medium"
    """One of PRESETS; unused by FFV1, ProRes and VP9."""
    bit_depth: int | None = None
    """Bits per sample; None: the source's, at least 10 if that is HDR, or 8 without a source."""
    chroma: ChromaChoice = "auto"
    """Chroma resolution. auto: 4:2:0 where the size allows it, 4:4:4 otherwise, 4:2:2 for ProRes, R'G'B' or the
    source's own for FFV1."""
    rate: Fraction | None = None
    """Frames per second; None: the source's, or 24 without one."""
    overwrite: bool = False
    """Whether an existing file, or a sequence's existing pictures, may be replaced; they are only at the very end."""

    def __post_init__(self) -> None:
        if self.bit_depth is not None and not 8 <= self.bit_depth <= 16:
            raise InvalidArgumentError(f"bit_depth: expected 8 to 16, got {self.bit_depth}.")
        if self.quality is not None and not 0 <= self.quality <= 100:
            raise InvalidArgumentError(f"quality: expected 0 to 100, got {self.quality}.")
        if self.preset not in PRESETS:
            raise InvalidArgumentError(f"preset: expected one of {', '.join(PRESETS)}, got {self.preset!r}.")
        if self.rate is not None and self.rate <= 0:
            raise InvalidArgumentError(f"rate: expected more than 0 frames per second, got {self.rate}.")
