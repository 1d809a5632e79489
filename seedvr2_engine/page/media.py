"""What a browser gets to show: a file as it is where it can, or else a proxy that is made while frames are measured."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..color.hdr import model_signal_from_pq
from ..output.unfinished import system_errors
from ..video.color_tags import PQ_TRANSFER
from ..video.info import Orientation
from ..video.writing.pictures.preview import png_8bit
from ..video.writing.proxy import ProxyWriter
from .data import Media

if TYPE_CHECKING:
    from torch import Tensor

    from ..video import FrameSource, SourceInfo

_CODECS = frozenset({"h264", "vp8", "vp9", "av1"})
_ONLY_A_PART = "only a part of its frames is compared"
_STILL_RATE = Fraction(24)
DEFAULT_RATE = Fraction(24)


def reason_for_proxy(info: SourceInfo) -> str | None:
    """Why browsers cannot be trusted to show a clip's frames as they are read here; None where they can.

    They can where codec, container and 8-bit 4:2:0 are ones that all of them play, and where nothing is done to frames
    on the way: none cut off, turned, stretched, taken out of fields, or shown at uneven times.
    """
    container = _container_of(info.path)
    reasons = (
        (container is None, "browsers do not open this kind of file"),
        (info.codec not in _CODECS, f"not every browser plays {info.codec}"),
        (info.pix_fmt not in ("yuv420p", "yuvj420p"), f"not every browser plays {info.pix_fmt}"),
        (info.color.is_hdr, "it is HDR"),
        (info.variable_rate or info.average_rate is None, "its frames come at uneven times"),
        (info.is_trimmed_at_start or info.is_trimmed_at_end, _ONLY_A_PART),
        (info.sample_aspect_ratio != 1, "its pixels are not square, and are compared as if they were"),
        (info.orientation != Orientation(), "its pictures are stored turned"),
        (any((info.crop.left, info.crop.top, info.crop.right, info.crop.bottom)), "its pictures are stored uncut"),
        (info.fields is not None and info.fields.treatment != "none", "its frames are made of fields"),
    )
    return next((reason for applies, reason in reasons if applies), None)


class MediaMaker:
    """Makes what a browser shows of one clip, of frames that come one by one; what it makes lies in `folder`."""

    def __init__(self, clip: FrameSource, badge: str, folder: Path, *, is_shorter: bool = False) -> None:
        """folder: where files may be made. is_shorter: whether frames behind the last compared one are left out."""
        info = clip.info
        self._info, self._badge, self._folder = info, badge.lower(), folder
        self._is_still = len(clip) == 1
        self._proxy: ProxyWriter | None = None
        self._place: Path | None = None
        self.reason = None if self._is_still else self._reason(is_shorter=is_shorter)
        """Why there is a proxy; None for a picture, or where the file itself is shown."""
        if self.reason is not None:
            path = folder / f"{self._badge}{ProxyWriter.suffix()}"
            self._proxy = ProxyWriter(path, info.width, info.height, info.average_rate or DEFAULT_RATE)

    def _reason(self, *, is_shorter: bool) -> str | None:
        if self._info.kind != "video":
            return "it is a sequence of pictures" if self._info.kind == "sequence" else "it is an animated picture"
        return _ONLY_A_PART if is_shorter else reason_for_proxy(self._info)

    def add(self, rgb: Tensor) -> None:
        """Take the next frame, (3,H,W) in [0,1]."""
        if self._proxy is None and not self._is_still:
            return
        if self._info.color.transfer == PQ_TRANSFER:
            rgb = model_signal_from_pq(rgb)
        if self._proxy is not None:
            self._proxy.write(rgb)
            return
        self._place = self._folder / f"{self._badge}.png"
        with system_errors(self._place):
            self._place.write_bytes(png_8bit(rgb))

    def finish(self) -> Media:
        """What there is now."""
        info = self._info
        size = (info.width, info.height)
        seen = ", HDR (PQ) on a scale like SDR's" if info.color.transfer == PQ_TRANSFER else ""
        if self._is_still:
            assert self._place is not None
            shallow = f"16 bits shown in 8{seen}" if info.bit_depth > 8 else seen.removeprefix(", ")
            return Media("image", "image/png", size, self._place, _STILL_RATE, shallow)
        rate = info.average_rate or DEFAULT_RATE
        if self._proxy is None:
            mime = _container_of(info.path)
            assert mime is not None
            return Media("video", mime, size, info.path, rate)
        self._proxy.close()
        note = f"shown through a proxy ({self._proxy.describe()}{seen}), because {self.reason}"
        return Media("video", self._proxy.mime, size, self._proxy.path, rate, note)

    def __enter__(self) -> MediaMaker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._proxy is not None:
            self._proxy.__exit__(kind, error, trace)


def _container_of(path: Path) -> str | None:
    """The MIME type of a file that browsers open, by its first bytes and its ending."""
    kinds = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}
    mime = kinds.get(path.suffix.lower())
    if mime is None:
        return None
    with path.open("rb") as file:
        start = file.read(12)
    if mime == "video/webm":
        return mime if start.startswith(b"\x1a\x45\xdf\xa3") else None
    return mime if start[4:8] == b"ftyp" else None
