"""`--page` of `compare` and `upscale`."""

import json
import re
from pathlib import Path

import pytest
import torch

from seedvr2_engine.video import SinkOptions, open_sink

from .test_commands import refused, seedvr2


def write(path: Path, frames: int, scale: int = 1) -> Path:
    rows, columns = torch.meshgrid(torch.linspace(0, 5, 32 * scale), torch.linspace(0, 7, 48 * scale), indexing="ij")
    with open_sink(path, width=48 * scale, height=32 * scale, options=SinkOptions()) as sink:
        for index in range(frames):
            sink.write(torch.stack([(rows * colour + columns + index / 9).sin() / 2 + 0.5 for colour in (1, 2, 3)]))
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return write(folder / "small.mp4", 6), write(folder / "large.mp4", 6, 2)


def data_of(page: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text())[1])


def test_compare_makes_a_page_of_clips_of_two_sizes(clips: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = seedvr2("compare", *clips, "--reference", clips[1], "--page", page, "--chunk-frames", "5", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert [clip["frames"] for clip in facts["clips"]] == [6, 6]
    assert facts["clips"][1]["psnr_db"] is None
    assert "opens in any browser" in result.stderr
    data = data_of(page)
    assert [side["badge"] for side in data["sides"]] == ["A", "B", "R"]
    assert data["size"] == [96, 64]
    assert [mark["frame"] for mark in data["marks"]] == [4]
    assert "exists already" in refused("compare", *clips, "--page", page)
    assert seedvr2("compare", *clips, "--page", page, "--overwrite", "--page-media", "beside").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "page-media").iterdir()) == ["a.mp4", "b.mp4"]


def test_a_page_takes_a_part_of_the_frames(clips: tuple[Path, Path], tmp_path: Path) -> None:
    seedvr2("compare", *clips, "--page", tmp_path / "page.html", "--start", "2", "--frames", "3")
    data = data_of(tmp_path / "page.html")
    assert (data["firstFrame"], data["frames"]) == (2, 3)


def test_a_page_and_a_picture_are_made_one_at_a_time(clips: tuple[Path, Path], tmp_path: Path) -> None:
    sentence = refused("compare", *clips, "--page", tmp_path / "a.html", "--picture", tmp_path / "a.png")
    assert "one at a time" in sentence
    assert "ends in .html" in refused("compare", *clips, "--page", tmp_path / "a.pdf")
    assert "expected 48x32" in refused("compare", *clips)


def test_upscale_makes_a_page_of_what_went_in_and_what_came_out(clips: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ["upscale", clips[0], tmp_path / "out.mp4", "--dit", "nano", "--scale", "2", "--frames", "5"]
    result = seedvr2(*arguments, "--start", "1", "--seed", "7", "--page", page)
    assert result.exit_code == 0, result.stderr
    data = data_of(page)
    assert [side["size"] for side in data["sides"]] == [[48, 32], [96, 64]]
    assert (data["firstFrame"], data["frames"]) == (1, 5)
    tables = {table["title"]: dict(table["rows"]) for table in data["tables"]}
    assert tables["Settings"]["Seed"] == "7"
    assert tables["Settings"]["Scale"] == "2.0"
    assert tables["Models and time"]["VAE"].startswith("nano")
    assert re.match(r"[\d.]+ s \(", tables["Models and time"]["Time"])


def test_a_page_is_of_one_clip_and_refused_before_the_work(clips: tuple[Path, Path], tmp_path: Path) -> None:
    taken = tmp_path / "taken.html"
    taken.touch()
    arguments = ["upscale", clips[0], tmp_path / "out.mp4", "--dit", "nano", "--scale", "2"]
    assert "exists already" in refused(*arguments, "--page", taken)
    assert not (tmp_path / "out.mp4").exists()
    several = ["upscale", clips[0].parent, tmp_path / "out", "--dit", "nano", "--scale", "2"]
    assert "expected one clip" in refused(*several, "--page", tmp_path / "page.html")
