"""HDR metadata from the side data of a decoded frame, where FFmpeg puts what stream and container say."""

from __future__ import annotations

import struct

import av
from av.sidedata.sidedata import Type

from ...errors import VideoError
from ..hdr_metadata import ContentLight, HdrMetadata, MasteringDisplay
from ..planes import filtered

_DYNAMIC = {
    Type.DYNAMIC_HDR_PLUS: "HDR10+",
    Type.DYNAMIC_HDR_VIVID: "HDR Vivid",
    Type.DOVI_METADATA: "Dolby Vision",
    Type.DOVI_RPU_BUFFER: "Dolby Vision",
}
_WANTED = {Type.MASTERING_DISPLAY_METADATA, Type.CONTENT_LIGHT_LEVEL, *_DYNAMIC}
# All of enum AVFrameSideDataType, and room for more.
_OTHERS = sorted(set(range(48)) - {kind.value for kind in _WANTED})
_DOLBY_TAGS = ("dvh1", "dvhe", "dva1", "dvav", "dav1")


def read_hdr(frame: av.VideoFrame, codec_tag: str) -> HdrMetadata:
    """Return what a decoded frame says; codec_tag: the stream's tag in its container, which names Dolby Vision.

    Raises VideoError for Dolby Vision without a picture that can be seen by itself (profile 5).
    """
    data = _side_data(frame)
    names = {name for kind, name in _DYNAMIC.items() if kind in data}
    if codec_tag in _DOLBY_TAGS:
        names.add("Dolby Vision")
    if _is_profile_5(data.get(Type.DOVI_METADATA, b"")):
        raise VideoError(
            "expected a picture that can be seen without Dolby's own processing, found Dolby Vision profile 5, whose "
            "colours would come out green and purple; convert it to HDR10 first (FFmpeg's filter libplacebo does)."
        )
    return HdrMetadata(
        _mastering(data.get(Type.MASTERING_DISPLAY_METADATA, b"")),
        _light(data.get(Type.CONTENT_LIGHT_LEVEL, b"")),
        tuple(sorted(names)),
    )


def _side_data(frame: av.VideoFrame) -> dict[Type, bytes]:
    # PyAV 18.1 frees the metadata of a colour profile that FFmpeg frees again, and lists nothing where it has no name
    # for one kind: what is not wanted is removed from a copy before it looks.
    wanted = filtered(frame, *(("sidedata", f"mode=delete:type={kind}") for kind in _OTHERS))
    # PyAV's stub takes the container for a mapping of names.
    return {entry.type: bytes(entry) for entry in wanted.side_data}  # type: ignore[attr-defined, arg-type]


def _mastering(data: bytes) -> MasteringDisplay | None:
    """Parse AVMasteringDisplayMetadata: R, G, B, white (x, y), least and largest luminance, two flags."""
    if len(data) < 88:
        return None
    numbers = struct.unpack_from("=22i", data)
    values = [over / under if under else 0.0 for over, under in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
    points = list(zip(values[:8:2], values[1:8:2], strict=True))
    has_primaries, has_luminance = numbers[20:22]
    if has_luminance and values[9] <= values[8]:
        # Encoders write zeros for what nobody told them.
        has_luminance = 0
    if has_primaries and not all(0 < x < 1 and 0 < y < 1 for x, y in points):
        has_primaries = 0
    if not has_primaries and not has_luminance:
        return None
    red, green, blue, white = points
    return MasteringDisplay(
        primaries=(red, green, blue) if has_primaries else None,
        white=white if has_primaries else None,
        min_nits=values[8] if has_luminance else None,
        max_nits=values[9] if has_luminance else None,
    )


def _light(data: bytes) -> ContentLight | None:
    """Parse AVContentLightMetadata; both unknown is none."""
    if len(data) < 8:
        return None
    light = ContentLight(*struct.unpack_from("=2I", data))
    return light if light.max_cll_nits or light.max_fall_nits else None


def _is_profile_5(data: bytes) -> bool:
    """Whether AVDOVIMetadata is profile 5's, by the rule of libavcodec's ff_dovi_guess_profile_hevc."""
    if len(data) < struct.calcsize("P"):
        return False
    header: int = struct.unpack_from("P", data)[0]
    # vdr_rpu_profile and bl_video_full_range_flag of AVDOVIRpuDataHeader.
    return header + 11 <= len(data) and data[header + 4] == 0 and data[header + 10] == 1
