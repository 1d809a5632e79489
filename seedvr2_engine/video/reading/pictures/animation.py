"""Animated pictures: WebP and AVIF by Pillow, and what FFmpeg does not say of GIF and APNG.

FFmpeg does not decode animated WebP, and takes the alpha of an animated AVIF for a second picture.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ....errors import VideoError
from ...color_tags import ColorRange, ColorTags, Matrix
from ...demuxing import packets_of
from ...info import Frame, Orientation, SourceInfo
from ...planes import has_alpha
from ..probe import main_video, opened
from .header import PictureHeader, open_picture

# What browsers make of a frame that is to last no time.
_UNTIMED_MS = 100
ANIMATED_CODECS = frozenset({"gif", "apng"})
"""FFmpeg's names of the animated pictures that it decodes; they are clips here."""


def describe_animation(path: Path, header: PictureHeader) -> SourceInfo:
    """Return the description of an animated WebP or AVIF.

    Decodes it once, to know how long its frames last and whether it is transparent anywhere.
    """
    times, transparent = [], False
    with closing(_frames(path)) as frames:
        for pixels, duration_ms in frames:
            times.append(duration_ms)
            transparent = transparent or bool((pixels[:, :, 3] < 255).any())
    count, total = len(times), sum(times)
    tags = ColorTags(ColorRange.FULL, Matrix.RGB)
    return SourceInfo(
        path=path,
        kind="sequence",
        width=header.width,
        height=header.height,
        frame_count=count,
        count_method="packets",
        average_rate=Fraction(1000 * count, total).limit_denominator(1001),
        time_base=Fraction(1, 1000),
        variable_rate=max(times) - min(times) > 1,
        bit_depth=8,
        has_alpha=transparent,
        codec="av1" if header.format == "AVIF" else "webp",
        pix_fmt="rgba" if transparent else "rgb24",
        color=tags,
        conversion=tags,
        sample_aspect_ratio=Fraction(1),
        orientation=Orientation(),
        start_s=Fraction(0),
        duration_s=total / 1000,
        selected_frames=count,
        metadata=header.metadata,
        loop_count=loop_count(path),
    )


def read_animation(info: SourceInfo) -> Iterator[Frame]:
    """Decode the chosen frames, each as it is shown."""
    chosen = range(info.first_frame, info.first_frame + info.selected_frames)
    pts = 0
    with closing(_frames(info.path)) as frames:
        for index, (pixels, duration_ms) in enumerate(frames):
            if index >= chosen.stop:
                return
            if index in chosen:
                samples = torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div_(255).contiguous()
                alpha = samples[3:] if info.has_alpha else None
                yield Frame(samples[:3], alpha, pts=pts, duration=duration_ms, metadata=info.metadata)
            pts += duration_ms


def loop_count(path: Path) -> int | None:
    """Return how often an animated GIF, APNG or WebP is shown, 0 for ever; None if that cannot be read."""
    try:
        with path.open("rb") as file:
            if file.read(6) in (b"GIF87a", b"GIF89a"):
                file.seek(0)
                again = Image.OPEN["GIF"][0](file, path.name).info.get("loop")
                # A count says how often it is shown again; without one it is shown once.
                return 1 if again is None else again + 1 if again else 0
            file.seek(0)
            picture = open_picture(file, path.name)
            loops = None if picture is None else picture.info.get("loop")
    except Exception:  # whatever a damaged file makes Pillow raise; reading says what is wrong
        return None
    return loops if isinstance(loops, int) else None


def is_transparent(path: Path) -> bool:
    """Return whether any pixel of what FFmpeg decodes with alpha or a palette is not opaque; decodes until one is."""
    with opened(path) as container:
        stream = main_video(container, path)
        for packet in packets_of(container, stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                # Reading reports the damage with its place.
                continue
            for frame in frames:
                if has_alpha(frame.format):
                    alpha = frame.reformat(format="rgba", threads=1).to_ndarray()[:, :, 3]
                    if (alpha < 255).any():
                        return True
    return False


def _frames(path: Path) -> Generator[tuple[NDArray[Any], int], None, None]:
    """(H,W,4) uint8 pictures as they are shown, and for how many milliseconds."""
    with path.open("rb") as file:
        picture = open_picture(file, path.name)
        for index in range(getattr(picture, "n_frames", 0)):
            assert picture is not None
            try:
                picture.seek(index)
                pixels = np.array(picture.convert("RGBA"))
            except (OSError, EOFError, ValueError, SyntaxError) as error:
                raise VideoError(
                    f"{path}: frame {index} is damaged ({error}); copy it again, or leave the rest out (--frames)."
                ) from error
            yield pixels, round(picture.info.get("duration", 0)) or _UNTIMED_MS
