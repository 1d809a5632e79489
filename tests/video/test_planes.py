"""Every kind of pixel format comes out as the code values that went in."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from seedvr2_engine.errors import VideoError
from seedvr2_engine.video import ColorRange, ColorTags, Matrix, Orientation
from seedvr2_engine.video.coded import upright
from seedvr2_engine.video.planes import as_direct, bit_depth, decode_frame, encode_frame, family_of, has_alpha
from seedvr2_engine.video.ycbcr import resolve

from .made.clips import frame_of

RGB_FULL = ColorTags(ColorRange.FULL, Matrix.RGB)
LIMITED_709 = ColorTags(ColorRange.LIMITED, Matrix.BT709)


RNG = np.random.default_rng(3)


def codes(shape: tuple[int, ...], bits: int = 8) -> np.ndarray:
    return RNG.integers(0, 1 << bits, shape).astype(np.uint8 if bits == 8 else np.uint16)


def decoded(frame: av.VideoFrame, tags: ColorTags = RGB_FULL) -> tuple[torch.Tensor, torch.Tensor | None]:
    return decode_frame(as_direct(frame), tags, "ffv1")


@pytest.mark.parametrize(
    ("pix_fmt", "order", "bits"),
    [
        ("rgb24", "rgb", 8),
        ("bgr24", "bgr", 8),
        ("rgba", "rgba", 8),
        ("bgra", "bgra", 8),
        ("bgr0", "bgr0", 8),
        ("rgb48be", "rgb", 16),
        ("rgba64be", "rgba", 16),
    ],
)
def test_packed_rgb_is_exact(pix_fmt, order, bits):
    # 37 pixels: rows are padded, so that a wrong stride shows.
    values = codes((11, 37, len(order)), bits)
    rgb, alpha = decoded(frame_of(pix_fmt, [values.reshape(11, -1)]))
    maximum = (1 << bits) - 1
    for channel, name in zip(rgb, "rgb", strict=True):
        assert np.array_equal(channel.numpy(), values[:, :, order.index(name)].astype(np.float32) / maximum)
    assert (alpha is not None) == ("a" in order)
    if alpha is not None:
        assert np.array_equal(alpha[0].numpy(), values[:, :, 3].astype(np.float32) / maximum)


@pytest.mark.parametrize(("pix_fmt", "bits"), [("gbrp", 8), ("gbrp10le", 10), ("gbrp16le", 16), ("gbrap12le", 12)])
def test_planar_rgb_is_exact(pix_fmt, bits):
    planes = [codes((9, 21), bits) for _ in range(4 if "gbra" in pix_fmt else 3)]
    rgb, _ = decoded(frame_of(pix_fmt, planes))
    expected = np.stack([planes[2], planes[0], planes[1]]).astype(np.float32) / ((1 << bits) - 1)
    assert np.array_equal(rgb.numpy(), expected)


@pytest.mark.parametrize(("pix_fmt", "bits"), [("gray", 8), ("gray10le", 10), ("gray16le", 16)])
def test_grey_is_exact_in_all_three_channels(pix_fmt, bits):
    values = codes((9, 21), bits)
    rgb, alpha = decoded(frame_of(pix_fmt, [values]))
    assert alpha is None
    for channel in rgb:
        assert np.array_equal(channel.numpy(), values.astype(np.float32) / ((1 << bits) - 1))


def test_grey_with_alpha_is_taken_apart():
    values = codes((5, 8))
    rgb, alpha = decoded(frame_of("ya8", [values]))
    assert np.array_equal(rgb[1].numpy(), values[:, 0::2].astype(np.float32) / 255)
    assert alpha is not None
    assert np.array_equal(alpha[0].numpy(), values[:, 1::2].astype(np.float32) / 255)


def test_a_palette_becomes_its_colours():
    frame = av.VideoFrame(4, 2, "pal8")
    indices = np.frombuffer(memoryview(frame.planes[0]), np.uint8).reshape(2, -1)
    indices[:, :4] = [[0, 1, 2, 3], [3, 2, 1, 0]]
    table = np.frombuffer(memoryview(frame.planes[1]), np.uint8).reshape(256, 4)
    table[:4] = [[1, 2, 3, 255], [40, 50, 60, 128], [250, 0, 7, 0], [9, 99, 199, 255]]
    rgb, alpha = decoded(frame)
    assert (rgb[:, 0] * 255).round().int().T.tolist() == [[3, 2, 1], [60, 50, 40], [7, 0, 250], [199, 99, 9]]
    assert alpha is not None
    assert (alpha[0, 0] * 255).round().int().tolist() == [255, 128, 0, 255]


@pytest.mark.parametrize("pix_fmt", ["monow", "monob"])
def test_bitmaps_are_black_and_white(pix_fmt):
    frame = av.VideoFrame(8, 2, pix_fmt)
    np.frombuffer(memoryview(frame.planes[0]), np.uint8).reshape(2, -1)[:, 0] = [0b10000001, 0b01111110]
    rgb, _ = decoded(frame)
    first = [1.0, 0, 0, 0, 0, 0, 0, 1] if pix_fmt == "monob" else [0.0, 1, 1, 1, 1, 1, 1, 0]
    assert rgb[0, 0].tolist() == first


@pytest.mark.parametrize(
    ("packed", "planar", "bits"),
    [("nv12", "yuv420p", 8), ("yuyv422", "yuv422p", 8), ("uyvy422", "yuv422p", 8), ("p010le", "yuv420p10le", 10)],
)
def test_semi_planar_and_packed_yuv_equal_their_planar_twins(packed, planar, bits):
    height, width = 12, 36
    chroma = (height // 2 if "420" in planar else height, width // 2)
    twin = frame_of(planar, [codes((height, width), bits), codes(chroma, bits), codes(chroma, bits)])
    rgb, _ = decoded(twin.reformat(format=packed, threads=1), LIMITED_709)
    assert torch.equal(rgb, decoded(twin, LIMITED_709)[0])


@pytest.mark.parametrize("pix_fmt", ["rgb24", "bgr0", "gbrp", "gray"])
def test_rows_stored_bottom_up_are_read_top_down(pix_fmt):
    """FFmpeg's vflip turns a picture by a negative stride, as some decoders do."""
    channels = {"rgb24": 3, "bgr0": 4}.get(pix_fmt, 1)
    planes = [codes((10, 24 * channels)) for _ in range(3 if pix_fmt == "gbrp" else 1)]
    frame = frame_of(pix_fmt, planes)
    graph = av.filter.Graph()
    source = graph.add_buffer(width=24, height=10, format=frame.format, time_base=Fraction(1, 25))
    graph.link_nodes(source, graph.add("vflip"), graph.add("buffersink"))
    graph.configure()
    graph.vpush(frame)
    turned = graph.vpull()
    assert turned.planes[0].line_size < 0
    assert torch.equal(decoded(turned)[0], decoded(frame)[0].flip(1))


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("code_range", [ColorRange.LIMITED, ColorRange.FULL])
def test_yuv444_is_the_matrix_and_nothing_else(bits, code_range):
    top = (1 << bits) - 1
    planes = [
        np.full((4, 6), value, np.uint8 if bits == 8 else np.uint16) for value in (top // 2, top // 3, top * 2 // 3)
    ]
    rgb, _ = decoded(
        frame_of("yuv444p" if bits == 8 else f"yuv444p{bits}le", planes), ColorTags(code_range, Matrix.BT709)
    )
    scale = 1 << (bits - 8)
    black, white, span = (16 * scale, 219 * scale, 224 * scale) if code_range is ColorRange.LIMITED else (0, top, top)
    luma, blue, red = (float(plane[0, 0]) for plane in planes)
    luma, blue, red = (luma - black) / white, (blue - 128 * scale) / span, (red - 128 * scale) / span
    expected = [luma + 1.5748 * red, luma - 0.187324 * blue - 0.468124 * red, luma + 1.8556 * blue]
    torch.testing.assert_close(rgb[:, 2, 3], torch.tensor(expected), atol=2e-6, rtol=0)


@pytest.mark.parametrize("pix_fmt", ["bgr0", "bgra", "rgb24", "rgba", "gbrp16le", "rgb48be", "rgba64be", "gbrap12le"])
def test_rgb_writing_rounds_to_the_nearest_code(pix_fmt):
    rgb, alpha = torch.rand(3, 7, 19), torch.rand(1, 7, 19)
    back, alpha_back = decode_frame(encode_frame(rgb, alpha, pix_fmt, RGB_FULL), RGB_FULL, "png")
    half_step = 0.5 / ((1 << bit_depth(av.VideoFormat(pix_fmt))) - 1) * 1.001
    assert (back - rgb).abs().max() <= half_step + 1e-7
    if alpha_back is not None:
        assert (alpha_back - alpha).abs().max() <= half_step + 1e-7


@pytest.mark.parametrize(
    ("pix_fmt", "floor_db"), [("yuv444p", 50), ("yuv444p10le", 62), ("yuv420p", 50), ("yuv422p12le", 55)]
)
def test_smooth_pictures_survive_yuv(pix_fmt, floor_db):
    y, x = torch.meshgrid(torch.linspace(0, 1, 48), torch.linspace(0, 1, 64), indexing="ij")
    rgb = torch.stack((x, y, 0.5 + 0.25 * torch.sin(3 * x + 2 * y)))
    back, _ = decode_frame(encode_frame(rgb, None, pix_fmt, LIMITED_709), LIMITED_709, "h264")
    assert -10 * torch.log10((back - rgb).square().mean()) > floor_db
    assert (back - rgb).mean().abs() < 2e-4


def test_values_outside_the_range_are_clamped_not_wrapped():
    rgb = torch.tensor([-0.5, 0.0, 1.5]).reshape(3, 1, 1).expand(3, 2, 2).contiguous()
    back, _ = decode_frame(encode_frame(rgb, None, "rgb24", RGB_FULL), RGB_FULL, "png")
    assert back[:, 0, 0].tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (Orientation(), [[1, 2, 3], [4, 5, 6]]),
        (Orientation(transpose=True, mirror_x=True), [[4, 1], [5, 2], [6, 3]]),
        (Orientation(mirror_x=True, mirror_y=True), [[6, 5, 4], [3, 2, 1]]),
        (Orientation(transpose=True, mirror_y=True), [[3, 6], [2, 5], [1, 4]]),
        (Orientation(mirror_x=True), [[3, 2, 1], [6, 5, 4]]),
    ],
)
def test_orientations_turn_clockwise(orientation, expected):
    picture = torch.tensor([[[1, 2, 3], [4, 5, 6]]])
    assert upright(picture, orientation)[0].tolist() == expected


def test_degrees_say_how_far_clockwise():
    turned = [Orientation(), Orientation(True, True), Orientation(False, True, True), Orientation(True, False, True)]
    assert [orientation.degrees for orientation in turned] == [0, 90, 180, 270]


def test_formats_are_told_apart():
    assert family_of(av.VideoFormat("yuvj420p")) == "yuv"
    assert family_of(av.VideoFormat("pal8")) == "rgb"
    assert family_of(av.VideoFormat("ya16be")) == "grey"
    assert family_of(av.VideoFormat("gbrap12le")) == "rgb"
    assert [has_alpha(av.VideoFormat(name)) for name in ("ya8", "yuva420p", "pal8", "rgb24")] == [
        True,
        True,
        True,
        False,
    ]
    assert bit_depth(av.VideoFormat("monow")) == 8


def test_floating_point_pixels_are_refused():
    with pytest.raises(VideoError, match="gbrpf32le"):
        bit_depth(av.VideoFormat("gbrpf32le"))


def test_rgb_is_full_range_whatever_the_tag_says():
    tags = resolve(ColorTags(ColorRange.LIMITED), family="rgb", size=(64, 48), codec="h264")
    assert tags.range is ColorRange.FULL
