"""Sequences of pictures: looked over before they are read; names, numbers and rates."""

import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from seedvr2_engine.cli.arguments import parse_rate
from seedvr2_engine.errors import InvalidArgumentError, OutputError, VideoError
from seedvr2_engine.video import SinkOptions, open_sink, open_source

from ..made.picture_files import ADOBE_PRIMARIES, codes, png, profile, save_tiff


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def through(source, target, *, start=0, frames=None, rate=None, overwrite=False):
    """Pass pictures through reading and writing; returns the source's description and all sentences."""
    with open_source(source, start=start, frames=frames, sequence_rate=rate) as pictures:
        info, options = pictures.info, SinkOptions(overwrite=overwrite)
        with open_sink(target, width=info.width, height=info.height, source=info, options=options) as sink:
            for frame in pictures:
                sink.write(
                    frame.rgb, alpha=frame.alpha, pts=frame.pts, duration=frame.duration, metadata=frame.metadata
                )
        return info, [*pictures.warnings, *sink.warnings]


def shots(folder, *numbers, suffix=".png"):
    folder.mkdir(exist_ok=True)
    for number in numbers:
        Image.new("RGB", (32, 24), (number % 256, 0, 0)).save(folder / f"shot.{number}{suffix}")
    return folder


def test_a_folder_keeps_the_names(tmp_path):
    through(shots(tmp_path / "in", 1001, 1002, 1005, suffix=".jpg"), tmp_path / "out")
    assert names(tmp_path / "out") == ["shot.1001.png", "shot.1002.png", "shot.1005.png"]


def test_a_pattern_keeps_the_numbers_and_the_gaps(tmp_path):
    through(shots(tmp_path / "in", 1001, 1002, 1005), tmp_path / "a_%06d.png", start=1)
    assert names(tmp_path) == ["a_001002.png", "a_001005.png", "in"]
    with Image.open(tmp_path / "a_001005.png") as picture:
        assert picture.getpixel((0, 0)) == (1005 % 256, 0, 0)


def test_names_without_numbers_are_counted_and_that_is_said(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "ab":
        Image.new("RGB", (32, 24)).save(folder / f"{name}.png")
    _, said = through(folder, tmp_path / "%02d.png")
    assert names(tmp_path) == ["01.png", "02.png", "in"]
    assert "no rising numbers" in said[0]


def test_two_pictures_of_one_name_are_refused(tmp_path):
    folder = shots(shots(tmp_path / "in", 1), 1, suffix=".jpg")
    with pytest.raises(OutputError, match=r"two that would become shot\.1\.png"):
        through(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_the_names_that_are_written_are_replaced(tmp_path):
    source = shots(tmp_path / "in", 1, 2)
    target = shots(tmp_path / "out", 2, 3)
    with pytest.raises(OutputError, match="exist already"):
        through(source, target)
    through(source, target, overwrite=True)
    assert names(target) == ["shot.1.png", "shot.2.png", "shot.3.png"]


def test_a_sequence_is_not_written_over_itself(tmp_path):
    source = shots(tmp_path / "in", 1, 2)
    with pytest.raises(OutputError, match="another place than the input's"):
        through(source, source, overwrite=True)


def test_pictures_of_all_depths_and_alphas_together(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    half = Image.fromarray(codes())
    half.putalpha(128)
    Image.fromarray(codes()).save(folder / "1.png")
    half.save(folder / "2.png")
    Image.fromarray(codes()[..., 0]).save(folder / "3.png")
    png(folder / "4.png", codes(bits=16))
    Image.fromarray(codes()[..., 0]).convert("1").save(folder / "5.png")
    info, said = through(folder, tmp_path / "out")
    assert (info.bit_depth, info.has_alpha, said) == (16, True, [])
    with open_source(tmp_path / "out") as back:
        frames = list(back)
    assert [round(float(frame.alpha.mean()), 2) for frame in frames] == [1, 0.5, 1, 1, 1]
    assert np.array_equal((frames[3].rgb * 65535).round().int().permute(1, 2, 0).numpy(), codes(bits=16))


def test_a_picture_of_another_size_is_named_before_anything_is_read(tmp_path):
    folder = shots(tmp_path / "in", 1, 2)
    Image.new("RGB", (32, 25)).save(folder / "shot.3.png")
    with pytest.raises(VideoError, match=r"shot\.3\.png: expected 32x24 like the first picture, found 32x25"):
        open_source(folder)
    assert open_source(folder, frames=2).info.selected_frames == 2


def test_a_picture_without_its_end_is_named_before_anything_is_read(tmp_path):
    folder = shots(tmp_path / "in", 1, 2, 3)
    whole = (folder / "shot.2.png").read_bytes()
    (folder / "shot.2.png").write_bytes(whole[:-12])
    with pytest.raises(VideoError, match=r"shot\.2\.png: the picture is truncated"):
        open_source(folder)
    with open_source(folder, damaged="keep") as source:
        assert len(list(source)) == 3


def test_a_picture_of_another_kind_of_samples_is_named(tmp_path):
    """Half floats, which Pillow does not know and FFmpeg takes for whole numbers."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "12":
        save_tiff(folder / f"{name}.tif", codes()[..., 0].astype("<f2"), {339: 3})
    with pytest.raises(VideoError, match=r"1\.tif: .* found floating point numbers of 16 bits"):
        open_source(folder)
    Image.fromarray(codes()).save(folder / "1.tif")
    with pytest.raises(VideoError, match=r"2\.tif: .* found floating point numbers of 16 bits"):
        open_source(folder)


def test_each_picture_keeps_its_own_profile(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, icc in (("1", profile()), ("2", profile(ADOBE_PRIMARIES))):
        Image.fromarray(codes()).save(folder / f"{name}.png", icc_profile=icc)
    _, said = through(folder, tmp_path / "out")
    assert "2.png: its colour profile is not the first picture's" in said[0]
    for name, icc in (("1", profile()), ("2", profile(ADOBE_PRIMARIES))):
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert picture.info["icc_profile"] == icc


def test_a_rate_is_a_sequences(tmp_path):
    folder = shots(tmp_path / "in", 1, 2, 3)
    info, _ = through(folder, tmp_path / "a.mkv", rate=Fraction(30000, 1001))
    assert info.average_rate == Fraction(30000, 1001)
    with open_source(tmp_path / "a.mkv") as clip:
        assert clip.info.average_rate == pytest.approx(Fraction(30000, 1001), abs=0.01)
    for name in ("a.mkv", "in/shot.1.png"):
        with pytest.raises(InvalidArgumentError, match="rate: expected a sequence of pictures"):
            open_source(tmp_path / name, sequence_rate=Fraction(25))


@pytest.mark.parametrize(
    ("text", "rate"),
    [("25", 25), ("24000/1001", Fraction(24000, 1001)), ("23.976", Fraction(24000, 1001)), ("12.5", Fraction(25, 2)),
     ("29.97", Fraction(30000, 1001)), ("59.94", Fraction(60000, 1001)), ("0.5", Fraction(1, 2)), ("24.0", 24)],
)  # fmt: skip
def test_rates_as_people_write_them(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["0", "-1", "1/0", "fast", "nan", "inf", "1e9", ""])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(InvalidArgumentError, match="rate: expected"):
        parse_rate(text)


def test_a_trimmed_sequence_reads_only_what_it_needs(tmp_path):
    folder = shots(tmp_path / "in", *range(1, 6))
    shutil.copy(folder / "shot.4.png", folder / "shot.2.png")
    with open_source(folder, start=3, frames=1) as source:
        (frame,) = source
    assert (source.info.frame_count, frame.pts) == (5, 3)
    assert torch.equal((frame.rgb[:, 0, 0] * 255).round().int(), torch.tensor([4, 0, 0], dtype=torch.int32))
