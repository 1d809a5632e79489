"""`upscale` in units, as a user meets it; units are made small."""

import pytest

from seedvr2_engine.jobs.running import executors
from seedvr2_engine.jobs.units import unit

from .test_commands import refused, seedvr2

SMALL = ("--resolution", "16", "--chunk-frames", "5", "--vae-span", "clip")


@pytest.fixture
def small_units(monkeypatch):
    monkeypatch.setattr(unit, "UNIT_PIXELS", 1)


def test_a_clip_with_sound_in_units_and_broken_off(clip, models, tmp_path, small_units, monkeypatch):
    whole, parts = tmp_path / "whole.mp4", tmp_path / "parts.mp4"
    with monkeypatch.context() as large:
        large.setattr(unit, "UNIT_PIXELS", 1 << 30)
        result = seedvr2("upscale", clip, whole, *SMALL, *models)
        assert result.exit_code == 0
        assert "units" not in result.stderr
    run, begun = executors.UnitRunner.run, []

    def fails(self, asked):
        begun.append(asked.number)
        if asked.number == 1:
            raise MemoryError
        return run(self, asked)

    with monkeypatch.context() as broken:
        broken.setattr(executors.UnitRunner, "run", fails)
        result = seedvr2("upscale", clip, parts, *SMALL, *models)
    assert result.exit_code == 2
    assert f"1 of 2 units are finished, in {parts}.job; the same command" in " ".join(result.stderr.split())
    assert not parts.exists()
    sentence = refused("upscale", clip, parts, *SMALL, *models, "--seed", "7")
    assert "seed was 42 and is 7 now; run that one's command, or begin anew (--restart)." in sentence
    result = seedvr2("upscale", clip, parts, *SMALL, *models)
    assert result.exit_code == 0
    assert "going on; 1 of 2 units are finished." in " ".join(result.stderr.split())
    assert parts.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.mp4", "whole.mp4"]


def test_a_plan_says_shots_units_and_disk(clip, models, tmp_path, small_units):
    listed = tmp_path / "shots.txt"
    listed.write_text("0\n2\n5\n")
    result = seedvr2("upscale", clip, tmp_path / "out.mp4", *SMALL, *models, "--plan", "--shots", listed)
    told = " ".join(result.stdout.split())
    assert "units 3 of up to 3 frames, of 3 shots" in told
    assert "disk at most" in told
    assert list(tmp_path.iterdir()) == [listed]


def test_devices_that_cannot_be(clip, models, tmp_path):
    out = tmp_path / "out.mp4"
    both = refused("upscale", clip, out, *models, "--device", "cpu", "--devices", "cpu,cpu")
    assert both == "devices: expected --device or --devices, got --device cpu and --devices cpu,cpu; leave one out."
    assert "expected auto, off or a file" in refused("upscale", clip, out, *models, "--shots", tmp_path / "none")
