"""Stereoscopic and spherical pictures: how a file says that they are, as far as PyAV carries it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import cast

import av
from av.sidedata.sidedata import SideData, Type

# FFmpeg's AVStereo3DType -> Matroska's name, as it is and with the eyes swapped.
_MATROSKA_MODES = {
    1: ("left_right", "right_left"),
    2: ("top_bottom", "bottom_top"),
    4: ("checkerboard_lr", "checkerboard_rl"),
    6: ("row_interleaved_lr", "row_interleaved_rl"),
    7: ("col_interleaved_lr", "col_interleaved_rl"),
}
_UNUSUAL = "of an unusual kind"
_INT_BYTES = 4


def immersion_tags(frame: av.VideoFrame, tags: dict[str, str], muxer: str, ending: str) -> list[str]:
    """Put the stereo mode into a video stream's `tags` where the muxer takes it; return what is lost, in sentences."""
    losses = []
    found = {data.type: bytes(data) for data in cast("Iterable[SideData]", frame.side_data)}
    stereo = found.get(Type.STEREO3D)
    mode = tags.pop("stereo_mode", None)
    if mode is None and stereo is not None:
        mode = _mode(stereo)
    if mode is not None and mode != "mono":
        if muxer in ("matroska", "webm") and mode != _UNUSUAL:
            tags["stereo_mode"] = mode
        else:
            losses.append(f"The mark of stereoscopic pictures ({mode}) is left out in {ending}; .mkv keeps it.")
    if Type.SPHERICAL in found:
        losses.append("The mark of spherical (360 degree) video is left out; players will show it flat.")
    return losses


def _mode(stereo: bytes) -> str:
    kind = int.from_bytes(stereo[:_INT_BYTES], sys.byteorder)
    is_inverted = bool(int.from_bytes(stereo[_INT_BYTES : 2 * _INT_BYTES], sys.byteorder) & 1)
    if kind == 0:
        return "mono"
    names = _MATROSKA_MODES.get(kind)
    return _UNUSUAL if names is None else names[is_inverted]
