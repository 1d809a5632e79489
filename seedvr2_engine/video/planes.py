"""Between FFmpeg frames and tensors: pixel formats, strides, orientation; no colour arithmetic of swscale's own."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import VideoError
from .coded import Coding, without_alpha
from .color_tags import ColorRange, ColorTags, Matrix
from .info import Orientation, PixelFamily
from .layouts import CHROMA_STEPS, PixelLayout, layout_of
from .ycbcr import chroma_is_centred

# All of enum AVFrameSideDataType, and room for more, but for AV_FRAME_DATA_DISPLAYMATRIX.
_OTHER_SIDE_DATA = [kind for kind in range(48) if kind != 6]


def family_of(pix_fmt: av.VideoFormat) -> PixelFamily:
    """Return whether a pixel format holds Y'CbCr, R'G'B' (palettes included), or grey."""
    if pix_fmt.is_rgb or pix_fmt.has_palette or pix_fmt.is_bayer:
        return "rgb"
    return "yuv" if sum(not component.is_alpha for component in pix_fmt.components) > 1 else "grey"


def bit_depth(pix_fmt: av.VideoFormat) -> int:
    """Return the bits per sample of a pixel format, at least 8; raises VideoError above 16 (floating point)."""
    bits = max(component.bits for component in pix_fmt.components)
    if bits > 16 or re.search(r"f(16|32)", pix_fmt.name):
        raise VideoError(
            f"Pixel format {pix_fmt.name}: expected whole numbers of at most 16 bits per sample, found floating "
            "point or more bits; convert it to 16 bits first."
        )
    return max(bits, 8)


def has_alpha(pix_fmt: av.VideoFormat) -> bool:
    """Return whether a pixel format carries alpha; a palette may, so it counts."""
    return pix_fmt.has_palette or any(component.is_alpha for component in pix_fmt.components)


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Return the turn that FFmpeg's display matrix asks for (container rotation, or EXIF orientation of a picture).

    All other side data is removed from a copy first: PyAV frees the metadata of a piece of side data, such as the
    name of an ICC profile, which FFmpeg then frees again; and it refuses to list kinds that it has no name for.
    """
    deletions = [("sidedata", f"mode=delete:type={kind}") for kind in _OTHER_SIDE_DATA]
    try:
        matrix = filtered(frame, *deletions).side_data["DISPLAYMATRIX"]  # type: ignore[typeddict-item]  # stub: one key
    except KeyError:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
    if abs(b) > abs(a):
        return Orientation(transpose=True, mirror_x=c < 0, mirror_y=b < 0)
    return Orientation(mirror_x=a < 0, mirror_y=d < 0)


def decode_frame(frame: av.VideoFrame, tags: ColorTags, codec: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return (rgb, alpha) of a decoded frame as stored, on the CPU; see `Coding.decoded`. `tags` must be resolved."""
    coding = coding_of(frame, tags, codec)
    return coding.decoded(codes_of(frame, coding))


def encode_frame(rgb: torch.Tensor, alpha: torch.Tensor | None, pix_fmt: str, tags: ColorTags) -> av.VideoFrame:
    """Return an FFmpeg frame with the nearest code values of float (3,H,W) R'G'B' in [0,1]; see `Coding.encoded`.

    `pix_fmt` and `tags` as in `coding_for`.
    """
    coding = coding_for(pix_fmt, (rgb.shape[2], rgb.shape[1]), tags)
    return frame_of_codes(coding.encoded(rgb, alpha).cpu(), coding)


def coding_of(frame: av.VideoFrame, tags: ColorTags, codec: str, *, keeps_alpha: bool = True) -> Coding:
    """Return what the samples of a frame are; `frame` must be as `as_direct` returns it, and `tags` resolved."""
    layout = _layout(frame.format, codec)
    return Coding(layout if keeps_alpha else without_alpha(layout), frame.width, frame.height, tags)


def coding_for(pix_fmt: str, size: tuple[int, int], tags: ColorTags) -> Coding:
    """Return what the samples of a frame that is to be encoded are; size is (width, height).

    `pix_fmt` is planar Y'CbCr (420, 422, 444), planar or packed R'G'B', each with or without alpha. `tags` must be
    resolved and match the format.
    """
    return Coding(_layout(av.VideoFormat(pix_fmt), ""), *size, tags)


def codes_of(frame: av.VideoFrame, coding: Coding, *, pinned: bool = False) -> torch.Tensor:
    """Return the samples of a frame, uint8 (bytes,) as `coding` says; pinned: in page-locked memory."""
    codes = torch.empty(coding.size_bytes, dtype=torch.uint8, pin_memory=pinned)
    for plane, target in zip(_views(frame, coding.layout), _arrays(codes, coding), strict=True):
        np.copyto(target, plane)
    return codes


def frame_of_codes(codes: torch.Tensor, coding: Coding) -> av.VideoFrame:
    """Return an FFmpeg frame of a picture's bytes, which are on the CPU."""
    frame = av.VideoFrame(coding.width, coding.height, coding.layout.name)
    for plane, values in zip(_views(frame, coding.layout), _arrays(codes, coding), strict=True):
        np.copyto(plane, values)
    tags = coding.tags
    frame.colorspace = int(tags.matrix)
    frame.color_range = int(tags.range)
    frame.color_primaries = tags.primaries
    frame.color_trc = tags.transfer
    return frame


def as_direct(frame: av.VideoFrame) -> av.VideoFrame:
    """Return the frame in a format that `decode_frame` reads by itself.

    swscale only rearranges samples here: palettes, bit-packed and semi-planar layouts become planes of the same
    depth, subsampling, matrix and range.
    """
    pix_fmt = frame.format
    if any(plane.line_size < 0 for plane in frame.planes):
        # Bottom-up pictures, as vflip and some decoders hand out; PyAV's planes would read past their end.
        frame = filtered(frame, ("copy", None))
    bits = bit_depth(pix_fmt)
    if layout_of(pix_fmt.name, bits) is not None:
        return frame
    alpha = has_alpha(pix_fmt)
    if family_of(pix_fmt) == "yuv":
        steps = (-(-4 // pix_fmt.chroma_width(4)), -(-4 // pix_fmt.chroma_height(4)))
        name = next(name for name, known in CHROMA_STEPS.items() if known == steps)
        target = f"yuv{'a' if alpha else ''}{name}p" + ("" if bits == 8 else f"{bits}le")
    elif pix_fmt.name in ("monow", "monob"):
        target = "gray"
    elif pix_fmt.name == "pal8":
        target = "rgba"
    elif bits == 8:
        target = "gbrap" if alpha else "gbrp"
    else:
        target = "gbrap16le" if alpha else "gbrp16le"
    # One thread: with several, swscale now and then leaves a band of rows of a packed frame unwritten (PyAV 18.1).
    return frame.reformat(format=target, threads=1)


def first_channel(frame: av.VideoFrame) -> tuple[NDArray[Any], int]:
    """Return the code values (H,W) of Y', grey or R', and their bits; `frame` must be as `as_direct` returns it.

    A view that lives no longer than the frame.
    """
    layout = _layout(frame.format, "")
    plane, place = layout.channels[0]
    return _views(frame, layout)[plane][:, :, place], layout.bits


def filtered(frame: av.VideoFrame, *filters: tuple[str, str | None]) -> av.VideoFrame:
    """Return the frame through filters of libavfilter, (name, arguments), that leave its pixels alone."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 25)
    )
    steps = [graph.add(name, arguments) for name, arguments in filters]
    graph.link_nodes(source, *steps, graph.add("buffersink"))
    graph.configure()
    graph.vpush(frame)
    return graph.vpull()


def _layout(pix_fmt: av.VideoFormat, codec: str) -> PixelLayout:
    layout = layout_of(pix_fmt.name, bit_depth(pix_fmt), is_centred=chroma_is_centred(codec))
    assert layout is not None, pix_fmt.name
    return layout


def _views(frame: av.VideoFrame, layout: PixelLayout) -> list[NDArray[Any]]:
    """Writable views (height, width, samples) of the planes of a layout, which live no longer than the frame."""
    kind = np.dtype(np.uint8) if layout.bits == 8 else np.dtype(">u2" if layout.is_swapped else "<u2")
    views: list[NDArray[Any]] = []
    for plane, (height, width, count) in zip(frame.planes, layout.shapes(frame.width, frame.height), strict=False):
        rows = np.frombuffer(memoryview(plane), dtype=kind).reshape(plane.height, plane.line_size // kind.itemsize)
        views.append(rows[:height, : width * count].reshape(height, width, count))
    return views


def _arrays(codes: torch.Tensor, coding: Coding) -> list[NDArray[Any]]:
    return [plane.numpy() for plane in coding.layout.planes(codes, coding.width, coding.height)]


def source_tags(frame: av.VideoFrame, context: av.VideoCodecContext) -> ColorTags:
    """Return the colour tags that the decoder reports; unknown code points count as unspecified."""
    code_range = frame.color_range if frame.color_range in (1, 2) else 0
    if frame.format.name.startswith("yuvj"):
        code_range = ColorRange.FULL
    known = {int(matrix) for matrix in Matrix}
    matrix = frame.colorspace if frame.colorspace in known else int(Matrix.UNSPECIFIED)
    return ColorTags(ColorRange(code_range), Matrix(matrix), context.color_primaries, context.color_trc)
