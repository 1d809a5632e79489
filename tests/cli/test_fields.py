"""Interlaced clips on the command line: said before the work, changed on request, compared as stored."""

import json
from fractions import Fraction

import pytest

from seedvr2_engine.video import open_source

from ..conftest import GOLDEN
from ..video.made.clips import ClipSpec, write_clip
from ..video.made.field_clips import interlaced, moving, telecined
from .test_commands import refused, seedvr2

TINY_VAE = str(GOLDEN / "vae_tiny.safetensors")
MODELS = ["--dit", "nano"]


@pytest.fixture(scope="module")
def woven_clip(tmp_path_factory):
    frames = interlaced(moving(12, width=64, height=48))
    return write_clip(tmp_path_factory.mktemp("clips") / "woven.mkv", frames, ClipSpec(pix_fmt="yuv420p"))


def test_the_plan_says_what_becomes_of_fields(woven_clip, tmp_path, monkeypatch):
    # Measured anew for every plan, and beside the point here.
    monkeypatch.setattr("seedvr2_engine.pipeline.forecast.matrix_rate", lambda *_: 1e12)
    said = seedvr2("upscale", woven_clip, tmp_path / "o.mp4", *MODELS, "--scale", "1", "--plan")
    assert said.exit_code == 0, said.stderr
    assert "woven.mkv is interlaced, top field first" in " ".join(said.stdout.split())
    film = write_clip(
        tmp_path / "film.mkv", telecined(moving(16)), ClipSpec(rate=Fraction(30000, 1001), pix_fmt="yuv420p")
    )
    planned = seedvr2("upscale", film, tmp_path / "o.mp4", *MODELS, "--scale", "1", "--plan")
    assert "16 frames" in planned.stdout
    assert "23.976" in planned.stdout


def test_a_wrong_choice_gets_one_sentence(woven_clip, tmp_path):
    for option in ("--deinterlace", "--detelecine"):
        sentence = refused("upscale", woven_clip, tmp_path / "o.mp4", *MODELS, "--scale", "1", option, "yadif")
        assert f"{option[2:]}: expected one of auto, off" in sentence
    assert not (tmp_path / "o.mp4").exists()


def test_reconstruct_says_it_and_writes_whole_frames(woven_clip, tmp_path):
    target = tmp_path / "o.mkv"
    result = seedvr2("reconstruct", woven_clip, target, "--vae", TINY_VAE, "--codec", "ffv1", "--frames", "1")
    assert result.exit_code == 0, result.stderr
    assert "it is deinterlaced by bwdif, one frame for each stored one" in " ".join(result.stderr.split())
    with open_source(target) as source:
        assert len(source) == 1


def test_compare_takes_frames_as_stored(woven_clip):
    compared = seedvr2("compare", woven_clip, woven_clip, "--json")
    assert compared.exit_code == 0, compared.stderr
    assert "interlaced" not in compared.stderr
    as_stored = json.loads(compared.stdout)["clips"][0]["change"]
    asked = seedvr2("compare", woven_clip, woven_clip, "--json", "--deinterlace", "auto")
    assert "is interlaced" in " ".join(asked.stderr.split())
    assert json.loads(asked.stdout)["clips"][0]["change"] != pytest.approx(as_stored, rel=0.01)
