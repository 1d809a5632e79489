"""Code values and R'G'B': the numbers that the definition gives, and the same ones on every device."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.video import (
    CodedFrame,
    Coding,
    ColorRange,
    ColorTags,
    Frame,
    Matrix,
    Orientation,
    SinkOptions,
    open_sink,
    open_source,
    ycbcr,
)
from seedvr2_engine.video.info import Crop
from seedvr2_engine.video.layouts import layout_of
from seedvr2_engine.video.planes import bit_depth, codes_of, coding_for, coding_of, encode_frame, frame_of_codes

MATRICES = [Matrix.BT709, Matrix.FCC, Matrix.SMPTE170M, Matrix.SMPTE240M, Matrix.BT2020_NCL, Matrix.YCGCO]
RANGES = [ColorRange.LIMITED, ColorRange.FULL]
DEPTHS = [8, 9, 10, 12, 14, 16]
LUMA = {
    Matrix.BT709: ("0.2126", "0.0722"),
    Matrix.FCC: ("0.30", "0.11"),
    Matrix.SMPTE170M: ("0.299", "0.114"),
    Matrix.SMPTE240M: ("0.212", "0.087"),
    Matrix.BT2020_NCL: ("0.2627", "0.0593"),
}


def formats() -> list[str]:
    """Every pixel format of this FFmpeg that has a layout."""
    found = []
    for name in sorted(av.video.format.names):
        pix_fmt = av.VideoFormat(name)
        try:
            bits = bit_depth(pix_fmt)
        except Exception:
            continue
        if layout_of(name, bits) is not None:
            found.append(name)
    return found


FORMATS = formats()


def coding(name: str, size: tuple[int, int], code_range=ColorRange.LIMITED, matrix=Matrix.BT709, centred=False):
    layout = layout_of(name, bit_depth(av.VideoFormat(name)), is_centred=centred)
    assert layout is not None
    return Coding(layout, *size, ColorTags(code_range, matrix) if layout.chroma else ColorTags(code_range, Matrix.RGB))


def random_codes(coded: Coding, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    top = 1 << coded.layout.bits
    kind = np.uint8 if top == 256 else np.uint16
    values = rng.integers(0, top, coded.size_bytes // coded.layout.sample_bytes).astype(kind)
    # The ends of the range, where products are largest.
    values[::5] = 0
    values[1::7] = top - 1
    return torch.from_numpy(values.view(np.uint8))


def random_picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """With grey, halves, ends of the range, beyond them, and numbers of very different sizes."""
    picture = torch.rand(4, height, width, generator=torch.Generator().manual_seed(seed))
    picture[:, ::3] = picture[:, ::3] ** 20
    picture[:, 1::4] = picture[0, 1::4]
    picture[:, 2::5] = 0.5
    picture[:, :, ::7] = picture[:, :, ::7] * 3 - 1
    return picture


def test_all_kinds_of_formats_are_there():
    assert {"yuv420p", "yuvj420p", "yuv444p16le", "yuva422p10be", "gbrap12le", "gray16be", "ya8", "bgr0"} <= {*FORMATS}
    assert len(FORMATS) > 90


def exact_from_rgb(matrix: Matrix) -> list[list[Fraction]]:
    if matrix is Matrix.YCGCO:
        quarter, half = Fraction(1, 4), Fraction(1, 2)
        return [[quarter, half, quarter], [-quarter, half, -quarter], [half, Fraction(0), -half]]
    kr, kb = map(Fraction, LUMA[matrix])
    luma = [kr, 1 - kr - kb, kb]
    blue = [(Fraction(i == 2) - luma[i]) / (2 * (1 - kb)) for i in range(3)]
    red = [(Fraction(i == 0) - luma[i]) / (2 * (1 - kr)) for i in range(3)]
    return [luma, blue, red]


def scales(bits: int, code_range: ColorRange) -> tuple[int, int, int, int]:
    """Luma's and chroma's codes per unit and code of zero."""
    step, top = 1 << (bits - 8), (1 << bits) - 1
    full = code_range is ColorRange.FULL
    return top if full else 219 * step, 0 if full else 16 * step, top if full else 224 * step, 128 * step


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("code_range", RANGES)
@pytest.mark.parametrize("bits", DEPTHS)
def test_sums_are_exact_whatever_their_order(bits, code_range, matrix):
    """Weights and values lie on a grid that float64 holds up to the largest sum of magnitudes."""

    def is_on(value: float, grid_bits: int) -> bool:
        return (Fraction(value) * 2**grid_bits).denominator == 1

    weight, offset, chroma = ycbcr._decoding(bits, code_range, matrix)
    top = (1 << bits) - 1
    assert is_on(weight, 51)
    assert is_on(offset, 51)
    for pair in chroma:
        assert all(is_on(value, 45) for value in pair)
        # Chroma is a multiple of 2^-6 of at most half its codes.
        largest = max(abs(weight) * top + abs(offset), 0) + sum(map(abs, pair)) * (1 << (bits - 1))
        assert largest < 4
    for row in ycbcr._encoding(bits, code_range, matrix):
        assert all(is_on(value, 25 - bits) for value in row)
        # Pictures plus 1 are multiples of 2^-23, means of eight of them of 2^-26.
        assert 2 * sum(map(abs, row[:3])) + abs(row[3]) < 2 ** (53 - 26 - (25 - bits))


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("code_range", RANGES)
@pytest.mark.parametrize("bits", [8, 10, 16])
def test_reading_and_writing_follow_the_definition(bits, code_range, matrix):
    name = "yuv444p" if bits == 8 else f"yuv444p{bits}le"
    coded = coding(name, (7, 3), code_range, matrix)
    forward = exact_from_rgb(matrix)
    luma_scale, luma_zero, chroma_scale, chroma_zero = scales(bits, code_range)
    codes = random_codes(coded)
    rgb, _ = coded.decoded(codes)
    picture = random_picture(3, 7)[:3]
    written = coded.layout.planes(coded.encoded(picture, None), 7, 3)
    read = coded.layout.planes(codes, 7, 3)
    for y in range(3):
        for x in range(7):
            # R'G'B' that was read, not clamped, is what the codes came from.
            stored = [int(plane[y, x, 0]) for plane in read]
            wanted = [Fraction(stored[0] - luma_zero, luma_scale)]
            wanted += [Fraction(code - chroma_zero, chroma_scale) for code in stored[1:]]
            got = [Fraction(value) for value in rgb[:, y, x].tolist()]
            if all(0 < value < 1 for value in got):
                for row, value in zip(forward, wanted, strict=True):
                    assert abs(sum(a * b for a, b in zip(row, got, strict=True)) - value) < Fraction(3, 2**25)
            values = [min(max(Fraction(value), Fraction(0)), Fraction(1)) for value in picture[:, y, x].tolist()]
            for index, (row, plane) in enumerate(zip(forward, written, strict=True)):
                scale, zero = (chroma_scale, chroma_zero) if index else (luma_scale, luma_zero)
                exact = min(sum(a * b for a, b in zip(row, values, strict=True)) * scale + zero, (1 << bits) - 1)
                # Pictures are taken to 2^-23; weights cost less.
                assert abs(int(plane[y, x, 0]) - exact) <= Fraction(1, 2) + Fraction(scale, 2**23)


@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize("code_range", RANGES)
def test_grey_has_no_colour(bits, code_range):
    """Every code of grey comes back as itself, and chroma is nothing."""
    zero = 1 << (bits - 1)
    luma = torch.arange(1 << bits)[None]
    none = torch.full_like(luma, zero)
    whole = ycbcr.ChromaLayout()
    for matrix in MATRICES:
        rgb = ycbcr.rgb_from_codes(luma, [none, none], bits, code_range, matrix, whole)
        assert torch.equal(rgb[0], rgb[1])
        assert torch.equal(rgb[0], rgb[2])
        assert torch.equal(rgb[0], ycbcr.normalise(luma, bits, code_range).clamp(0, 1))
        out = [torch.empty_like(luma) for _ in range(3)]
        ycbcr.codes_from_rgb(rgb, bits, code_range, matrix, whole, out)
        assert torch.equal(out[1], none)
        assert torch.equal(out[2], none)
        scale, offset, *_ = scales(bits, code_range)
        assert torch.equal(out[0], luma.clamp(offset, offset + scale))


def test_halves_are_rounded_to_even():
    """0.5 grey is 125.5 in 8 bits."""
    coded = coding("yuv444p", (2, 1))
    assert coded.encoded(torch.full((3, 1, 2), 0.5), None).tolist() == [126, 126, 128, 128, 128, 128]


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (37, 23), (64, 48)])
@pytest.mark.parametrize("name", ["yuv420p", "yuv410p", "yuv411p", "yuv440p", "yuv422p10le", "yuv420p16le"])
def test_rows_at_a_time_are_the_whole(name, size, monkeypatch):
    coded = coding(name, size, centred=size[0] % 2 == 0)
    codes, picture = random_codes(coded), random_picture(size[1], size[0])[:3]
    steps = coded.layout.chroma.step_x, coded.layout.chroma.step_y

    def both():
        return coded.decoded(codes)[0], None if max(steps) > 2 else coded.encoded(picture, None)

    whole = both()
    monkeypatch.setattr(ycbcr, "_CPU_BAND_PX", size[0] * 4)
    apart = both()
    assert torch.equal(whole[0], apart[0])
    assert whole[1] is None or torch.equal(whole[1], apart[1])


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_carried_is_what_the_frame_holds(name):
    """For every format: the bytes of a frame, through tensors and back into a frame, at an odd size."""
    coded = coding_for(name, (37, 11), ColorTags(ColorRange.FULL, Matrix.RGB))
    codes = random_codes(coded)
    frame = frame_of_codes(codes, coded)
    assert torch.equal(codes_of(frame, coding_of(frame, coded.tags, "")), codes)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("name", FORMATS)
def test_a_gpu_gives_the_same_numbers(name):
    layout = layout_of(name, bit_depth(av.VideoFormat(name)))
    matrices, sitings = (MATRICES, (False, True)) if layout.chroma else ([Matrix.RGB], (False,))
    for size in ((1, 1), (3, 5), (37, 23), (64, 48), (1281, 721)):
        picture = random_picture(size[1], size[0])
        for code_range in RANGES:
            for matrix in matrices if size[0] < 1000 else matrices[:1]:
                for centred in sitings:
                    coded = coding(name, size, code_range, matrix, centred)
                    codes = random_codes(coded)
                    for here, there in zip(coded.decoded(codes), coded.decoded(codes.cuda()), strict=True):
                        assert here is there is None or torch.equal(here, there.cpu())
                    steps = (coded.layout.chroma.step_x, coded.layout.chroma.step_y) if coded.layout.chroma else (1, 1)
                    if max(steps) > 2 or len(coded.layout.channels) == 1:
                        continue
                    assert torch.equal(coded.of_picture(picture), coded.of_picture(picture.cuda()).cpu())
                    assert torch.equal(coded.of_picture(picture[:3]), coded.of_picture(picture[:3].cuda()).cpu())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("code_range", RANGES)
def test_a_gpu_divides_every_code_alike(bits, code_range):
    codes = torch.arange(1 << bits)
    for chroma in (False, True):
        here = ycbcr.normalise(codes, bits, code_range, chroma=chroma)
        assert torch.equal(here, ycbcr.normalise(codes.cuda(), bits, code_range, chroma=chroma).cpu())


def test_a_coded_frame_is_cropped_and_turned_like_a_frame():
    coded = coding("yuva420p", (10, 6))
    plain = CodedFrame(random_codes(coded), coded, pts=3, duration=2)
    turned = replace(plain, crop=Crop(1, 2, 3, 0), orientation=Orientation(transpose=True, mirror_x=True))
    assert (plain.shape, turned.shape) == ((4, 6, 10), (4, 6, 4))
    whole = plain.on("cpu")
    expected = whole[:, 2:, 1:7].transpose(1, 2).flip(2)
    assert torch.equal(turned.on("cpu"), expected)
    frame = turned.decoded()
    assert torch.equal(torch.cat([frame.rgb, frame.alpha]), expected)
    assert (frame.pts, frame.duration) == (3, 2)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_coded_frames_and_frames_are_the_same_clip(tmp_path, name):
    pictures = [random_picture(24, 32, seed)[:3].clamp(0, 1) for seed in range(5)]
    files = []
    for way in ("frames", "codes"):
        (tmp_path / way).mkdir()
        options = SinkOptions(codec="ffv1" if name.endswith("mkv") else "auto")
        with open_sink(tmp_path / way / name, width=32, height=24, options=options) as sink:
            for picture in pictures:
                if way == "frames":
                    sink.write(picture)
                else:
                    sink.write_coded(sink.coding.of_picture(picture))
        files.append((tmp_path / way / name).read_bytes())
    assert files[0] == files[1]
    with open_source(tmp_path / "codes" / name) as one, open_source(tmp_path / "codes" / name) as other:
        frames, coded = list(one), list(other.coded())
    assert all(isinstance(frame, Frame) for frame in frames)
    assert all(isinstance(frame, CodedFrame) for frame in coded)
    assert len(frames) == len(coded) == 5
    assert all(torch.equal(a.rgb, b.on("cpu")) for a, b in zip(frames, coded, strict=True))
    assert [(a.pts, a.duration) for a in frames] == [(b.pts, b.duration) for b in coded]


def test_alpha_that_means_nothing_is_not_carried():
    tags = ColorTags(ColorRange.LIMITED, Matrix.BT709)
    frame = encode_frame(torch.rand(3, 6, 8), None, "yuva420p", tags)
    coded = coding_of(frame, tags, "", keeps_alpha=False)
    assert coded.size_bytes == 6 * 8 * 3 // 2
    whole = coding_of(frame, tags, "")
    assert torch.equal(coded.decoded(codes_of(frame, coded))[0], whole.decoded(codes_of(frame, whole))[0])
    packed = encode_frame(torch.rand(3, 6, 8), None, "rgba", ColorTags(ColorRange.FULL, Matrix.RGB))
    packed_coding = coding_of(packed, tags, "", keeps_alpha=False)
    assert packed_coding.decoded(codes_of(packed, packed_coding))[1] is None


def test_a_sink_refuses_codes_that_are_not_its_own(tmp_path):
    with open_sink(tmp_path / "a.mkv", width=32, height=24) as sink:
        with pytest.raises(InvalidArgumentError, match="1152 bytes"):
            sink.write_coded(torch.zeros(1151, dtype=torch.uint8))
        sink.write_coded(torch.zeros(1152, dtype=torch.uint8))
    with open_sink(tmp_path / "a.png", width=32, height=24) as sink:
        assert sink.coding is None
        with pytest.raises(InvalidArgumentError, match=r"write\(\)"):
            sink.write_coded(torch.zeros(1152, dtype=torch.uint8))
        sink.write(torch.rand(3, 24, 32))
