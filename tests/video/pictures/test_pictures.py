"""Single pictures and sequences, in and out."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from seedvr2_engine.errors import OutputError, VideoError
from seedvr2_engine.quality.metrics import psnr
from seedvr2_engine.video import SinkOptions, open_sink, open_source
from seedvr2_engine.video.reading.pictures.selection import list_pictures

from ..made.clips import ramp, write_clip


def picture(height: int = 31, width: int = 45) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack((x, y, 0.5 + 0.4 * torch.sin(5 * x * y)))


def save(path, rgb, alpha=None, **options):
    with open_sink(path, width=rgb.shape[2], height=rgb.shape[1], options=SinkOptions(**options)) as sink:
        sink.write(rgb, alpha=alpha)
    return path


def load(path):
    with open_source(path) as source:
        (frame,) = source
        return frame, source.info


@pytest.mark.parametrize(
    ("name", "options", "half_step"),
    [
        ("a.png", {}, 0.5 / 255),
        ("a.tiff", {}, 0.5 / 255),
        ("a.png", {"bit_depth": 16}, 0.5 / 65535),
        ("a.tif", {"bit_depth": 12}, 0.5 / 65535),
        ("a.webp", {"quality": 100}, 0.5 / 255),
    ],
)
def test_lossless_pictures_are_rounded_and_nothing_else(tmp_path, name, options, half_step):
    frame, info = load(save(tmp_path / name, picture(), **options))
    assert info.kind == "image"
    assert (info.width, info.height, info.frame_count, info.average_rate) == (45, 31, 1, None)
    assert (frame.rgb - picture()).abs().max() <= half_step * 1.01
    assert info.bit_depth == (16 if "bit_depth" in options else 8)


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
@pytest.mark.parametrize("bit_depth", [8, 16])
def test_alpha_is_kept(tmp_path, name, bit_depth):
    alpha = torch.linspace(0, 1, 31 * 45).reshape(1, 31, 45)
    frame, info = load(save(tmp_path / name, picture(), alpha, bit_depth=bit_depth))
    assert info.has_alpha
    assert (frame.alpha - alpha).abs().max() <= 0.505 / ((1 << bit_depth) - 1)
    assert (frame.rgb - picture()).abs().max() <= 0.505 / ((1 << bit_depth) - 1)


@pytest.mark.parametrize(("name", "floor_db"), [("a.jpg", 40), ("a.webp", 34)])
def test_lossy_pictures_are_close_and_their_quality_can_be_chosen(tmp_path, name, floor_db):
    fine, _ = load(save(tmp_path / name, picture()))
    assert psnr(fine.rgb, picture()) > floor_db
    assert (fine.rgb - picture()).mean().abs() < 0.005
    coarse, _ = load(save(tmp_path / name, picture(), quality=10, overwrite=True))
    assert psnr(coarse.rgb, picture()) < psnr(fine.rgb, picture()) - 3


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(2, lambda p: p.flip(2)), (3, lambda p: p.flip(1, 2)), (6, lambda p: p.transpose(1, 2).flip(2)),
     (8, lambda p: p.transpose(1, 2).flip(1))],
)  # fmt: skip
def test_exif_orientation_is_applied(tmp_path, orientation, turn):
    plain = save(tmp_path / "a.jpg", picture(32, 48))
    stored, _ = load(plain)
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01" + orientation.to_bytes(2, "big") + b"\x00\x00"
    exif = b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00"
    data = plain.read_bytes()
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "b.jpg").write_bytes(data[:2] + segment + data[2:])
    turned, info = load(tmp_path / "b.jpg")
    assert turned.rgb.shape[1:] == (info.height, info.width)
    assert torch.equal(turned.rgb, turn(stored.rgb))


def test_awkward_names_are_names_and_not_patterns(tmp_path):
    name = tmp_path / "a [1] 100%* é.png"
    name.write_bytes(save(tmp_path / "plain.png", picture()).read_bytes())
    assert load(name)[1].kind == "image"


def test_a_picture_takes_one_frame(tmp_path):
    sink = open_sink(tmp_path / "a.png", width=45, height=31)
    sink.write(picture())
    with pytest.raises(OutputError, match="expected one frame"):
        sink.write(picture())
    kept = sink.abort(keep_partial=True)
    assert kept.match("a.partial-????????.png")
    assert load(kept)[1].width == 45


def numbered(folder, count=4, **options):
    with open_sink(folder, width=64, height=48, options=SinkOptions(**options)) as sink:
        for index in range(count):
            sink.write(torch.from_numpy(ramp(index)).permute(2, 0, 1) / 255)
    return folder


def test_a_folder_of_pictures_there_and_back(tmp_path):
    folder = numbered(tmp_path / "frames")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["frames"]
    assert sorted(entry.name for entry in folder.iterdir()) == [f"{i:06d}.png" for i in range(1, 5)]
    with open_source(folder, sequence_rate=Fraction(30)) as source:
        info = source.info
        frames = list(source)
    assert (info.kind, info.frame_count, info.count_method, info.average_rate) == ("sequence", 4, "files", 30)
    assert [frame.pts * info.time_base for frame in frames] == [Fraction(i, 30) for i in range(4)]
    for index, frame in enumerate(frames):
        assert np.array_equal((frame.rgb * 255).round().byte().permute(1, 2, 0).numpy(), ramp(index))


def test_patterns_there_and_back(tmp_path):
    (tmp_path / "notes.txt").touch()
    numbered(tmp_path / "shot_%04d.tif")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "notes.txt",
        *(f"shot_000{i}.tif" for i in range(1, 5)),
    ]
    for pattern in ("shot_%04d.tif", "shot_*.tif", "shot_%d.tif"):
        with open_source(tmp_path / pattern, start=1, frames=2) as source:
            numbers = [round(float(frame.rgb[2, 0, 0] * 255)) // 5 for frame in source]
        assert numbers == [1, 2]


def test_numbers_are_sorted_as_numbers(tmp_path):
    for index in (1, 2, 10):
        save(tmp_path / f"f{index}.png", picture())
    assert [path.name for path in list_pictures(tmp_path)] == ["f1.png", "f2.png", "f10.png"]


def test_a_hole_in_the_numbers_is_named(tmp_path):
    folder = numbered(tmp_path / "frames")
    (folder / "000003.png").unlink()
    with pytest.raises(VideoError, match="expected picture 3 after 2, found 4"):
        open_source(folder / "%06d.png")


def test_a_sequence_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    folder = numbered(tmp_path / "frames")
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="exist already"):
        numbered(folder, 2)
    sink = open_sink(folder, width=64, height=48, options=SinkOptions(overwrite=True))
    sink.write(torch.zeros(3, 48, 64))
    assert len(list(folder.glob("*.png"))) == 4
    assert sink.abort(keep_partial=False) is None
    assert len(list(folder.glob("*.png"))) == 4
    numbered(folder, 2, overwrite=True)
    # Only the names that were written are replaced; longer sequences keep their rest.
    assert sorted(p.name for p in folder.iterdir()) == [*(f"00000{i}.png" for i in range(1, 5)), "mine.txt"]
    assert load(folder / "000002.png")[0].rgb[2, 0, 0] * 255 == 5


def test_an_aborted_sequence_is_kept_under_another_name(tmp_path):
    sink = open_sink(tmp_path / "frames", width=64, height=48)
    sink.write(torch.zeros(3, 48, 64))
    kept = sink.abort(keep_partial=True)
    assert kept.match("frames.partial-????????")
    assert [entry.name for entry in kept.iterdir()] == ["000001.png"]
    assert [entry.name for entry in tmp_path.iterdir()] == [kept.name]


def test_pictures_of_two_sizes_are_refused(tmp_path):
    save(tmp_path / "1.png", picture())
    save(tmp_path / "2.png", picture(20, 20))
    with pytest.raises(VideoError, match=r"2\.png: expected 45x31 like the first picture, found 20x20"):
        list(open_source(tmp_path))


def test_deep_sources_make_deep_pictures(tmp_path):
    source = save(tmp_path / "a.png", picture(), bit_depth=16)
    frame, info = load(source)
    with open_sink(tmp_path / "b.png", width=45, height=31, source=info) as sink:
        sink.write(frame.rgb)
    assert torch.equal(load(tmp_path / "b.png")[0].rgb, frame.rgb)
    with open_sink(tmp_path / "c.jpg", width=45, height=31, source=info) as sink:
        sink.write(frame.rgb)
    assert any("8 bits per sample, 16 were wanted" in warning for warning in sink.warnings)


def test_a_clip_becomes_pictures_and_a_clip_again(tmp_path):
    clip = write_clip(tmp_path / "a.mkv", [ramp(i) for i in range(3)])
    with open_source(clip) as source, open_sink(tmp_path / "p", width=64, height=48, source=source.info) as sink:
        for frame in source:
            sink.write(frame.rgb, pts=frame.pts)
    with open_source(tmp_path / "p") as source:
        options = SinkOptions(codec="ffv1")
        with open_sink(tmp_path / "b.mkv", width=64, height=48, source=source.info, options=options) as sink:
            for frame in source:
                sink.write(frame.rgb, pts=frame.pts)
    with open_source(tmp_path / "b.mkv") as back:
        for index, frame in enumerate(back):
            assert np.array_equal((frame.rgb * 255).round().byte().permute(1, 2, 0).numpy(), ramp(index))
