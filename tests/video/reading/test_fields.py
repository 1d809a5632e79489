"""Interlaced and telecined clips: recognised, said, undone; and whole frames left alone."""

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from seedvr2_engine.errors import InvalidArgumentError, VideoError
from seedvr2_engine.video import SinkOptions, open_sink, open_source
from seedvr2_engine.video.info import Fields, SourceInfo
from seedvr2_engine.video.reading.fields.undo import undo_fields

from ..made.clips import ClipSpec, frame_of, write_clip
from ..made.field_clips import FILM, NTSC, interlaced, moving, soft_telecined, telecined, texture, write_flagged

LOSSLESS = ClipSpec(rate=NTSC, pix_fmt="yuv420p")


def as_uint8(frame) -> np.ndarray:
    return (frame.rgb * 255).round().byte().permute(1, 2, 0).numpy()


def is_same(frame, picture: np.ndarray) -> bool:
    """Equal but for what grey loses on its way through Y'CbCr codes."""
    return int(abs(as_uint8(frame).astype(int) - picture).max()) <= 2


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, ((a.astype(float) - b) ** 2).mean())))


def read(path, **how):
    with open_source(path, **how) as source:
        frames = list(source)
    assert source.warnings == []
    assert len(frames) == len(source) == source.info.selected_frames
    return source.info, frames


def times(info: SourceInfo, frames) -> list[Fraction]:
    return [frame.pts * info.time_base for frame in frames]


@pytest.mark.parametrize("top_first", [True, False])
@pytest.mark.parametrize("flagged", [True, False])
def test_interlaced_clips_lose_their_combs(tmp_path, flagged, top_first):
    moments = moving(40)
    stored = interlaced(moments, top_first=top_first)
    if flagged:
        path = write_flagged(tmp_path / "i.mkv", stored, top_first=top_first)
    else:
        path = write_clip(tmp_path / "i.mkv", stored, LOSSLESS)
    info, frames = read(path)
    assert info.fields == Fields("interlaced", flagged, top_first, "bwdif")
    (sentence,) = info.remarks
    assert f"{'top' if top_first else 'bottom'} field first" in sentence
    assert "deinterlaced by bwdif" in sentence
    assert "--deinterlace off" in sentence
    assert len(frames) == 20
    as_stored = read(path, deinterlace="off")[1]
    for index in range(20):
        # Motion is steady and the texture hard: combs cost 10 dB and more.
        combed = psnr(as_uint8(as_stored[index]), moments[2 * index])
        assert psnr(as_uint8(frames[index]), moments[2 * index]) > combed + 6
    assert times(info, frames) == times(info, as_stored)


def test_one_frame_for_each_field(tmp_path):
    moments = moving(40)
    path = write_clip(tmp_path / "i.mkv", interlaced(moments), ClipSpec(rate=Fraction(25)))
    info, frames = read(path, deinterlace="bwdif-fields")
    assert (info.frame_count, info.average_rate, info.duration_s) == (40, 50, pytest.approx(0.8))
    assert times(info, frames) == [Fraction(index, 50) for index in range(40)]
    assert all(frame.duration * info.time_base == Fraction(1, 50) for frame in frames)
    # Every moment is nearest to its own frame.
    for index in range(4, 36):
        own = psnr(as_uint8(frames[index]), moments[index])
        assert own > psnr(as_uint8(frames[index]), moments[index - 1]) + 3
        assert own > psnr(as_uint8(frames[index]), moments[index + 1]) + 3


@pytest.mark.parametrize("top_first", [True, False])
@pytest.mark.parametrize("pattern", [(2, 3), (3, 2), (2, 3, 3, 2)])
def test_film_with_pulldown_comes_back_field_for_field(tmp_path, pattern, top_first):
    film = moving(24)
    path = write_clip(tmp_path / "t.mkv", telecined(film, pattern, top_first=top_first), LOSSLESS)
    info, frames = read(path)
    assert info.fields is not None
    assert (info.fields.content, info.fields.treatment, info.fields.top_first) == ("telecine", "detelecine", top_first)
    assert (info.frame_count, info.average_rate, info.variable_rate) == (24, FILM, False)
    assert times(info, frames) == [Fraction(index * 1001, 24000) for index in range(24)]
    assert "23.976" in info.remarks[0]
    # The first and last frames may lack the field that their neighbour outside of the clip holds.
    assert all(is_same(frames[index], film[index]) for index in range(1, 23))


@pytest.mark.parametrize("left_over", [0, 1, 2, 3, 4])
def test_a_cycle_that_the_clip_cuts_short_loses_no_frame(tmp_path, left_over):
    stored = telecined(moving(32))[: 20 + left_over]
    info, frames = read(write_clip(tmp_path / "t.mkv", stored, LOSSLESS))
    assert info.frame_count == len(frames) == 16 + left_over
    assert is_same(frames[14], moving(32)[14])


@pytest.mark.parametrize(("start", "count"), [(0, 5), (7, 5), (22, None)])
def test_start_and_frames_count_film_frames(tmp_path, start, count):
    film = moving(24)
    path = write_clip(tmp_path / "t.mkv", telecined(film), LOSSLESS)
    info, frames = read(path, start=start, frames=count)
    assert len(frames) == (count or 2)
    assert times(info, frames)[0] == start * Fraction(1001, 24000)
    assert is_same(frames[0], film[start]) or start == 0


@pytest.mark.parametrize("ending", ["mkv", "ts", "mpg", "mp4"])
def test_film_with_soft_pulldown_gets_even_times(tmp_path, ending):
    film = moving(32)
    path = soft_telecined(tmp_path / f"s.{ending}", film)
    uneven, _ = read(path, detelecine="off")
    assert uneven.variable_rate
    info, frames = read(path)
    assert info.fields is not None
    assert (info.fields.content, info.fields.treatment) == ("soft telecine", "none")
    assert (info.frame_count, info.average_rate, info.variable_rate) == (32, FILM, False)
    seen = times(info, frames)
    assert {b - a for a, b in pairwise(seen)} == {Fraction(1001, 24000)}
    assert "even times" in info.remarks[0]


def test_soft_pulldown_in_a_part_of_a_clip(tmp_path):
    """Video at 29.97 frames keeps its times; film after it gets even ones; both start where they did."""
    info, frames = read(soft_telecined(tmp_path / "s.mkv", moving(40), from_frame=16))
    steps = np.diff([float(at) for at in times(info, frames)])
    assert steps[:15] == pytest.approx(1001 / 30000, abs=0.0011)
    assert steps[18:] == pytest.approx(1001 / 24000, abs=0.0001)
    assert float(times(info, frames)[16]) == pytest.approx(16 * 1001 / 30000, abs=0.009)


def test_clips_that_are_partly_film_keep_every_frame():
    """Two clips in one: fields are matched where they are film, what is left is deinterlaced."""
    film, video = moving(48), moving(120)
    stored = telecined(film) + interlaced(video)
    results = treated(stored, Fields("mixed", False, True, "match"))
    assert len(results) == len(stored)
    exact = sum(any(np.array_equal(result, picture) for picture in film) for result in results[:60])
    assert exact >= 58
    for index in range(64, 116):
        at = 2 * (index - 60)
        assert max(psnr(results[index], video[at]), psnr(results[index], video[at + 1])) > 22


def treated(stored, fields: Fields) -> list[np.ndarray]:
    """What `undo_fields` makes of luma frames."""
    planes = [[f[:, :, 0], *[np.full((f.shape[0] // 2, f.shape[1] // 2), 128, np.uint8)] * 2] for f in stored]
    frames = [frame_of("yuv420p", [np.ascontiguousarray(p) for p in three]) for three in planes]
    for index, frame in enumerate(frames):
        frame.pts, frame.time_base = index, 1 / NTSC
    info = plain_info(len(frames), fields)
    return [np.repeat(f.to_ndarray()[:96, :, None], 3, 2) for f in undo_fields(frames, info)]


def plain_info(count: int, fields: Fields) -> SourceInfo:
    from dataclasses import replace
    from pathlib import Path

    from seedvr2_engine.video import ColorTags, Orientation

    tags = ColorTags()
    info = SourceInfo(
        Path("x.mkv"), "video", 128, 96, count, "packets", NTSC, 1 / NTSC, False, 8, False, "ffv1", "yuv420p",
        tags, tags, Fraction(1), Orientation(), Fraction(0), 1.0,
    )  # fmt: skip
    return replace(info, fields=fields)


def test_whole_frames_flagged_as_interlaced_stay_as_they_are(tmp_path):
    """Film on European broadcasts and discs: interlaced by flag alone."""
    path = write_flagged(tmp_path / "p.mkv", moving(20), rate=Fraction(25))
    info, frames = read(path)
    assert info.fields == Fields("progressive", True, None)
    assert "flagged as interlaced, but its frames are whole" in info.remarks[0]
    for as_read, as_stored in zip(frames, read(path, deinterlace="off", detelecine="off")[1], strict=True):
        assert np.array_equal(as_read.rgb, as_stored.rgb)


def test_an_explicit_choice_outranks_what_is_found(tmp_path):
    path = write_clip(tmp_path / "t.mkv", telecined(moving(24)), LOSSLESS)
    info, _ = read(path, deinterlace="bwdif")
    assert info.fields is not None
    assert (info.fields.content, info.fields.treatment, info.frame_count) == ("telecine", "bwdif", 30)
    info, _ = read(path, deinterlace="off", detelecine="off")
    assert (info.fields, info.remarks, info.frame_count) == (None, (), 30)
    # Film whose pixels fieldmatch does not take is deinterlaced.
    info, _ = read(write_clip(tmp_path / "rgb.mkv", telecined(moving(24)), ClipSpec(rate=NTSC)))
    assert info.fields is not None
    assert (info.fields.content, info.fields.treatment) == ("telecine", "bwdif")


def test_a_picture_that_stands_still_loses_nothing(tmp_path):
    path = write_flagged(tmp_path / "s.mkv", moving(1) * 12)
    info, frames = read(path)
    assert info.fields == Fields("unknown", True, None, "bwdif", only_flagged=True)
    for as_read, as_stored in zip(frames, read(path, deinterlace="off")[1], strict=True):
        assert psnr(as_uint8(as_read), as_uint8(as_stored)) > 36


def test_a_progressive_clip_is_read_as_it_is(tmp_path):
    film = moving(30)
    info, frames = read(write_clip(tmp_path / "p.mkv", film))
    assert info.fields == Fields("progressive", False, None)
    assert info.remarks == ()
    assert all(np.array_equal(as_uint8(frame), picture) for frame, picture in zip(frames, film, strict=True))


@pytest.mark.parametrize(
    ("pix_fmt", "height"),
    [("yuv420p", 96), ("yuv422p", 94), ("yuv420p10le", 96), ("yuv444p12le", 91), ("yuv420p", 93), ("gray", 96)],
)
@pytest.mark.parametrize("treatment", ["bwdif", "detelecine"])
def test_pixel_formats_and_odd_heights_keep_their_codes(pix_fmt, height, treatment):
    """A clip that stands still passes every filter bit for bit, first and last frame too, in its format and depth."""
    if pix_fmt == "gray" and treatment == "detelecine":
        pytest.skip("fields are matched in Y'CbCr")
    empty = av.VideoFrame(128, height, pix_fmt)
    depth = max(component.bits for component in empty.format.components)
    kind = np.uint8 if depth == 8 else np.uint16
    planes = [texture(p.width, p.height + 1)[: p.height].astype(kind) << (depth - 8) for p in empty.planes]
    frames = [frame_of(pix_fmt, planes) for _ in range(10)]
    for index, frame in enumerate(frames):
        frame.pts, frame.time_base = index, 1 / NTSC
    info = plain_info(10, Fields("interlaced", True, True, treatment))
    results = list(undo_fields(frames, info))
    assert len(results) == (8 if treatment == "detelecine" else 10)
    for result in results:
        assert result.format.name == pix_fmt
        for plane, values in zip(result.planes, planes, strict=True):
            stored = np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)[:, : plane.width]
            assert np.array_equal(stored, values)


def test_what_filters_cannot_take_is_refused_in_one_sentence():
    planes = [np.zeros((96, 128), np.uint16)]
    frames = [frame_of("gray10le", planes) for _ in range(3)]
    for index, frame in enumerate(frames):
        frame.pts, frame.time_base = index, 1 / NTSC
    with pytest.raises(VideoError, match=r"found gray10le; convert .*--deinterlace off"):
        list(undo_fields(frames, plain_info(3, Fields("interlaced", True, True, "bwdif"))))


def test_wrong_choices_are_refused(tmp_path):
    path = write_clip(tmp_path / "a.mkv", moving(4))
    for wrong in ({"deinterlace": "yes"}, {"detelecine": "pullup"}):
        with pytest.raises(InvalidArgumentError, match="expected one of"):
            open_source(path, **wrong)
    with pytest.raises(VideoError, match=r"expected about 29.97 or 30 frames per second .* found 25.000"):
        open_source(write_clip(tmp_path / "b.mkv", moving(30), ClipSpec(pix_fmt="yuv420p")), detelecine="on")
    small = write_clip(tmp_path / "c.mkv", [np.zeros((2, 8, 3), np.uint8)] * 3)
    with pytest.raises(VideoError, match="at least 4x4 pixels"):
        open_source(small, deinterlace="bwdif")


@pytest.mark.parametrize("kind", ["telecine", "soft", "fields"])
def test_sound_stays_in_step(tmp_path, kind):
    """A flash and a click in the same moment, near the start and near the end, are together in the result as well."""
    count = 60 if kind != "fields" else 100
    moments = [m.copy() for m in moving(count, 2)]
    for at in (8, count - 8):
        moments[at][:] = 255
    if kind == "soft":
        silent, rate = soft_telecined(tmp_path / "v.mkv", moments), FILM
    elif kind == "telecine":
        silent, rate = write_clip(tmp_path / "v.mkv", telecined(moments), LOSSLESS), FILM
    else:
        silent, rate = write_clip(tmp_path / "v.mkv", interlaced(moments), ClipSpec(rate=Fraction(25))), Fraction(50)
    path = tmp_path / "av.mkv"
    with_clicks(silent, path, [float(at / rate) for at in (8, count - 8)], float(count / rate))
    with open_source(path, deinterlace="bwdif-fields" if kind == "fields" else "auto") as source:
        info = source.info
        options = SinkOptions(codec="ffv1")
        with open_sink(tmp_path / "o.mkv", width=128, height=96, source=info, options=options) as sink:
            for frame in source:
                sink.write(frame.rgb, pts=frame.pts, duration=frame.duration)
    assert sink.warnings == []
    result, frames = read(tmp_path / "o.mkv", deinterlace="off", detelecine="off")
    assert result.frame_count == count
    bright = [float(f.pts * result.time_base) for f in frames if float(f.rgb.mean()) > 0.97]
    assert bright == pytest.approx(clicks_of(tmp_path / "o.mkv"), abs=0.0095)
    with av.open(str(tmp_path / "o.mkv")) as container:
        # 1 is AV_FIELD_PROGRESSIVE; PyAV 17.1 does not tell.
        assert getattr(container.streams.video[0].codec_context, "field_order", 1) == 1
        assert not any(frame.interlaced_frame for frame in container.decode(video=0))


def test_woven_frames_are_not_called_progressive(tmp_path):
    """Nor interlaced: their combs are not lines of the larger picture."""

    def order_of(path, **how) -> int:
        with open_source(path, **how) as source:
            options = SinkOptions(codec="ffv1", overwrite=True)
            with open_sink(tmp_path / "o.mkv", width=128, height=96, source=source.info, options=options) as sink:
                for frame in source:
                    sink.write(frame.rgb, pts=frame.pts, duration=frame.duration)
        with av.open(str(tmp_path / "o.mkv")) as container:
            return getattr(container.streams.video[0].codec_context, "field_order", None)

    woven_clip = write_flagged(tmp_path / "i.mkv", interlaced(moving(24)), top_first=True)
    whole_clip = write_clip(tmp_path / "p.mkv", moving(12), LOSSLESS)
    as_is = {"deinterlace": "off", "detelecine": "off"}
    orders = [
        *(order_of(woven_clip), order_of(whole_clip), order_of(whole_clip, deinterlace="off")),
        *(order_of(woven_clip, deinterlace="off"), order_of(woven_clip, **as_is), order_of(whole_clip, **as_is)),
    ]
    if None not in orders:  # PyAV 17.1 does not tell.
        assert orders == [1, 1, 1, 0, 0, 0]


def with_clicks(silent, path, at_s: list[float], length_s: float) -> None:
    samples = np.zeros((1, int(48000 * length_s) * 2), np.int16)
    for second in at_s:
        samples[:, round(48000 * second) * 2 :][:, :96] = 20000
    with av.open(str(silent)) as source, av.open(str(path), "w") as output:
        video = output.add_stream_from_template(source.streams.video[0])
        sound = output.add_stream("pcm_s16le", rate=48000, layout="stereo")
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                output.mux(packet)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        output.mux(sound.encode(frame))
        output.mux(sound.encode(None))


def clicks_of(path) -> list[float]:
    with av.open(str(path)) as container:
        levels = [
            (float(frame.time), np.abs(frame.to_ndarray().astype(float)).reshape(-1, 2).max(1))
            for frame in container.decode(audio=0)
        ]
    found: list[float] = []
    for begin, level in levels:
        for at in np.flatnonzero(level > 5000):
            if not found or begin + at / 48000 > found[-1] + 0.1:
                found.append(begin + at / 48000)
    return found
