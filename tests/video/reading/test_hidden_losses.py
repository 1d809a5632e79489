"""Losses of which neither a count nor a decoder tells: each shows in what the file holds beside its pictures."""

import re

import av
import pytest
from PIL import Image

from seedvr2_engine.errors import VideoError
from seedvr2_engine.video import open_source

from ..made.clips import ClipSpec, ramp, write_clip

COUNT = 12


def clip(folder, name, codec, **options):
    return write_clip(
        folder / name, [ramp(3 * i) for i in range(COUNT)], ClipSpec(codec, "yuv420p", options=options or None)
    )


def frames_of(path):
    with open_source(path) as source:
        return len(list(source))


def test_a_last_picture_of_mpeg4_that_is_overwritten_is_missed(tmp_path):
    """Threads that decode side by side say nothing of a last packet that they cannot decode."""
    path = clip(tmp_path, "a.avi", "mpeg4", g="4")
    assert frames_of(path) == COUNT
    content = path.read_bytes()
    last = content.rindex(b"\x00\x00\x01\xb6")
    size = int.from_bytes(content[last - 4 : last], "little")
    # A start code may come up in anything, but none of a header.
    path.write_bytes(content[:last] + b"\x00\x00\x01\x68" + b"\xc0" * (size - 4) + content[last + size :])
    with pytest.raises(VideoError, match=f"found {COUNT - 1}"):
        frames_of(path)
    with open_source(path, damaged="keep") as source:
        assert len(list(source)) < COUNT
        assert source.is_incomplete


@pytest.mark.parametrize("still", ["PNG", "WEBP", "JPEG"])
def test_a_gif_whose_start_is_overwritten_with_another_picture_is_refused(tmp_path, still):
    path, small = tmp_path / "a.gif", tmp_path / "small"
    first, *rest = (Image.linear_gradient("L").resize((64, 64 + i)).crop((0, i, 64, 64)) for i in range(COUNT))
    first.save(path, save_all=True, append_images=rest)
    assert frames_of(path) == COUNT
    Image.new("RGB", (8, 8)).save(small, still)
    path.write_bytes(small.read_bytes() + path.read_bytes()[small.stat().st_size :])
    with pytest.raises(VideoError, match=r"a\.gif"):
        frames_of(path)


@pytest.mark.parametrize("still", ["PNG", "WEBP", "JPEG"])
def test_another_picture_in_the_name_of_a_gif_may_have_something_behind_its_end(tmp_path, still):
    path = tmp_path / "a.gif"
    Image.new("RGB", (8, 8)).save(path, still)
    path.write_bytes(path.read_bytes() + bytes(200) + b"made by hand")
    assert frames_of(path) == 1


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
def test_a_group_whose_own_header_is_overwritten_too_is_missed(tmp_path, codec):
    """What is left of it is the header of its sequence, before another's."""
    path = clip(tmp_path, "a.mpg", codec, g="6")
    content = path.read_bytes()
    first, second = (match.start() for match in re.finditer(b"\x00\x00\x01\xb3", content))
    path.write_bytes(content[: first + 12] + bytes(second - first - 12) + content[second:])
    with pytest.raises(VideoError, match="by their numbers"):
        frames_of(path)


def test_a_picture_without_slices_is_damaged_though_those_before_a_key_frame_may_be_left_out(tmp_path):
    path = tmp_path / "b.mpg"
    with av.open(str(clip(tmp_path, "a.mpg", "mpeg2video", g="6"))) as source, av.open(str(path), "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in [packet for packet in source.demux(video=0) if packet.size][4:]:
            packet.stream = copy
            target.mux(packet)
    assert frames_of(path) == COUNT - 6
    content = path.read_bytes()
    slices = content.index(b"\x00\x00\x01\x01", content.rindex(b"\x00\x00\x01\x00"))
    behind = re.compile(b"\x00\x00\x01[\xb9-\xff]|$", re.DOTALL).search(content, slices)
    path.write_bytes(content[:slices] + bytes(behind.start() - slices) + content[behind.start() :])
    with pytest.raises(VideoError, match="of picture 7 there is nothing but the header"):
        frames_of(path)
    with open_source(path, damaged="keep") as source:
        assert len(list(source)) == COUNT - 7
        assert source.is_incomplete


def picture_headers(content):
    """Places of the PES headers of a transport stream's pictures."""
    return [match.start() for match in re.finditer(b"\x00\x00\x01\xe0", content)]


def test_a_picture_of_a_transport_stream_whose_header_is_overwritten_is_missed(tmp_path):
    """Its header claims to be longer than the picture, and no time in it tells of the hole that it leaves."""
    path = clip(tmp_path, "a.ts", "libx264", preset="ultrafast", bf="0", g="6")
    content = bytearray(path.read_bytes())
    header = picture_headers(content)[COUNT // 2]
    content[header + 8 : header + 12] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(VideoError, match="lost near picture"):
        frames_of(path)


def test_a_program_that_leaves_the_marks_out_of_all_times_is_believed(tmp_path):
    path = clip(tmp_path, "a.ts", "libx264", preset="ultrafast", bf="0", g="6")
    content = bytearray(path.read_bytes())
    for header in picture_headers(content):
        for mark in (9, 11, 13):
            content[header + mark] &= 0xFE
    path.write_bytes(content)
    assert frames_of(path) == COUNT


def asf_packets(content):
    """The first byte of the first data packet of an ASF file, and the length of one."""
    data = content.index(bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c"))
    file = content.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    return data + 50, int.from_bytes(content[file + 92 : file + 96], "little")


def test_a_last_packet_of_asf_that_counts_no_payloads_is_out_of_order(tmp_path):
    pictures = [ramp(3 * i, 320, 240) for i in range(COUNT)]
    path = write_clip(tmp_path / "a.wmv", pictures, ClipSpec("wmv2", "yuv420p", options={"g": "6"}))
    content = bytearray(path.read_bytes())
    begin, length = asf_packets(content)
    last = begin + (len(content) - begin) // length * length - length
    assert last > begin
    assert content[last] == 0x82
    assert content[last + 3] & 1  # Several payloads; their number comes behind the padding and the times.
    count = last + 5 + (0, 1, 2, 4)[content[last + 3] >> 3 & 3] + 6
    content[count] &= 0xC0
    path.write_bytes(content)
    with pytest.raises(VideoError, match=f"out of order at byte {last}"):
        frames_of(path)
