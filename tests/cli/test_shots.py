"""`seedvr2 shots`: the table, the list, the contact sheets, and what is refused."""

import json

import pytest
from PIL import Image

from seedvr2_engine.video import SinkOptions, open_sink

from ..jobs.shots.made import scene
from .test_commands import refused, seedvr2


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("shots") / "clip.mkv"
    with open_sink(path, width=64, height=48, options=SinkOptions(codec="ffv1")) as sink:
        for picture in scene(1, 12) + scene(2, 12):
            sink.write(picture)
    return path


def test_the_table_the_list_and_the_sheet(clip, tmp_path):
    file, sheet = tmp_path / "shots.json", tmp_path / "sheet.png"
    result = seedvr2("shots", clip, "--json", file, "--picture", sheet)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[1:3] == [
        ["1", "0", "0:00:00.000", "12", "the", "clip"],
        ["2", "12", "0:00:00.500", "12", "a", "cut"],
    ]
    assert rows[3] == ["2", "shots,", "24", "frames"]
    assert Image.open(sheet).size[0] > 3 * 224
    printed = seedvr2("shots", clip, "--json", "-").stdout
    assert json.loads(printed) == json.loads(file.read_text())
    # A list is shown as it is, and no frame is looked at for it.
    assert json.loads(seedvr2("shots", clip, "--shots", file, "--json", "-").stdout) == json.loads(printed)


def test_frames_are_counted_from_the_start_of_the_clip(clip):
    result = seedvr2("shots", clip, "--start", "4", "--frames", "12")
    assert [line.split()[1:4:2] for line in result.stdout.splitlines()[1:3]] == [["4", "8"], ["12", "4"]]


def test_nothing_good_is_replaced(clip, tmp_path):
    file, sheet = tmp_path / "shots.json", tmp_path / "sheet.png"
    for path, option in ((file, "--json"), (sheet, "--picture")):
        path.write_text("mine")
        assert "exists already" in refused("shots", clip, option, path)
        assert path.read_text() == "mine"
    assert seedvr2("shots", clip, "--json", file, "--picture", sheet, "--overwrite").exit_code == 0
    assert json.loads(file.read_text())["frames"] == 24
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sheet.png", "shots.json"]


def test_numbered_pictures(tmp_path):
    with open_sink(tmp_path / "pictures", width=64, height=48) as sink:
        for picture in scene(1, 8) + scene(2, 8):
            sink.write(picture)
    facts = json.loads(seedvr2("shots", tmp_path / "pictures", "--rate", "10", "--json", "-").stdout)
    assert [(shot["start"], shot["time_s"]) for shot in facts["shots"]] == [(0, 0.0), (8, 0.8)]


def test_one_sentence_for_what_cannot_be(clip, tmp_path):
    assert "expected a name that ends in .png" in refused("shots", clip, "--picture", tmp_path / "sheet.jpg")
    assert "its folder does not exist" in refused("shots", clip, "--json", tmp_path / "no" / "list.json")
    assert "expected auto, off or a file that lists them" in refused("shots", clip, "--shots", "on")
    assert refused("shots", "-")
    assert refused("shots", tmp_path / "missing.mp4")
