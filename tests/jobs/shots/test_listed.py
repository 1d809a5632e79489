"""Lists of shots: written, read back, and refused in one sentence."""

import json
import re
from dataclasses import replace
from fractions import Fraction

import pytest

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.jobs.shot import Shot, divided
from seedvr2_engine.jobs.shots.choice import parse_choice, shots_of
from seedvr2_engine.jobs.shots.listed import facts, read_shots
from seedvr2_engine.video import SinkOptions, open_sink, open_source

from .made import scene

FRAMES = 40


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("shots") / "clip.mkv"
    with open_sink(path, width=64, height=48, options=SinkOptions(codec="ffv1")) as sink:
        for picture in scene(1, 12) + scene(2, 16) + scene(3, 12):
            sink.write(picture)
    return path


@pytest.fixture
def listed(clip, tmp_path):
    def read(content, **cut):
        file = tmp_path / "shots.txt"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with open_source(clip, **cut) as source:
            return read_shots(file, source.info)

    return read


def starts(shots):
    return [(shot.start, shot.border) for shot in shots]


def test_found_shots_come_back_from_their_json(clip, listed):
    with open_source(clip) as source:
        shots = shots_of(source, "auto")
        text = json.dumps(facts(shots, source.info))
    assert shots == (Shot(0, 12), Shot(12, 28, "cut"), Shot(28, 40, "cut"))
    assert listed(text) == shots
    assert json.loads(text)["shots"][1] == {
        "start": 12, "stop": 28, "border": "cut", "time_s": 0.5, "length_s": 0.666667,
    }  # fmt: skip


def test_lists_count_the_whole_source_and_shots_what_is_read_of_it(clip, listed):
    with open_source(clip, start=5, frames=30) as source:
        part = shots_of(source, "auto")
        text = json.dumps(facts(part, source.info))
    assert part == (Shot(0, 7), Shot(7, 23, "cut"), Shot(23, 30, "cut"))
    assert [shot["start"] for shot in json.loads(text)["shots"]] == [5, 12, 28]
    assert listed(text, start=5, frames=30) == part
    assert listed(text, start=12, frames=10) == (Shot(0, 10),)
    assert listed("12\n28", start=5, frames=30) == divided(30, [(7, "given"), (23, "given")])
    with pytest.raises(InvalidArgumentError, match="frames 0 to 39, which are read, found frames 5 to 34"):
        listed(text)


@pytest.mark.parametrize(
    "text",
    [
        "0\n12\n28\n",
        "\ufeff12  # the second\r\n\r\n28",
        "00:00:00.500\n00:01.166667",
        "00:00:00:12\n00:00:01:04",
        "Scene Number,Start Frame,End Frame\n1,1,12\n2,13,28\n3,29,40\n",
        "Timecode List:,00:00:00.500,00:00:01.167\nScene Number,Start Frame,Start Timecode\n1,1,x\n2,13,x\n3,29,x\n\n",
    ],
)
def test_text_and_other_lists(listed, text):
    assert starts(listed(text)) == [(0, "start"), (12, "given"), (28, "given")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected a list of shots, found none in it"),
        ("12\nabc", "line 2: expected a frame number or a timecode such as"),
        ("12\n12", "line 2: expected a frame after 12, found 12"),
        ("28\n12", "line 2: expected a frame after 28, found 12"),
        ("40", "line 1: expected a frame before 40, where clip.mkv ends, found 40"),
        ("-3", "line 1: expected a frame number"),
        ("Scene Number,Start Frame\n1,1\n2\n", "line 3: expected a frame from 1 on under Start Frame, found ''"),
        ("Scene Number,Start Frame\n1,0\n", "line 2: expected a frame from 1 on under Start Frame, found '0'"),
        ("[1, 2]", "expected the JSON of `seedvr2 shots`, found another one"),
        ("[" * 100_000, "found JSON that breaks off"),
        ('{"format": "seedvr2 shots", "version": 9, "shots": []}', "expected version 1 of the list, found 9"),
        (b"\xff\xfe\x00", "expected a list of shots, found no text"),
    ],
)
def test_what_is_no_list_is_refused(listed, text, sentence):
    with pytest.raises(InvalidArgumentError, match=re.escape(sentence)):
        listed(text)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"frames": 41}, "expected shots of 40 frames (fields: none), as clip.mkv is read, found those of 41"),
        ({"fields": "bwdif"}, "found those of 40 (fields: bwdif)"),
        ({"shots": []}, "expected shots of frames 0 to 39, which are read, found none"),
        ({"shots": [{"start": 0, "stop": 12, "border": "start"}]}, "found frames 0 to 11"),
        ({"shots": [{"start": 0, "stop": 0, "border": "start"}]}, "shot 1: expected a start before a stop"),
        ({"shots": [{"start": True, "stop": 40, "border": "start"}]}, "shot 1: expected a start before a stop"),
        ({"shots": [{"start": 0, "stop": 40, "border": ["cut"]}]}, "shot 1: expected a start before a stop"),
        ({"shots": [7]}, "shot 1: expected a start before a stop"),
        (
            {"shots": [{"start": 0, "stop": 12, "border": "start"}, {"start": 13, "stop": 40, "border": "cut"}]},
            "shot 2: expected it to start at frame 12, where the one before stops, found 13",
        ),
    ],
)
def test_json_that_does_not_fit_is_refused(clip, listed, change, sentence):
    with open_source(clip) as source:
        content = facts(divided(FRAMES, [(12, "cut")]), source.info)
    with pytest.raises(InvalidArgumentError, match=re.escape(sentence)):
        listed(json.dumps(content | change))


def test_timecodes_need_an_even_rate(clip, tmp_path):
    file = tmp_path / "list"
    file.write_text("00:00:00.100")
    with open_source(clip) as source:
        uneven = replace(source.info, variable_rate=True)
    assert facts(divided(40, []), uneven)["shots"] == [{"start": 0, "stop": 40, "border": "start"}]
    with pytest.raises(InvalidArgumentError, match=r"clip\.mkv has no even rate; give frame numbers"):
        read_shots(file, uneven)


def test_shots_of_a_choice(clip, tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("20")
    seen = []
    with open_source(clip) as source:
        assert source.info.average_rate == Fraction(24)
        assert shots_of(source, parse_choice("off")) == (Shot(0, FRAMES),)
        assert starts(shots_of(source, parse_choice(str(file)))) == [(0, "start"), (20, "given")]
        assert len(shots_of(source, parse_choice("auto"), seen.append)) == 3  # Nothing was read before.
    assert seen == list(range(1, FRAMES + 1))
    for text in ("on", "-", str(tmp_path)):
        with pytest.raises(InvalidArgumentError, match="expected auto, off or a file that lists them, got"):
            parse_choice(text)


def test_shots_have_frames_and_known_borders():
    assert len(Shot(3, 7)) == 4
    with pytest.raises(InvalidArgumentError, match="at least one frame, from 0 on, got frames 7 to before 7"):
        Shot(7, 7)
    with pytest.raises(InvalidArgumentError, match="expected a border out of start, cut, fade, given, got 'wipe'"):
        Shot(0, 7, "wipe")
