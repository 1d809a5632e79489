"""What a picture file says beside its pixels comes through from every kind of picture to every other."""

import gc
import struct
import threading
import zlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, PngImagePlugin

from seedvr2_engine.video import SinkOptions, open_sink, open_source
from seedvr2_engine.video.exif import resolution_of, with_size, without_turn
from seedvr2_engine.video.profiles import name_of, space_of, tags_of

from ..made.picture_files import ADOBE_PRIMARIES, P3_PRIMARIES, SRGB_PRIMARIES, XMP, codes, exif, iccp, png, profile

KINDS = [".png", ".tif", ".jpg", ".webp"]


def full_picture(path):
    """A picture with all there is, stored lying on its side."""
    picture = Image.fromarray(codes())
    blocks = {"icc_profile": profile(), "exif": exif(6)}
    if path.suffix == ".png":
        notes = PngImagePlugin.PngInfo()
        notes.add_text("parameters", "a cat")
        notes.add_itxt("Titel", "Größe 寸")
        notes.add_itxt("XML:com.adobe.xmp", XMP.decode())
        picture.save(path, dpi=(300, 300), pnginfo=notes, **blocks)
    elif path.suffix == ".jpg":
        picture.save(path, dpi=(300, 300), xmp=XMP, quality=95, **blocks)
    elif path.suffix == ".webp":
        tags = Image.Exif()
        tags.load(exif(6))
        tags[282], tags[283], tags[296] = 300.0, 300.0, 2
        picture.save(path, lossless=True, xmp=XMP, icc_profile=profile(), exif=tags.tobytes())
    else:
        # Pillow writes no EXIF of a camera into TIFF files; ours are read by Pillow in the tests of this file.
        full_picture(path.with_suffix(".jpg"))
        return through(path.with_suffix(".jpg"), path)[0]
    return path


def through(source, target, **options):
    """Pass a picture through reading and writing; returns the target, the source's description and all sentences."""
    with open_source(source) as pictures:
        info = pictures.info
        opts = SinkOptions(**options)
        with open_sink(target, width=info.width, height=info.height, source=info, options=opts) as sink:
            said = [*pictures.warnings, *sink.warnings]
            for frame in pictures:
                sink.write(frame.rgb, alpha=frame.alpha, metadata=frame.metadata)
    return target, info, said


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_profile_exif_xmp_and_resolution_come_through(tmp_path, source, target):
    written, _, said = through(full_picture(tmp_path / f"a{source}"), tmp_path / f"b{target}")
    assert [sentence for sentence in said if "notes" not in sentence] == []
    with Image.open(written) as picture:
        picture.load()
        # Upright pixels, and a tag that says so: a reader that turns by the tag does not turn them again.
        assert picture.size == (31, 45)
        assert picture.info["icc_profile"] == profile()
        tags = picture.getexif()
        assert (tags[271], tags[274], tags[306]) == ("Acme", 1, "2023:05:06 07:08:09")
        assert tags.get_ifd(0x8825)[2] == (50.0, 6.0, 7.5)
        inner = tags.get_ifd(0x8769)
        assert (float(inner[0x829A]), inner[0x927C]) == (1 / 250, b"maker\0note")
        assert source == ".tif" or (inner[0xA002], inner[0xA003]) == (31, 45)
        xmp = picture.tag_v2[700] if target == ".tif" else picture.info.get("xmp") or picture.info["XML:com.adobe.xmp"]
        xmp = xmp.encode() if isinstance(xmp, str) else xmp
        assert b"Orientation" in xmp
        assert b'Orientation="6"' not in xmp
        dpi = (tags[282], tags[283]) if target == ".webp" else picture.info["dpi"]
        assert [round(float(value)) for value in dpi] == [300, 300]


def test_an_orientation_of_xmp_alone_turns_nothing(tmp_path):
    for name in ("a.jpg", "a.tif"):
        Image.fromarray(codes()).save(
            tmp_path / name, **({"xmp": XMP} if name == "a.jpg" else {"tiffinfo": {700: XMP}})
        )
        written, info, _ = through(tmp_path / name, tmp_path / "b.png", overwrite=True)
        assert (info.width, info.height) == (45, 31)
        with Image.open(written) as picture:
            assert 'Orientation="6"' in picture.info["XML:com.adobe.xmp"]


def test_notes_of_png_are_kept_in_png_and_missed_elsewhere(tmp_path):
    source = full_picture(tmp_path / "a.png")
    with Image.open(through(source, tmp_path / "b.png")[0]) as picture:
        assert (picture.text["parameters"], picture.text["Titel"]) == ("a cat", "Größe 寸")
    assert any("notes" in sentence for sentence in through(source, tmp_path / "b.jpg")[2])


def test_what_stands_behind_the_pixels_of_png_is_found(tmp_path):
    path = full_picture(tmp_path / "a.png")
    data = path.read_bytes()
    at = data.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(data[at : at + 4], "big")
    note = b"Comment\0\1\0\0\0" + zlib.compress("später".encode())
    late = struct.pack(">I", len(note)) + b"iTXt" + note + struct.pack(">I", zlib.crc32(b"iTXt" + note))
    path.write_bytes(data[:at] + data[end:-12] + data[at:end] + late + data[-12:])
    with Image.open(through(path, tmp_path / "b.png")[0]) as picture:
        assert picture.size == (31, 45)
        assert (picture.getexif()[271], picture.getexif()[274]) == ("Acme", 1)
        assert (picture.text["Comment"], picture.text["parameters"]) == ("später", "a cat")


@pytest.mark.parametrize("target", [".png", ".tif"])
def test_sixteen_bits_and_a_profile_together(tmp_path, target):
    samples = codes(bits=16)
    source = png(tmp_path / "a.png", samples, iccp(profile()))
    written, info, said = through(source, tmp_path / f"b{target}")
    assert (info.bit_depth, said) == (16, [])
    with open_source(written) as back:
        assert back.info.metadata.icc == profile()
        assert np.array_equal((next(iter(back)).rgb * 65535).round().int().permute(1, 2, 0).numpy(), samples)


def test_a_profile_crashes_nothing(tmp_path):
    """PyAV frees the metadata of a frame's side data that FFmpeg frees again: a profile's name, in a PNG file."""
    path = png(tmp_path / "a.png", codes(), iccp(profile()))

    def read():
        for _ in range(20):
            with open_source(path) as source:
                assert next(iter(source)).metadata.icc == profile()

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", [".png", ".tif", ".jpg"])
def test_resolution_that_differs_across_and_down(tmp_path, source, target):
    Image.fromarray(codes()).save(tmp_path / f"a{source}", dpi=(600, 300))
    written, info, _ = through(tmp_path / f"a{source}", tmp_path / f"b{target}")
    assert info.sample_aspect_ratio == Fraction(1, 2)
    with open_source(written) as back:
        assert back.info.sample_aspect_ratio == Fraction(1, 2)
        assert [round(value) for value in back.info.metadata.dpi] == [600, 300]


def test_resolution_turns_with_the_picture(tmp_path):
    Image.fromarray(codes()).save(tmp_path / "a.jpg", dpi=(600, 300), exif=exif(6))
    with open_source(through(tmp_path / "a.jpg", tmp_path / "b.png")[0]) as back:
        assert back.info.sample_aspect_ratio == 2
        assert [round(value) for value in back.info.metadata.dpi] == [300, 600]


@pytest.mark.parametrize("target", [*KINDS, ".mp4"])
def test_pixels_that_are_not_square(tmp_path, target):
    source = png(tmp_path / "a.png", codes(32, 48), (b"pHYs", (3).to_bytes(4, "big") + (4).to_bytes(4, "big") + b"\0"))
    with open_source(through(source, tmp_path / f"b{target}")[0]) as back:
        assert back.info.sample_aspect_ratio == Fraction(4, 3)


def test_png_says_no_resolution_that_nobody_knows(tmp_path):
    with open_sink(tmp_path / "a.png", width=8, height=8) as sink:
        sink.write(torch.zeros(3, 8, 8))
    assert b"pHYs" not in (tmp_path / "a.png").read_bytes()


def test_a_grey_profile_is_applied(tmp_path):
    grey = codes()[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png", icc_profile=profile(None, 1.8, "Gamma 1.8"))
    written, _, said = through(tmp_path / "a.png", tmp_path / "b.png")
    assert any("Gamma 1.8" in sentence for sentence in said)
    with Image.open(written) as picture:
        assert "icc_profile" not in picture.info
        found = np.asarray(picture)[..., 1] / 255
    # sRGB's curve undone by hand
    light = (grey / 255.0) ** 1.8
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(found - expected).max() < 2.5 / 255


def test_a_profile_of_another_space_is_not_put_into_rgb(tmp_path):
    Image.fromarray(codes()).save(tmp_path / "a.jpg", icc_profile=b"no profile at all" * 20)
    written, _, said = through(tmp_path / "a.jpg", tmp_path / "b.png")
    assert any("profile is damaged" in sentence for sentence in said)
    with Image.open(written) as picture:
        assert "icc_profile" not in picture.info


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_is_opaque_and_said_to_be_converted(tmp_path, suffix):
    Image.fromarray(codes()).convert("CMYK").save(tmp_path / f"a{suffix}")
    _, info, said = through(tmp_path / f"a{suffix}", tmp_path / "b.jpg")
    assert not info.has_alpha
    assert len(said) == 1
    assert "CMYK is converted" in said[0]


def test_profiles_and_the_tags_that_say_the_same():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert tags_of(srgb) == (1, 13)
    assert tags_of(profile(P3_PRIMARIES)) == (12, 4)
    assert tags_of(profile(SRGB_PRIMARIES)) == (1, 4)
    assert tags_of(profile(ADOBE_PRIMARIES)) is None
    assert tags_of(profile(P3_PRIMARIES, 1.8)) is None
    assert (space_of(profile(None)), space_of(b"x" * 500), tags_of(profile(None))) == ("grey", None, None)
    assert name_of(profile(name="Some name")) == "Some name"
    for cut in (0, 10, 127, 140, 300, 400):
        assert tags_of(profile()[:cut]) is None


def test_a_clip_of_pictures_is_tagged_or_said_not_to_be(tmp_path):
    for name, primaries in (("p3", P3_PRIMARIES), ("adobe", ADOBE_PRIMARIES)):
        Image.fromarray(codes(32, 48)).save(tmp_path / f"{name}.png", icc_profile=profile(primaries, name=name))
    _, _, said = through(tmp_path / "p3.png", tmp_path / "p3.mp4")
    assert said == []
    with open_source(tmp_path / "p3.mp4") as clip:
        assert (clip.info.color.primaries, clip.info.color.transfer) == (12, 4)
    _, _, said = through(tmp_path / "adobe.png", tmp_path / "adobe.mp4")
    assert len(said) == 1
    assert "profile (adobe) is left out" in said[0]


@pytest.mark.parametrize("order", ["little", "big"])
def test_exif_is_set_right_in_place(order):
    mark = b"II*\0" if order == "little" else b"MM\0*"

    def number(value, length):
        return value.to_bytes(length, order)

    entries = [(0x0100, 4, number(45, 4)), (0x0112, 3, number(8, 2) + b"\0\0")]
    body = b"".join(number(tag, 2) + number(kind, 2) + number(1, 4) + value for tag, kind, value in entries)
    block = mark + number(8, 4) + number(2, 2) + body + number(40, 4)
    upright = without_turn(b"Exif\0\0" + block)
    assert upright == block[:30] + number(1, 2) + b"\0\0" + bytes(4)
    assert with_size(upright, 900, 600)[18:22] == number(900, 4)
    assert resolution_of(upright) is None
    for end in range(len(block)):
        for change in (without_turn(block[:end]), with_size(block[:end], 1, 1), resolution_of(block[:end])):
            assert change is None or isinstance(change, bytes)


@pytest.mark.parametrize("target", KINDS)
def test_damaged_exif_stops_nothing(tmp_path, target):
    """Every byte of the block is overwritten in turn, by several values."""
    Image.fromarray(codes(16, 16)).save(tmp_path / "a.jpg", exif=exif(6), dpi=(300, 300))
    whole = (tmp_path / "a.jpg").read_bytes()
    start = whole.index(b"Exif\0\0") + 6
    for at in range(start, start + len(exif(6)) - 6, 5):
        value = (255, 0, 1, 127)[at % 4]
        (tmp_path / "b.jpg").write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
        through(tmp_path / "b.jpg", tmp_path / f"c{target}", overwrite=True)
