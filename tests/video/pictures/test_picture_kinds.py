"""Every sound picture file is read, in full or with a sentence, or refused with the true reason."""

import numpy as np
import pytest
import torch
from PIL import Image

from seedvr2_engine.errors import VideoError
from seedvr2_engine.video import SinkOptions, open_sink, open_source
from seedvr2_engine.video.reading.pictures import decoding

from ..made.picture_files import codes, exif, png, save_tiff

# Pillow's Orientation numbers, and how the stored picture is turned upright.
TURNS = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],
    7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],
    8: lambda p: p.swapaxes(0, 1)[::-1],
}


def load(path, **options):
    with open_source(path, **options) as source:
        return list(source), source.info, source.warnings


def as_codes(picture, bits=8):
    return (picture * ((1 << bits) - 1)).round().int().permute(1, 2, 0).numpy()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", "16.tif"])
def test_orientation_is_applied_once(tmp_path, orientation, suffix):
    if suffix.endswith(".tif"):
        samples = codes(bits=16) // 257 * 257 if suffix == "16.tif" else codes()
        save_tiff(tmp_path / f"a{suffix}", samples, {274: orientation})
    else:
        Image.fromarray(codes()).save(tmp_path / f"a{suffix}", exif=exif(orientation), lossless=True)
    (frame,), info, _ = load(tmp_path / f"a{suffix}")
    assert np.array_equal(as_codes(frame.rgb), TURNS[orientation](codes()))
    with open_sink(tmp_path / "b.png", width=info.width, height=info.height, source=info) as sink:
        sink.write(frame.rgb, metadata=frame.metadata)
    assert torch.equal(load(tmp_path / "b.png")[0][0].rgb, frame.rgb)


@pytest.mark.parametrize(
    "suffix", [".png", ".tif", ".bmp", ".tga", ".ppm", ".pcx", ".sgi", ".qoi", ".dds", ".jp2", ".webp"]
)
def test_formats_that_are_read(tmp_path, suffix):
    Image.fromarray(codes()).save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    (frame,), info, said = load(tmp_path / f"a{suffix}")
    assert (info.kind, info.has_alpha, said) == ("image", False, [])
    assert np.array_equal(as_codes(frame.rgb), codes())


@pytest.mark.parametrize("compression", ["jpeg", "lzma", "packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd"])
def test_compressed_tiff(tmp_path, compression):
    Image.fromarray(codes()).save(tmp_path / "a.tif", compression=compression)
    (frame,), _, _ = load(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as picture:
        assert np.array_equal(as_codes(frame.rgb), np.asarray(picture.convert("RGB")))


def test_colours_that_are_multiplied_by_alpha(tmp_path):
    for bits in (8, 16):
        half = (1 << bits) // 2 - 1
        samples = np.concatenate([codes(bits=bits) // 2, np.full((31, 45, 1), half, codes(bits=bits).dtype)], -1)
        save_tiff(tmp_path / "a.tif", samples, {338: 1})
        (frame,), info, _ = load(tmp_path / "a.tif")
        assert info.has_alpha
        assert np.abs(as_codes(frame.rgb) - codes()).max() <= 3


def test_opaque_stays_opaque(tmp_path):
    opaque = Image.fromarray(codes())
    opaque.convert("P").save(tmp_path / "palette.png")
    opaque.convert("RGBA").save(tmp_path / "rgba.png")
    opaque.convert("LA").save(tmp_path / "la.png")
    opaque.convert("RGBA").save(tmp_path / "rgba.webp", lossless=True)
    opaque.convert("RGBA").save(tmp_path / "rgba.tif")
    opaque.convert("P").save(tmp_path / "palette.gif")
    for path in sorted(tmp_path.iterdir()):
        (frame,), info, _ = load(path)
        assert (info.has_alpha, frame.alpha) == (False, None), path
        for target in ("out.jpg", "out.mp4"):
            options = SinkOptions(overwrite=True)
            sink = open_sink(tmp_path / target, width=info.width, height=info.height, source=info, options=options)
            sink.abort(keep_partial=False)
            assert not any("alpha" in sentence for sentence in sink.warnings), path


def test_transparent_stays_transparent(tmp_path):
    alpha = (codes()[..., 0] > 99).astype(np.uint8) * 255
    picture = Image.fromarray(codes())
    picture.putalpha(Image.fromarray(alpha))
    for name in ("a.png", "a.tif", "a.webp", "a.tga"):
        picture.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    Image.fromarray(alpha).convert("P").save(tmp_path / "palette.png", transparency=0)
    for path in sorted(tmp_path.iterdir()):
        (frame,), info, _ = load(path)
        assert info.has_alpha, path
        assert np.array_equal(as_codes(frame.alpha)[..., 0], alpha), path


@pytest.mark.parametrize(("suffix", "sentence"), [(".tif", "3 pages the first"), (".mpo", "3 pictures the first")])
def test_more_pictures_than_one_are_said(tmp_path, suffix, sentence):
    first, second = Image.fromarray(codes()), Image.fromarray(codes()[::-1].copy())
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=[second, second])
    (frame,), _, said = load(tmp_path / f"a{suffix}")
    assert sentence in said[0]
    assert np.abs(as_codes(frame.rgb) - codes()).mean() < 12


def test_an_icon_is_read_at_its_largest(tmp_path):
    Image.fromarray(codes(64, 64)).save(tmp_path / "a.ico", sizes=[(16, 16), (64, 64), (32, 32)])
    (frame,), info, said = load(tmp_path / "a.ico")
    assert (info.width, info.height) == (64, 64)
    assert "3 sizes the largest" in said[0]
    assert np.array_equal(as_codes(frame.rgb), codes(64, 64))


@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif", ".avif"])
def test_animated_pictures_are_read_whole(tmp_path, suffix):
    frames = [Image.fromarray(np.roll(codes(), 9 * index, 1)) for index in range(4)]
    options = {} if suffix == ".avif" else {"loop": 3}
    frames[0].save(
        tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], duration=[40, 80, 120, 40], lossless=True,
        **options,
    )  # fmt: skip
    found, info, _ = load(tmp_path / f"a{suffix}")
    assert (info.frame_count, len(found), info.has_alpha) == (4, 4, False)
    # A GIF's count is of repetitions.
    assert info.loop_count == {".gif": 4, ".avif": None}.get(suffix, 3)
    starts = [float((frame.pts - found[0].pts) * info.time_base) for frame in found]
    assert starts == pytest.approx([0, 0.04, 0.12, 0.24], abs=0.002)
    if suffix in (".webp", ".png"):
        for frame, picture in zip(found, frames, strict=True):
            assert np.array_equal(as_codes(frame.rgb), np.asarray(picture))
    middle, _, _ = load(tmp_path / f"a{suffix}", start=1, frames=2)
    assert [torch.equal(part.rgb, whole.rgb) for part, whole in zip(middle, found[1:3], strict=True)] == [True, True]


def write_unread(folder):
    floats = codes().astype("<f4")
    save_tiff(folder / "float.tif", floats, {339: 3})
    save_tiff(folder / "half.tif", codes()[..., 0].astype("<f2"), {339: 3})
    save_tiff(folder / "signed.tif", codes()[..., 0].astype("<i2"), {339: 2})
    save_tiff(folder / "long.tif", codes()[..., 0].astype("<u4"), {})
    save_tiff(folder / "odd.tif", codes(), {259: 34000})
    for name, start in {
        "a.exr": b"v/1\x01\x02\0\0\0", "a.jxl": b"\xff\x0a", "a.heic": b"\0\0\0\x18ftypheic", "a.hdr": b"#?RADIANCE\n",
        "a.xcf": b"gimp xcf v011\0", "a.svg": b"<?xml version='1.0'?>\n<svg>", "a.pdf": b"%PDF-1.7",
        "a.cr3": b"\0\0\0\x18ftypcrx ",
        "a.raf": b"FUJIFILMCCD-RAW ",
    }.items():  # fmt: skip
        (folder / name).write_bytes(start + bytes(200))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("float.tif", "floating point numbers of 32 bits"), ("half.tif", "floating point numbers of 16 bits"),
        ("signed.tif", "signed numbers"), ("long.tif", "32 bits"), ("odd.tif", "a TIFF of compression 34000"),
        ("a.exr", "an OpenEXR picture"), ("a.jxl", "a JPEG XL picture"), ("a.heic", "a HEIF picture"),
        ("a.hdr", "a Radiance HDR picture"), ("a.xcf", "a GIMP document"), ("a.svg", "an SVG drawing"),
        ("a.pdf", "a PDF document"), ("a.cr3", "a camera's raw picture"), ("a.raf", "a camera's raw picture"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_called_by_its_name(tmp_path, name, what):
    write_unread(tmp_path)
    with pytest.raises(VideoError) as error:
        load(tmp_path / name)
    assert f"found {what}" in str(error.value)
    assert "first." in str(error.value)
    assert "damaged" not in str(error.value)


def test_tiles_of_sixteen_bits_are_not_taken_for_black(tmp_path):
    """FFmpeg decodes tiled TIFF files to nothing, without an error."""
    save_tiff(tmp_path / "a.tif", codes(32, 48, bits=16), {}, tile=True)
    (frame,), _, said = load(tmp_path / "a.tif")
    assert np.abs(as_codes(frame.rgb) - codes(32, 48)).max() <= 1
    assert "16 bits per sample are read as 8" in said[0]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_truncated_pictures_are_named(tmp_path, suffix):
    Image.fromarray(codes(200, 300)).save(tmp_path / f"a{suffix}")
    data = (tmp_path / f"a{suffix}").read_bytes()
    for kept in (len(data) * 2 // 3, len(data) // 2):
        (tmp_path / f"a{suffix}").write_bytes(data[:kept])
        with pytest.raises(VideoError, match=rf"a\{suffix}: .*(truncated|found none that decodes|does not decode)"):
            load(tmp_path / f"a{suffix}")


def test_what_a_camera_appends_is_no_damage(tmp_path):
    Image.fromarray(codes()).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole + bytes(200_000))
    assert len(load(tmp_path / "a.jpg")[0]) == 1
    png(tmp_path / "b.png", codes())
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes() + b"appended")
    assert len(load(tmp_path / "b.png")[0]) == 1


def test_a_forged_size_is_refused_at_once(tmp_path):
    for size, sentence in (
        ((100_000, 100_000), "at most 1074 megapixels, found 100000x100000"),
        ((30_000, 30_000), "truncated"),
    ):
        png(tmp_path / "a.png", codes(), size=size)
        with pytest.raises(VideoError, match=sentence):
            load(tmp_path / "a.png")


def test_pictures_beyond_ffmpegs_limit(tmp_path, monkeypatch):
    """FFmpeg refuses from 16384 x 16384 on; the limit is lowered here, so that the test is small."""
    from seedvr2_engine.video.writing.pictures import picture_format

    png(tmp_path / "a.png", codes())
    for module in (decoding, picture_format):
        monkeypatch.setattr(module, "_FFMPEG_MOST_PIXELS", 1000)
    monkeypatch.setattr(picture_format, "_png_by_ffmpeg", None)
    (frame,), info, _ = load(tmp_path / "a.png")
    assert np.array_equal(as_codes(frame.rgb), codes())
    alpha = torch.linspace(0, 1, 31 * 45).reshape(1, 31, 45)
    for bits in (8, 16):
        for opacity in (None, alpha):
            options = SinkOptions(bit_depth=bits, overwrite=True)
            with open_sink(tmp_path / "b.png", width=45, height=31, source=info, options=options) as sink:
                sink.write(frame.rgb, alpha=opacity)
            with monkeypatch.context() as usual:
                usual.setattr(decoding, "_FFMPEG_MOST_PIXELS", 1 << 28)
                (back,), described, _ = load(tmp_path / "b.png")
            assert described.bit_depth == bits
            assert torch.equal(back.rgb, frame.rgb)
            assert opacity is None or (back.alpha - opacity).abs().max() <= 0.505 / ((1 << bits) - 1)


def test_a_tiff_beyond_pillows_limit(tmp_path, monkeypatch):
    """Pillow's limit is lowered here; FFmpeg takes over, and what it cannot decode gets a sentence."""
    Image.fromarray(codes()).save(tmp_path / "a.tif")
    Image.fromarray(codes()).save(tmp_path / "b.tif", compression="jpeg")
    save_tiff(tmp_path / "c.tif", codes(32, 48), {}, tile=True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    monkeypatch.setattr(decoding, "_LIBTIFF_MOST_PIXELS", 1000)
    (frame,), _, _ = load(tmp_path / "a.tif")
    assert np.array_equal(as_codes(frame.rgb), codes())
    for name in ("b.tif", "c.tif"):
        with pytest.raises(VideoError, match=r"expected a TIFF of at most .* found 4[58]x3[12]"):
            load(tmp_path / name)


def test_sizes_that_a_format_does_not_hold_are_refused_at_opening(tmp_path):
    from seedvr2_engine.errors import OutputError

    for name, width in (("a.webp", 16384), ("a.jpg", 65536)):
        with pytest.raises(OutputError, match=f"{width}x8 were wanted"):
            open_sink(tmp_path / name, width=width, height=8)
    assert list(tmp_path.iterdir()) == []
