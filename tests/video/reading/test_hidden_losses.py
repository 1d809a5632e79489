"""Losses of which neither a count nor a decoder tells: each shows in what the file holds beside its pictures."""

import re

import av
import pytest
from PIL import Image

from seedvr2_engine.errors import VideoError
from seedvr2_engine.video import open_source
from seedvr2_engine.video.reading.container.damage import inspect
from seedvr2_engine.video.reading.container.numbering import NumberWatch

from ..made.clips import ClipSpec, ramp, write_clip

COUNT = 12


def clip(folder, name, codec, **options):
    return write_clip(
        folder / name, [ramp(3 * i) for i in range(COUNT)], ClipSpec(codec, "yuv420p", options=options or None)
    )


def frames_of(path):
    with open_source(path) as source:
        return len(list(source))


@pytest.mark.parametrize("code", [0x68, 0x05], ids=["no header's", "a video object's, as H.264 has it"])
def test_a_last_picture_of_mpeg4_that_is_overwritten_is_missed(tmp_path, code):
    """Threads that decode side by side say nothing of a last packet that they cannot decode."""
    path = clip(tmp_path, "a.avi", "mpeg4", g="4")
    assert frames_of(path) == COUNT
    content = path.read_bytes()
    last = content.rindex(b"\x00\x00\x01\xb6")
    size = int.from_bytes(content[last - 4 : last], "little")
    # A start code may come up in anything, but none of a header.
    path.write_bytes(content[:last] + bytes([0, 0, 1, code]) + b"\xc0" * (size - 4) + content[last + size :])
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


def test_a_packet_of_a_program_stream_that_has_grown_is_out_of_order(tmp_path):
    """Its end lies behind what its length says; what is left there no demuxer takes for pictures."""
    path = clip(tmp_path, "a.mpg", "mpeg1video", g="6")
    content = path.read_bytes()
    first = content.index(b"\x00\x00\x01\xe0")
    end = first + 6 + int.from_bytes(content[first + 4 : first + 6], "big")
    path.write_bytes(content[: first + 40] + b"\x5a" * 64 + content[first + 40 :])
    with pytest.raises(VideoError, match=f"out of order at byte {end}"):
        frames_of(path)


def test_a_picture_of_flv_whose_kind_is_overwritten_is_missed(tmp_path):
    """With its first bit it claims the extended form, and a demuxer makes a second stream of it."""
    path = clip(tmp_path, "a.flv", "flv", g="6")
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        third = [packet.pos for packet in container.demux(video=0) if packet.size][2]
    kind = next(at for at in range(third, third + 40) if content[at] == 0x22)
    content[kind : kind + 4] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(VideoError, match=f"expected {COUNT} pictures, found {COUNT - 1}"):
        frames_of(path)


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
def test_a_last_group_whose_key_frame_is_overwritten_lacks_it(tmp_path, codec):
    path = clip(tmp_path, "a.mpg", codec, g="4", sc_threshold="1000000000")
    assert frames_of(path) == COUNT
    content = bytearray(path.read_bytes())
    key = content.index(b"\0\0\1\0", content.rindex(b"\0\0\1\xb8"))
    end = content.index(b"\0\0\1\0", key + 4)
    content[key:end] = b"\xff" * (end - key)
    path.write_bytes(content)
    with pytest.raises(VideoError, match="damaged"):
        frames_of(path)


# What follows is odd, and sound.


def remuxed(path, target, packets):
    """Packets of another clip, each changed by a function or left out where it gives nothing."""
    with av.open(str(path)) as source, av.open(str(target), "w") as output:
        copy = output.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            content = packets(index, bytes(packet))
            if content is not None:
                changed = av.Packet(content)
                changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
                changed.is_keyframe, changed.stream = packet.is_keyframe, copy
                output.mux(changed)
    return target


CROSSING = {"g": "6", "bf": "2", "sc_threshold": "1000000000"}


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
@pytest.mark.parametrize("ending", ["mpg", "ts", "mkv"])
def test_headers_of_a_sequence_that_come_twice_are_sound(tmp_path, codec, ending):
    """As FFmpeg's `dump_extra` writes them before every key frame."""
    path = clip(tmp_path, "a.mpg", codec, **CROSSING)

    def twice(_, packet):
        return packet[: packet.index(b"\0\0\1\xb8")] + packet if packet.startswith(b"\0\0\1\xb3") else packet

    assert frames_of(remuxed(path, tmp_path / f"b.{ending}", twice)) == COUNT


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
def test_zeros_and_user_data_behind_a_groups_header_are_sound(tmp_path, codec):
    path = clip(tmp_path, "a.mpg", codec, **CROSSING)

    def with_data(index, packet):
        at = packet.find(b"\0\0\1\xb8") + 8
        data = (b"\0\0\1\xb2captions", bytes(40), b"\0\0\0\0\1\xb2captions" + bytes(9))[index % 3]
        return packet[:at] + data + packet[at:] if at > 8 else packet

    assert frames_of(remuxed(path, tmp_path / "b.mpg", with_data)) == COUNT


@pytest.mark.parametrize("ending", ["mpg", "ts"])
def test_zeros_before_start_codes_are_sound(tmp_path, ending):
    """Encoders of a constant rate fill up with them."""
    path = clip(tmp_path, "a.mpg", "mpeg2video", **CROSSING)
    filled = remuxed(path, tmp_path / f"b.{ending}", lambda index, packet: packet + bytes(500 * (index % 3)))
    assert frames_of(filled) == COUNT


def test_an_edit_at_an_open_group_is_sound(tmp_path):
    """Editors drop the pictures behind a first key frame that refer to the group before (a broken link)."""
    path = clip(tmp_path, "a.mpg", "mpeg2video", **CROSSING)
    kinds = []
    remuxed(path, tmp_path / "all.mpg", lambda _, packet: kinds.append(kind_of(packet)) or packet)
    second = [index for index, kind in enumerate(kinds) if kind == 1][1]
    assert kinds[second + 1 : second + 3] == [3, 3]

    def edited(index, packet):
        return None if second < index <= second + 2 else packet

    assert frames_of(remuxed(path, tmp_path / "b.mpg", edited)) == COUNT - 2
    begun = remuxed(path, tmp_path / "d.mpg", lambda index, packet: edited(index, packet) if index >= second else None)
    assert frames_of(begun) == len(kinds) - second - 2
    # Cut there, and the two left in, of which nobody can make pictures.
    cut = remuxed(path, tmp_path / "c.mpg", lambda index, packet: packet if index >= second else None)
    with open_source(cut) as source:
        assert len(list(source)) in (len(kinds) - second, len(kinds) - second - 2)
        assert not source.is_incomplete


def kind_of(packet):
    """1, 2, 3 for I, P, B (ISO/IEC 13818-2, 6.3.9)."""
    return packet[packet.index(b"\0\0\1\0") + 5] >> 3 & 7


def test_two_fields_of_a_picture_in_one_packet_are_sound():
    picture = b"\0\0\1\0\0\x0f\xff\xf8" + b"".join(b"\0\0\1" + bytes([row, 0x5A, 0x5A]) for row in (1, 2, 2, 3))
    watch = NumberWatch("mpeg2video", 25.0)
    for number in range(3):
        field = picture[:4] + bytes([number >> 2, (number & 3) << 6 | 0x0F]) + picture[6:]
        watch.note(av.Packet((b"\0\0\1\xb8\0\x08\0\x40" if not number else b"") + field + field))
    assert watch.lost() is None
    assert watch.first_empty is None


def test_programs_fill_up_between_packs_and_end_anywhere(tmp_path):
    path = clip(tmp_path, "a.mpg", "mpeg1video", g="6")
    content = path.read_bytes()
    packs = content.split(b"\0\0\1\xba")[1:]
    for filling in (bytes(700), b"\xff" * 9, b"\0\0\1\xb9", b"\0\0\1\xb9" + bytes(70_000)):
        path.write_bytes(b"".join(b"\0\0\1\xba" + pack + filling for pack in packs))
        assert frames_of(path) == COUNT
    unending = b"\0\0\1\xbf\0\0of no length\0\0\1\xbe\0\1\xff"
    for behind in (b"made by a recorder", b"\0\0\1\xb9some index: \0\0\1\xe0", unending):
        path.write_bytes(content + behind)
        assert frames_of(path) == COUNT


@pytest.mark.parametrize("step", [2, 3])
def test_pictures_that_avi_leaves_out_are_sound(tmp_path, step):
    spec = ClipSpec("mpeg4", "yuv420p", pts=[step * i for i in range(COUNT)], audio="mp2", audio_s=0.6)
    path = write_clip(tmp_path / "a.avi", [ramp(3 * i) for i in range(COUNT)], spec)
    assert frames_of(path) == COUNT


def test_pictures_that_are_packed_with_those_after_them_are_sound(tmp_path):
    """As DivX does: P and B in one packet, and a header alone, of a picture that is not coded, in the next."""
    path = clip(tmp_path, "a.avi", "mpeg4", g="30", bf="1", sc_threshold="1000000000")
    stored, waiting = [], []
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for content in packets:
        start = content.index(b"\0\0\1\xb6")
        if content[start + 4] >> 6 == 2:  # B
            stored[-1] += content
            waiting.append(len(stored))
            stored.append(b"\0\0\1\xb6\x50\x07\xff")
        else:
            stored.append(content)
    assert len(waiting) > 3
    mark = b"\0\0\1\xb2DivX503b1393p\0"
    stored[0] = stored[0].replace(b"\0\0\1\xb6", mark + b"\0\0\1\xb6", 1)
    packed = remuxed(path, tmp_path / "b.avi", lambda index, _: stored[index])
    assert frames_of(packed) == COUNT


def test_gifs_with_odd_blocks_are_sound(tmp_path):
    path = tmp_path / "a.gif"
    first, *rest = (Image.linear_gradient("L").resize((64, 64 + i)).crop((0, i, 64, 64)) for i in range(COUNT))
    for loops in (0, 1, 65535, None):
        first.save(path, save_all=True, append_images=rest, **({} if loops is None else {"loop": loops}))
        content = path.read_bytes()
        remark = b"\x21\xfe\x05hello\x00"
        for odd in (content + bytes(40), content[:-1] + remark * 3 + b";", content + b"made by hand"):
            path.write_bytes(odd)
            assert frames_of(path) == COUNT
    # Without a control block, as the first version of the format had none.
    first.save(path)
    assert frames_of(path) == 1


def test_a_packet_of_asf_with_nothing_but_padding_is_sound(tmp_path):
    pictures = [ramp(3 * i, 320, 240) for i in range(COUNT)]
    path = write_clip(tmp_path / "a.wmv", pictures, ClipSpec("wmv2", "yuv420p", options={"g": "6"}))
    content = bytearray(path.read_bytes())
    begin, length = asf_packets(content)
    padded = b"\x82\0\0\x11\x5d" + (length - 14).to_bytes(2, "little") + content[begin + 7 : begin + 13] + b"\x80"
    content[begin:begin] = padded + bytes(length - len(padded))
    file, data = content.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")), begin - 50
    for at, more, width in ((file + 40, length, 8), (file + 56, 1, 8), (data + 16, length, 8), (data + 40, 1, 8)):
        content[at : at + width] = (int.from_bytes(content[at : at + width], "little") + more).to_bytes(width, "little")
    path.write_bytes(content)
    assert inspect(path).fault is None
    assert frames_of(path) == COUNT
