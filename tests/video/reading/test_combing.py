"""Whole frames are told from woven ones by their combs."""

import numpy as np
import pytest

from seedvr2_engine.video.reading.fields.combing import classify

from ..made.field_clips import moving, texture, woven


def scrolled(source: np.ndarray, down: float, right: float, count: int) -> list[np.ndarray]:
    return [
        np.roll(source, (round(down * index), round(right * index)), (0, 1))[:96, :160].astype(np.int16)
        for index in range(count)
    ]


def progressive_clips() -> dict[str, list[np.ndarray]]:
    """(96,160) int16 luma, twelve frames each, of what is easily taken for combs."""
    rng = np.random.default_rng(5)
    rows = np.arange(192)[:, None] + np.zeros((1, 320))
    picture = texture(320, 192).astype(np.int16)
    letters = np.where(rng.random((48, 80)) < 0.4, 235, 16).repeat(4, 0).repeat(4, 1)
    rules = np.where(np.arange(192)[:, None] % 8 == 0, letters, 16)
    clips = {
        "still": scrolled(picture, 0, 0, 12),
        "noise": [rng.integers(0, 256, (96, 160)).astype(np.int16) for _ in range(12)],
        "noisy still": [(picture[:96, :160] + rng.normal(0, 6, (96, 160))).astype(np.int16) for _ in range(12)],
        "fast pan": scrolled(picture, 0, 37, 12),
        "slow tilt": scrolled(picture, 0.5, 0, 12),
        "cuts": [picture[i % 7 * 13 :, i % 5 * 31 :][:96, :160] for i in range(12)],
        "fade": [(picture[:96, :160] * i // 12).astype(np.int16) for i in range(12)],
        "flashes": [picture[:96, :160] // (1 + i % 2) for i in range(12)],
        "accelerating": [np.roll(picture, i * i, 1)[:96, :160] for i in range(12)],
        "held for two": [np.roll(picture, i // 2 * 9, 1)[:96, :160] for i in range(12)],
        "box": [np.where((abs(rows - 48) < 20) & (abs(np.arange(320) - 30 - 9 * i) < 15), 220, 40)[:96, :160].astype(
            np.int16) for i in range(12)],
    }  # fmt: skip
    for period in (16, 48):
        wave = [2 * np.pi * ((rows - 0.3 * i) / period + (np.arange(320) - 1.3 * i) / 37) for i in range(12)]
        clips[f"wave of {period}"] = [(128 + 100 * np.sin(phase[:96, :160])).astype(np.int16) for phase in wave]
    for step in (1, 2, 3, 4, 6):
        clips[f"letters by {step}"] = scrolled(letters, -step, 0, 12)
        clips[f"rules by {step}"] = scrolled(rules, -step, 0, 12)
    for period in (2, 3, 4, 6, 8, 16):
        stripes = np.where(rows % period < period / 2, 235, 16)
        for step in (0.5, 1, 1.5, 2, 3):
            clips[f"stripes of {period} by {step}"] = scrolled(stripes, step, 0, 12)
    return clips


@pytest.mark.parametrize("grain", [0, 4])
def test_no_whole_frame_is_taken_for_a_woven_one(grain):
    rng = np.random.default_rng(6)
    for name, frames in progressive_clips().items():
        grained = [np.clip(frame + rng.normal(0, grain, frame.shape), 0, 255).astype(np.int16) for frame in frames]
        found = [classify(*grained[at - 1 : at + 2]) for at in range(1, 11)]
        assert not {"top", "bottom"} & set(found), (name, found)


@pytest.mark.parametrize("step", [2, 4, 9])
@pytest.mark.parametrize("grain", [0, 4])
def test_woven_frames_are_told_with_their_order(step, grain):
    rng = np.random.default_rng(6)
    moments = [m[:, :, 0] + rng.normal(0, grain, m.shape[:2]) for m in moving(24, step)]
    for top_first in (True, False):
        frames = [woven(a, b, top_first=top_first) for a, b in zip(moments[::2], moments[1::2], strict=True)]
        frames = [np.clip(frame, 0, 255).astype(np.int16) for frame in frames]
        found = [classify(*frames[at - 1 : at + 2]) for at in range(1, 11)]
        assert found.count("top" if top_first else "bottom") >= 9, found
