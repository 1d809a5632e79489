"""`seedvr2 compare`: the numbers of two clips, and jumps at chunk borders."""

import json
import math

import pytest
import torch

from seedvr2_engine.pipeline.chunks import ChunkPlan
from seedvr2_engine.quality.compare import ClipMeter, border_jumps
from seedvr2_engine.video import SinkOptions, open_sink, open_source

from .test_commands import refused, seedvr2


def write(path, frames):
    height, width = frames[0].shape[1:]
    with open_sink(path, width=width, height=height, options=SinkOptions(codec="ffv1")) as sink:
        for frame in frames:
            sink.write(frame)
    return path


def drifting(count, grain=0.0, jump_at=None):
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    generator = torch.manual_seed(1)
    frames = []
    for index in range(count):
        shift = 0.15 if jump_at is not None and index >= jump_at else 0.0
        wave = ((rows + columns * 2 + index) / 9).sin() * 0.2 + 0.5 + shift
        frames.append((wave.expand(3, -1, -1) + torch.randn(3, 24, 32, generator=generator) * grain).clamp(0, 1))
    return frames


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    clean = drifting(12)
    dark = [frame * 0.9 for frame in clean]
    return {
        "reference": write(folder / "reference.mkv", clean),
        "dark": write(folder / "dark.mkv", dark),
        "grainy": write(folder / "grainy.mkv", drifting(12, grain=0.05)),
        "short": write(folder / "short.mkv", clean[:5]),
        "small": write(folder / "small.mkv", [frame[:, :16, :16] for frame in clean]),
    }


def test_two_clips_against_a_reference(clips, tmp_path):
    sheet = tmp_path / "sheet.png"
    arguments = ["compare", clips["dark"], clips["grainy"], "--reference", clips["reference"], "--picture", sheet]
    facts = json.loads(seedvr2(*arguments, "--json").stdout)
    dark, grainy = facts["clips"]
    assert dark["psnr_db"] == pytest.approx(10 * math.log10(1 / 0.0027), abs=0.5)
    assert grainy["psnr_db"] == pytest.approx(26, abs=0.5)
    assert dark["mean_ssim"] > grainy["mean_ssim"]
    assert grainy["flicker"] > 5 * dark["flicker"]
    assert dark["border_jumps"] == []
    with open_source(sheet) as picture:
        assert (picture.info.width, picture.info.height) == (96, 48)
    assert "exists" in refused(*arguments)


def test_two_clips_against_each_other(clips):
    result = seedvr2("compare", clips["reference"], clips["reference"])
    assert result.exit_code == 0, result.stderr
    assert "inf" in result.stdout
    assert "A against B" in result.stdout
    facts = json.loads(seedvr2("compare", clips["reference"], clips["reference"], "--json").stdout)
    assert facts["clips"][0]["psnr_db"] is None


def test_a_clip_against_itself_has_a_picture_too(clips, tmp_path):
    sheet = tmp_path / "sheet.png"
    arguments = ["compare", clips["dark"], clips["dark"], "--picture", sheet]
    facts = json.loads(seedvr2(*arguments, "--json").stdout)
    assert facts["worst_frame"] == 0
    assert facts["clips"][0]["psnr_db"] is None
    with open_source(sheet) as picture:
        assert (picture.info.width, picture.info.height) == (64, 48)


def test_the_worst_frame_is_shown_with_eightfold_differences_and_counted_from_the_start(tmp_path):
    grey = torch.full((3, 24, 32), 0.5)
    write(tmp_path / "a.mkv", [grey] * 6)
    write(tmp_path / "b.mkv", [grey + shift for shift in (0.3, 0, 0, 0.02, 0.05, 0.01)])
    sheet = tmp_path / "sheet.png"
    result = seedvr2("compare", tmp_path / "a.mkv", tmp_path / "b.mkv", "--start", "2", "--picture", sheet, "--json")
    assert json.loads(result.stdout)["worst_frame"] == 4
    with open_source(sheet) as picture:
        rgb = next(picture).rgb
    for rows, columns, value in ((0, 0, 0.5), (0, 32, 0.55), (24, 0, 0.5 - 8 * 0.05), (24, 32, 0.5)):
        assert rgb[:, rows + 12, columns + 16].tolist() == pytest.approx([value] * 3, abs=0.03)


def test_clips_of_different_lengths_and_sizes(clips):
    result = seedvr2("compare", clips["reference"], clips["short"], "--json")
    assert json.loads(result.stdout)["clips"][0]["frames"] == 5
    assert "12, 5 frames" in result.stderr
    assert "expected 32x24" in refused("compare", clips["reference"], clips["small"])


def test_perceptual_distances_need_their_library(clips):
    assert "--chunk-frames" in refused("compare", *[clips["dark"]] * 2, "--overlap", "1")
    assert "expected one of none, lpips, dists" in refused("compare", *[clips["dark"]] * 2, "--perceptual", "niqe")
    sentence = refused("compare", *[clips["dark"]] * 2, "--perceptual", "dists")
    assert "expected the library DISTS_pytorch" in sentence


def jumps_of(frames, plan):
    meter = ClipMeter()
    for frame in frames:
        meter.add(frame)
    return meter.measures(plan).border_jumps


def test_a_jump_at_a_border_is_seen_and_an_even_motion_is_none():
    plan = ChunkPlan(13, 1)
    assert len(jumps_of(drifting(40), plan)) == 3
    assert max(jumps_of(drifting(40), plan)) < 1.05
    # 24 is the start of the third chunk; 18 lies inside the second.
    first, second, third = jumps_of(drifting(40, jump_at=24), plan)
    assert second > 1.5
    assert first < 1.05
    assert third < 1.05
    assert max(jumps_of(drifting(40, jump_at=18), plan)) <= 1.05


def test_stills_have_no_jumps_and_a_change_from_stillness_is_infinite():
    plan = ChunkPlan(13, 1)
    assert border_jumps([0.0] * 30, plan) == (1.0, 1.0)
    changes = [0.0] * 30
    changes[11] = 3.0
    assert border_jumps(changes, plan)[0] == math.inf
    assert border_jumps([1.0] * 4, plan) == ()
