"""The colour arithmetic against published numbers and against itself."""

import pytest
import torch

from seedvr2_engine.errors import VideoError
from seedvr2_engine.video import ColorRange, ColorTags, Matrix
from seedvr2_engine.video.ycbcr import (
    ChromaLayout,
    chroma_is_centred,
    codes_from_rgb,
    downsample_chroma,
    normalise,
    quantise,
    resolve,
    rgb_from_codes,
    upsample_chroma,
)

MATRICES = [Matrix.BT709, Matrix.FCC, Matrix.SMPTE170M, Matrix.SMPTE240M, Matrix.BT2020_NCL, Matrix.YCGCO]

# 8-bit limited-range codes of saturated colours, as standards bodies and colour-bar generators print them.
KNOWN = [
    (Matrix.SMPTE170M, (1, 0, 0), (81, 90, 240)),
    (Matrix.SMPTE170M, (0, 1, 0), (145, 54, 34)),
    (Matrix.SMPTE170M, (0, 0, 1), (41, 240, 110)),
    (Matrix.BT709, (1, 0, 0), (63, 102, 240)),
    (Matrix.BT709, (0, 1, 0), (173, 42, 26)),
    (Matrix.BT709, (0, 0, 1), (32, 240, 118)),
    (Matrix.BT2020_NCL, (1, 0, 0), (74, 97, 240)),
    (Matrix.BT2020_NCL, (0, 1, 0), (164, 47, 25)),
    (Matrix.BT2020_NCL, (0, 0, 1), (29, 240, 119)),
    (Matrix.FCC, (1, 0, 0), (82, 90, 240)),
    (Matrix.FCC, (0, 1, 0), (145, 54, 34)),
    (Matrix.FCC, (0, 0, 1), (40, 240, 110)),
    (Matrix.SMPTE240M, (1, 0, 0), (62, 102, 240)),
    (Matrix.SMPTE240M, (0, 0, 1), (35, 240, 116)),
    (Matrix.SMPTE240M, (0, 1, 0), (170, 42, 28)),
    (Matrix.YCGCO, (1, 0, 0), (71, 72, 240)),
    (Matrix.YCGCO, (0, 0, 1), (71, 72, 16)),
]


WHOLE = ChromaLayout()


def encoded(rgb, matrix, bits=8, code_range=ColorRange.LIMITED, layout=WHOLE):
    height, width = rgb.shape[1:]
    coarse = -(-height // layout.step_y), -(-width // layout.step_x)
    planes = [torch.empty(size, dtype=torch.int32) for size in ((height, width), coarse, coarse)]
    codes_from_rgb(rgb, bits, code_range, matrix, layout, planes)
    return planes


def decoded(planes, matrix, bits=8, code_range=ColorRange.LIMITED, layout=WHOLE):
    return rgb_from_codes(planes[0], planes[1:], bits, code_range, matrix, layout)


@pytest.mark.parametrize(("matrix", "rgb", "codes"), KNOWN)
def test_saturated_colours_have_their_published_codes(matrix, rgb, codes):
    planes = encoded(torch.tensor(rgb, dtype=torch.float32).reshape(3, 1, 1), matrix)
    assert tuple(plane.item() for plane in planes) == codes


@pytest.mark.parametrize("matrix", MATRICES)
def test_rgb_survives_the_matrix_and_back(matrix):
    rgb = torch.rand(3, 9, 13)
    back = decoded(encoded(rgb, matrix, 16), matrix, 16)
    torch.testing.assert_close(back, rgb, atol=3e-5, rtol=0)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("code_range", [ColorRange.LIMITED, ColorRange.FULL])
@pytest.mark.parametrize("chroma", [False, True])
def test_every_code_survives_normalising_and_quantising(bits, code_range, chroma):
    codes = torch.arange(1 << bits)
    values = normalise(codes, bits, code_range, chroma=chroma)
    assert torch.equal(quantise(values, bits, code_range, chroma=chroma), codes.int())


def test_ranges_reach_zero_and_one_where_they_should():
    codes = torch.tensor([64, 940])
    assert normalise(codes, 10, ColorRange.LIMITED).tolist() == [0.0, 1.0]
    assert normalise(torch.tensor([0, 1023]), 10, ColorRange.FULL).tolist() == [0.0, 1.0]
    assert normalise(torch.tensor([64, 512, 960]), 10, ColorRange.LIMITED, chroma=True).tolist() == [-0.5, 0.0, 0.5]


@pytest.mark.parametrize("matrix", [Matrix.BT709, Matrix.SMPTE170M, Matrix.BT2020_NCL])
def test_eight_bit_yuv444_survives_the_way_through_rgb(matrix):
    # Rounded codes of colours at the edge may lie outside R'G'B', where they are cut off.
    planes = encoded(0.02 + 0.96 * torch.rand(3, 40, 50), matrix)
    again = encoded(decoded(planes, matrix), matrix)
    assert all(torch.equal(before, after) for before, after in zip(planes, again, strict=True))


@pytest.mark.parametrize("step", [(2, 2), (2, 1), (1, 2), (4, 1), (4, 4)])
@pytest.mark.parametrize("centred", [False, True])
def test_a_chroma_gradient_comes_back_at_the_positions_of_its_samples(step, centred):
    layout = ChromaLayout(*step, centred_x=centred)
    height, width = 16, 24
    y, x = torch.meshgrid(torch.arange(height / step[1]), torch.arange(width / step[0]), indexing="ij")
    middle_x = (step[0] - 1) / 2 if centred else 0.0
    plane = (x * step[0] + middle_x) * 0.01 + (y * step[1] + (step[1] - 1) / 2) * 0.02
    finer = upsample_chroma(plane[None], (height, width), layout)[0]
    luma_y, luma_x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = (slice(4, -4), slice(4, -4))
    expected = luma_x * 0.01 + luma_y * 0.02
    torch.testing.assert_close(finer[inside], expected[inside], atol=1e-6, rtol=0)


@pytest.mark.parametrize("centred", [False, True])
def test_down_and_up_again_does_not_move_chroma(centred):
    layout = ChromaLayout(2, 2, centred_x=centred)
    luma_y, luma_x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    gradient = (luma_x * 0.01 - luma_y * 0.005)[None]
    again = upsample_chroma(downsample_chroma(gradient, layout), (20, 30), layout)
    torch.testing.assert_close(again[:, 4:-4, 4:-4], gradient[:, 4:-4, 4:-4], atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 2)])
def test_odd_and_tiny_sizes_are_rounded_up(size):
    layout = ChromaLayout(2, 2)
    coarse = downsample_chroma(torch.full((2, *size), 0.25), layout)
    assert coarse.shape == (2, -(-size[0] // 2), -(-size[1] // 2))
    assert torch.equal(upsample_chroma(coarse, size, layout), torch.full((2, *size), 0.25))


@pytest.mark.parametrize(
    ("family", "size", "codec", "matrix", "code_range"),
    [
        ("yuv", (640, 360), "h264", Matrix.SMPTE170M, ColorRange.LIMITED),
        ("yuv", (1280, 534), "h264", Matrix.BT709, ColorRange.LIMITED),
        ("yuv", (960, 720), "h264", Matrix.BT709, ColorRange.LIMITED),
        ("yuv", (4000, 3000), "mjpeg", Matrix.SMPTE170M, ColorRange.LIMITED),
        ("rgb", (1920, 1080), "png", Matrix.RGB, ColorRange.FULL),
        ("grey", (1920, 1080), "png", Matrix.RGB, ColorRange.FULL),
    ],
)
def test_unspecified_tags_follow_one_rule(family, size, codec, matrix, code_range):
    resolved = resolve(ColorTags(), family=family, size=size, codec=codec)
    assert (resolved.matrix, resolved.range) == (matrix, code_range)


@pytest.mark.parametrize("codec", ["mjpeg", "webp", "vp8", "mpeg1video", "h261", "h263", "flv1"])
def test_jpeg_and_its_kin_have_chroma_between_the_luma_samples(codec):
    assert chroma_is_centred(codec)
    assert resolve(ColorTags(), family="yuv", size=(1920, 1080), codec=codec).matrix is Matrix.SMPTE170M


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "mpeg2video", "ffv1", "dvvideo"])
def test_other_codecs_have_it_on_the_left_one(codec):
    assert not chroma_is_centred(codec)


def test_specified_tags_are_kept():
    tags = ColorTags(ColorRange.FULL, Matrix.BT2020_NCL, 9, 16)
    assert resolve(tags, family="yuv", size=(64, 48), codec="hevc") == tags


def test_a_matrix_that_is_not_linear_is_refused():
    with pytest.raises(VideoError, match="bt2020_cl"):
        resolve(ColorTags(matrix=Matrix.BT2020_CL), family="yuv", size=(64, 48), codec="hevc")


def test_tags_read_like_ffmpeg():
    tags = ColorTags(ColorRange.LIMITED, Matrix.BT709, 1, 16)
    assert tags.describe() == "bt709, limited, primaries bt709, transfer smpte2084"
