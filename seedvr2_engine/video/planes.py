"""Between FFmpeg frames and tensors: pixel formats, strides, orientation; no colour arithmetic of swscale's own."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import VideoError
from .color_tags import ColorRange, ColorTags, Matrix
from .info import Crop, Orientation, PixelFamily
from .ycbcr import (
    ChromaLayout,
    chroma_is_centred,
    downsample_chroma,
    normalise,
    quantise,
    rgb_from_yuv,
    upsample_chroma,
    yuv_from_rgb,
)

_YUV = re.compile(r"yuv[aj]?(\d{3})p(\d*)(le|be)?")
_GBR = re.compile(r"gbra?p(\d*)(le|be)?")
_GREY = re.compile(r"(?:gray|ya)(\d*)(le|be)?")
_PACKED = re.compile(r"(rgb|bgr|rgba|bgra|argb|abgr|rgb0|bgr0|0rgb|0bgr)(24|48|64)?(le|be)?")
# All of enum AVFrameSideDataType, and room for more, but for AV_FRAME_DATA_DISPLAYMATRIX.
_OTHER_SIDE_DATA = [kind for kind in range(48) if kind != 6]
_CHROMA_STEPS = {"410": (4, 4), "411": (4, 1), "420": (2, 2), "422": (2, 1), "440": (1, 2), "444": (1, 1)}


class Samples(NamedTuple):
    """Code values of one stored frame, as numpy views that live no longer than the frame."""

    channels: list[NDArray[Any]]
    """R,G,B or one grey plane or Y,Cb,Cr; chroma planes may be smaller."""
    alpha: NDArray[Any] | None
    bits: int
    chroma: ChromaLayout | None
    """None for R'G'B' and grey."""


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


def cropped(picture: tuple[torch.Tensor, torch.Tensor | None], crop: Crop) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Cut a stored picture's edges off; rgb: (3,H,W), alpha: (1,H,W) or None."""
    rgb, alpha = picture
    if crop == Crop():
        return picture
    rows = slice(crop.top, rgb.shape[1] - crop.bottom)
    columns = slice(crop.left, rgb.shape[2] - crop.right)
    return rgb[:, rows, columns], None if alpha is None else alpha[:, rows, columns]


def upright(picture: torch.Tensor, orientation: Orientation) -> torch.Tensor:
    """Return the contiguous (C,H,W) picture with its orientation applied."""
    if orientation.transpose:
        picture = picture.transpose(1, 2)
    flips = [dim for dim, wanted in ((1, orientation.mirror_y), (2, orientation.mirror_x)) if wanted]
    return (picture.flip(flips) if flips else picture).contiguous()


def decode_frame(frame: av.VideoFrame, tags: ColorTags, codec: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return (rgb, alpha) of a decoded frame as stored: float32 (3,H,W) and (1,H,W) or None, in [0,1].

    `tags` must be resolved. R'G'B' and grey are exact (code / maximum). Y'CbCr goes through float32 with linear
    chroma interpolation at the true sample positions; interlaced chroma is treated as progressive.
    """
    samples = _samples(frame, codec)
    alpha = None if samples.alpha is None else normalise(_tensor([samples.alpha]), samples.bits, ColorRange.FULL)
    if samples.chroma is None:
        rgb = normalise(_tensor(samples.channels), samples.bits, tags.range)
        rgb = rgb.expand(3, -1, -1).contiguous() if rgb.shape[0] == 1 else rgb
    else:
        luma = normalise(_tensor(samples.channels[:1]), samples.bits, tags.range)
        chroma = normalise(_tensor(samples.channels[1:]), samples.bits, tags.range, chroma=True)
        chroma = upsample_chroma(chroma, (frame.height, frame.width), samples.chroma)
        rgb = rgb_from_yuv(luma, chroma, tags.matrix)
    return rgb.clamp_(0, 1), alpha


def encode_frame(rgb: torch.Tensor, alpha: torch.Tensor | None, pix_fmt: str, tags: ColorTags) -> av.VideoFrame:
    """Return an FFmpeg frame with the nearest code values of float (3,H,W) R'G'B' in [0,1].

    `pix_fmt` is planar Y'CbCr (420, 422, 444), planar or packed R'G'B', each with or without alpha; a format with
    alpha is opaque where `alpha` (1,H,W) is None. `tags` must be resolved and match the format.
    """
    frame = av.VideoFrame(rgb.shape[2], rgb.shape[1], pix_fmt)
    centred = pix_fmt.startswith("yuvj")
    samples = _samples(frame, "mjpeg" if centred else "")
    rgb = rgb.detach().to("cpu", torch.float32)
    if samples.chroma is None:
        codes = quantise(rgb, samples.bits, tags.range)
        for view, values in zip(samples.channels, codes, strict=True):
            view[...] = values.numpy()
    else:
        yuv = yuv_from_rgb(rgb.clamp(0, 1), tags.matrix)
        samples.channels[0][...] = quantise(yuv[0], samples.bits, tags.range).numpy()
        chroma = quantise(downsample_chroma(yuv[1:], samples.chroma), samples.bits, tags.range, chroma=True)
        for view, values in zip(samples.channels[1:], chroma, strict=True):
            view[...] = values.numpy()
    if samples.alpha is not None:
        opacity = torch.ones(1, *rgb.shape[1:]) if alpha is None else alpha.detach().to("cpu", torch.float32)
        samples.alpha[...] = quantise(opacity[0], samples.bits, ColorRange.FULL).numpy()
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
    if any(pattern.fullmatch(pix_fmt.name) for pattern in (_YUV, _GBR, _GREY, _PACKED)):
        return frame
    bits = bit_depth(pix_fmt)
    alpha = has_alpha(pix_fmt)
    if family_of(pix_fmt) == "yuv":
        steps = (-(-4 // pix_fmt.chroma_width(4)), -(-4 // pix_fmt.chroma_height(4)))
        name = next(name for name, known in _CHROMA_STEPS.items() if known == steps)
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
    samples = _samples(frame, "")
    return samples.channels[0], samples.bits


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


def _samples(frame: av.VideoFrame, codec: str) -> Samples:
    """Writable views of the frame's planes; `frame` must be as `as_direct` returns it."""
    name = frame.format.name
    bits = bit_depth(frame.format)
    kind = np.dtype(np.uint8) if bits == 8 else np.dtype(">u2" if name.endswith("be") else "<u2")
    if match := _YUV.fullmatch(name):
        views = [_plane(plane, kind) for plane in frame.planes]
        step_x, step_y = _CHROMA_STEPS[match[1]]
        centred = name.startswith("yuvj") or chroma_is_centred(codec)
        return Samples(views[:3], views[3] if len(views) > 3 else None, bits, ChromaLayout(step_x, step_y, centred))
    if _GBR.fullmatch(name):
        views = [_plane(plane, kind) for plane in frame.planes]
        return Samples([views[2], views[0], views[1]], views[3] if len(views) > 3 else None, bits, None)
    if _GREY.fullmatch(name):
        pixels = _packed(frame.planes[0], kind, 2 if name.startswith("ya") else 1)
        return Samples([pixels[:, :, 0]], pixels[:, :, 1] if name.startswith("ya") else None, bits, None)
    match = _PACKED.fullmatch(name)
    assert match is not None, name
    order = match[1]
    if match[2] == "64":
        order = {"rgb": "rgba", "bgr": "bgra"}.get(order, order)
    pixels = _packed(frame.planes[0], kind, len(order))
    alpha = pixels[:, :, order.index("a")] if "a" in order else None
    return Samples([pixels[:, :, order.index(channel)] for channel in "rgb"], alpha, bits, None)


def _plane(plane: av.video.plane.VideoPlane, kind: np.dtype[Any]) -> NDArray[Any]:
    rows = np.frombuffer(memoryview(plane), dtype=kind).reshape(plane.height, plane.line_size // kind.itemsize)
    return rows[:, : plane.width]


def _packed(plane: av.video.plane.VideoPlane, kind: np.dtype[Any], channels: int) -> NDArray[Any]:
    rows = np.frombuffer(memoryview(plane), dtype=kind).reshape(plane.height, plane.line_size // kind.itemsize)
    return rows[:, : plane.width * channels].reshape(plane.height, plane.width, channels)


def _tensor(planes: list[NDArray[Any]]) -> torch.Tensor:
    """float32 (C,H,W); 16-bit codes are exact in float32."""
    return torch.from_numpy(np.stack([plane.astype(np.float32) for plane in planes]))


def source_tags(frame: av.VideoFrame, context: av.VideoCodecContext) -> ColorTags:
    """Return the colour tags that the decoder reports; unknown code points count as unspecified."""
    code_range = frame.color_range if frame.color_range in (1, 2) else 0
    if frame.format.name.startswith("yuvj"):
        code_range = ColorRange.FULL
    known = {int(matrix) for matrix in Matrix}
    matrix = frame.colorspace if frame.colorspace in known else int(Matrix.UNSPECIFIED)
    return ColorTags(ColorRange(code_range), Matrix(matrix), context.color_primaries, context.color_trc)
