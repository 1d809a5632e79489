"""One regular file is read and nothing else, as long as it is whole and the same."""

import os
import socket
import threading
import time
from fractions import Fraction

import av
import pytest

from seedvr2_engine.errors import VideoError
from seedvr2_engine.video import ColorTags, Matrix, open_source
from seedvr2_engine.video.reading.container.damage import inspect
from seedvr2_engine.video.reading.container.demuxers import WHITELIST, clip_endings
from seedvr2_engine.video.reading.folder import clips_in
from seedvr2_engine.video.reading.pictures.selection import list_pictures

from ..made.clips import ClipSpec, noise, ramp, write_clip

H264 = ClipSpec("libx264", "yuv420p", options={"preset": "ultrafast", "crf": "20", "g": "5"})
MPEG2 = ClipSpec("mpeg2video", "yuv420p", audio="mp2", audio_s=0.5, options={"b": "1M", "g": "4"})


def one_sentence(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", ")."))
    return message


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.png", "a.ffconcat", "a.m3u8", "a.mpd", "a"])
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ffconcat version 1.0\nfile 'secret.mkv'\n", "list of files"),
        ("#EXTM3U\n#EXTINF:1,\nsecret.mkv\n#EXT-X-ENDLIST\n", "M3U8 playlist"),
        ("#EXTM3U\n#EXTINF:1,\nfile:///etc/secret.mkv\n", "M3U8 playlist"),
        ('<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>', "DASH manifest"),
        ("v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\n", "network session"),
    ],
)
def test_a_playlist_is_one_under_any_name(tmp_path, name, text, kind):
    write_clip(tmp_path / "secret.mkv", noise(2))
    (tmp_path / name).write_text(text)
    with pytest.raises(VideoError, match=kind) as caught:
        open_source(tmp_path / name)
    assert "secret" not in one_sentence(caught).replace(str(tmp_path), "")


def test_no_demuxer_that_reads_other_files_is_allowed():
    forbidden = {"concat", "hls", "dash", "imf", "image2", "image2pipe", "lavfi", "sdp", "rtsp", "vobsub", "tty"}
    assert not forbidden & set(WHITELIST.split(","))
    assert not any(
        name in WHITELIST.split(",") for name in ("alsa", "fbdev", "x11grab", "v4l2", "kmsgrab", "avfoundation")
    )


def test_a_movie_that_refers_to_another_file_gets_nothing_from_it(tmp_path):
    """A MOV whose samples lie in another file, by an `alis` or `url ` entry (ISO/IEC 14496-12, 8.7.2)."""
    path = write_clip(tmp_path / "a.mov", [ramp(i) for i in range(3)], H264)
    data = bytearray(path.read_bytes())
    at = data.index(b"url \0\0\0\1")
    data[at + 7] = 0  # Not in this file.
    path.write_bytes(data)
    with open_source(path, damaged="keep") as source:
        assert source.info.width == 64


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_what_is_no_regular_file_gets_a_sentence_and_never_waits(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "in.mp4")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # A socket's address is short.
        server.bind("s.mp4")
    began = time.monotonic()
    for name, kind in (("in.mp4", "pipe"), ("zero.png", "device"), ("s.mp4", "socket"), ("loop.mp4", "circle|no such")):
        with pytest.raises(VideoError, match=kind) as caught:
            open_source(tmp_path / name)
        one_sentence(caught)
    assert time.monotonic() - began < 5


def test_a_link_to_a_clip_is_a_clip(tmp_path):
    write_clip(tmp_path / "a.mkv", noise(2))
    (tmp_path / "l.mkv").symlink_to("a.mkv")
    with open_source(tmp_path / "l.mkv") as source:
        assert len(list(source)) == 2


@pytest.mark.parametrize("name", ["50%d.mkv", "a [1].mkv", "%03d.mp4", "b*.mkv", "%n%s.mkv", "a:b.mkv"])
def test_the_name_of_a_file_that_exists_is_no_pattern(tmp_path, name):
    if os.name == "nt" and set(name) & set(":*"):
        pytest.skip("no file can have this name here")
    made = write_clip(tmp_path / f"x.{name[-3:]}", noise(2))
    made.rename(tmp_path / name)
    with open_source(tmp_path / name) as source:
        assert len(list(source)) == 2


@pytest.mark.parametrize(
    "name",
    ["%999999999999d.png", "%0999d.png", "**.png", "[.png", "[z-a]*.png", "a**/b.png", "%d", "x" * 300, "a\0b",
     "?" * 400, "%d%d.png", "²*.png", "%s.png", "%-5d.png", "*"],
)  # fmt: skip
def test_odd_patterns_get_one_sentence(tmp_path, name):
    with pytest.raises(VideoError) as caught:
        open_source(tmp_path / name)
    one_sentence(caught)


def test_natural_order_knows_digits_from_figures(tmp_path):
    for name in ("1²2.png", "10.png", "2.png"):
        write_clip(tmp_path / "p.png", [ramp()], ClipSpec("png", "rgb24")).rename(tmp_path / name)
    assert [path.name for path in list_pictures(tmp_path)] == ["1²2.png", "2.png", "10.png"]


def test_two_pictures_of_one_number_and_empty_ones_are_refused(tmp_path):
    for name in ("1.png", "01.png"):
        write_clip(tmp_path / "p.png", [ramp()], ClipSpec("png", "rgb24")).rename(tmp_path / name)
    with pytest.raises(VideoError, match=r"found 0?1.png and 0?1.png"):
        list_pictures(tmp_path / "%d.png")
    (tmp_path / "2.png").touch()
    with pytest.raises(VideoError, match=r"2.png: expected a picture, found an empty file"):
        list_pictures(tmp_path)


def test_a_folder_shows_its_clips_by_what_ffmpeg_knows(tmp_path):
    made = write_clip(tmp_path / "x.ts", [ramp(i) for i in range(3)], H264)
    for name in ("00002.MTS", "00010.MTS", "1.m2ts", "a.VOB", "b.3gp", "c.mxf", "d.ogv", "e.y4m", "f.Mp4", "no ending"):
        (tmp_path / name).write_bytes(made.read_bytes())
    (tmp_path / "x.ts").unlink()
    for name in (".DS_Store", "._a.mp4", "Thumbs.db", "desktop.ini", ".hidden.mp4"):
        (tmp_path / name).write_bytes(b"\0" * 50)
    (tmp_path / "@eaDir").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "sub").mkdir()
    write_clip(tmp_path / "p.png", [ramp()], ClipSpec("png", "rgb24"))
    found = clips_in(tmp_path)
    names = [path.name for path in found.clips]
    assert names == [
        "1.m2ts",
        "00002.MTS",
        "00010.MTS",
        "a.VOB",
        "b.3gp",
        "c.mxf",
        "d.ogv",
        "e.y4m",
        "f.Mp4",
        "no ending",
    ]
    assert found.skipped(tmp_path) == f"{tmp_path}: notes.txt, p.png, sub are no clip, and skipped."
    assert {".mts", ".m2ts", ".vob", ".3gp", ".mxf", ".ogv", ".dv", ".y4m", ".mp4"} <= clip_endings()


def test_hidden_files_are_no_part_of_a_sequence(tmp_path):
    for name in ("a1.png", "a2.png"):
        write_clip(tmp_path / name, [ramp()], ClipSpec("png", "rgb24"))
    for name in ("._a1.png", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).write_bytes(b"\0" * 50)
    for pattern in (tmp_path, tmp_path / "*.png", tmp_path / "a%d.png"):
        with open_source(pattern) as source:
            assert len(list(source)) == 2


def two_videos(path, default: int):
    with av.open(str(path), "w") as output:
        streams = []
        for size in ((32, 32), (64, 48)):
            stream = output.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, "bgr0"
            streams.append(stream)
        for index, stream in enumerate(streams):
            stream.disposition = av.stream.Disposition.default if index == default else 0
        for number in range(3):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(ramp(number, stream.width, stream.height), "rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                output.mux(stream.encode(frame.reformat(format="bgr0")))
        for stream in streams:
            output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("default", "width"), [(0, 32), (1, 64), (None, 64)])
def test_the_default_video_is_taken_and_the_others_are_named(tmp_path, default, width):
    with open_source(two_videos(tmp_path / "a.mkv", -1 if default is None else default)) as source:
        assert source.info.width == width
        assert len(list(source)) == 3
        (sentence,) = source.warnings
    assert "2 video streams" in sentence
    assert ("the largest" in sentence) == (default is None)


def test_closing_from_another_thread_ends_the_reading(tmp_path):
    path = write_clip(tmp_path / "a.mkv", noise(120))
    source = open_source(path)
    errors: list[BaseException] = []
    started = threading.Event()

    def read() -> None:
        try:
            for _ in source:
                started.set()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert started.wait(20)
    source.close()
    thread.join(20)
    assert not thread.is_alive()
    assert errors == []
    assert list(source) == []


def test_a_source_that_is_cut_while_it_is_read_is_said(tmp_path):
    path = write_clip(tmp_path / "a.mkv", noise(40))
    source = open_source(path)
    read = [next(source)]
    os.truncate(path, path.stat().st_size // 3)
    with pytest.raises(VideoError, match="changed while it was read"):
        read += source
    assert 1 <= len(read) < 40


def test_a_source_that_was_replaced_before_it_is_read_is_said(tmp_path):
    path = write_clip(tmp_path / "a.mkv", noise(4))
    source = open_source(path)
    write_clip(tmp_path / "b.mkv", noise(9)).replace(path)
    with pytest.raises(VideoError, match="changed after it was looked at"):
        list(source)


def test_another_size_in_mid_clip_is_known_before_the_work(tmp_path):
    parts = [write_clip(tmp_path / f"{n}.ts", noise(5, *size), H264) for n, size in enumerate([(64, 48), (96, 80)])]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(VideoError, match=r"found 96x80 at frame 5 \(0.20 s\).*--frames 5"):
        open_source(path)
    with open_source(path, frames=5) as source:
        assert len(list(source)) == 5


def forged(size: int) -> dict[str, bytes]:
    ftyp = b"\0\0\0\x10ftypisom\0\0\2\0"
    ebml = b"\x1a\x45\xdf\xa3\x84\x42\x82\x81\0\x18\x53\x80\x67\x01" + b"\xff" * 7
    return {
        "boxes.mp4": ftyp + b"\0\0\0\x08free" * (size // 8),
        "moov.mp4": ftyp + (size + 8).to_bytes(4, "big") + b"moov" + b"\0\0\0\x08free" * (size // 8),
        "deep.mp4": ftyp + b"".join((size - 8 * i).to_bytes(4, "big") + b"moov" for i in range(size // 8)),
        "void.mkv": ebml + b"\xec\x80" * (size // 2),
        "groups.mkv": ebml + b"\x1f\x43\xb6\x75\x01" + b"\xff" * 7 + b"\xa0\x80" * (size // 2),
        "junk.avi": b"RIFF" + size.to_bytes(4, "little") + b"AVI " + b"JUNK\0\0\0\0" * (size // 8),
        "tags.flv": b"FLV\1\5\0\0\0\x09\0\0\0\0" + (b"\x12\0\0\0" + bytes(7) + b"\0\0\0\x0b") * (size // 15),
        "blocks.gif": b"GIF89a\1\0\1\0\0\0\0" + b"\x21\xfe\0" * (size // 3),
        "text.png": b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0tEXt\0\0\0\0" * (size // 12),
        "pages.ogv": (b"OggS\0\2" + bytes(21)) * (size // 27),
    }


@pytest.mark.parametrize("name", list(forged(64)))
def test_a_file_of_countless_tiny_parts_is_given_up(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(forged(1 << 22)[name])
    structure = inspect(path)
    assert structure.is_forged or structure.fault or name == "deep.mp4"
    with pytest.raises(VideoError) as caught:
        open_source(path)
    one_sentence(caught)


def test_a_colour_matrix_that_cannot_be_converted_is_one_sentence(tmp_path):
    path = write_clip(tmp_path / "a.mkv", [ramp(0)], ClipSpec("ffv1", "yuv420p", tags=ColorTags(matrix=Matrix.ICTCP)))
    with pytest.raises(VideoError, match=r"a\.mkv: the colour matrix ictcp") as caught:
        open_source(path)
    one_sentence(caught)
