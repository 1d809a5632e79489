"""Cuts and fades are found, and what only looks like one is not."""

import pytest
import torch

from seedvr2_engine.jobs.shot import Shot

from .made import borders, flat, found, scene


def test_cuts_between_scenes():
    frames = scene(1, 12) + scene(2, 9) + scene(3, 12)
    assert found(frames) == (Shot(0, 12), Shot(12, 21, "cut"), Shot(21, 33, "cut"))


def test_a_cut_to_another_view_of_the_same_place():
    assert borders(scene(4, 12) + scene(4, 12, start=180)) == [(12, "cut")]


def test_a_cut_between_pans():
    assert borders(scene(1, 12, step=3) + scene(2, 12, step=3)) == [(12, "cut")]


def test_a_cut_in_the_dark():
    assert borders([frame * 0.08 for frame in scene(1, 12) + scene(2, 12)]) == [(12, "cut")]


def test_short_shots_are_kept_and_a_single_frame_joins_what_follows():
    frames = scene(1, 10) + scene(2, 2) + scene(3, 10) + scene(4, 1) + scene(5, 10)
    assert borders(frames) == [(10, "cut"), (12, "cut"), (22, "cut")]
    for before, single, after in ((1, 6, 3), (1, 7, 2), (2, 8, 3), (3, 9, 1)):
        assert borders(scene(before, 8) + scene(single, 1) + scene(after, 8)) == [(8, "cut")]


def test_a_frame_mixed_of_two_shots_begins_the_second():
    before, after = scene(1, 12, step=0), scene(2, 12, step=0)
    assert borders([*before, torch.lerp(before[-1], after[0], 0.5), *after]) == [(12, "cut")]


@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("hold", [2, 9])
def test_a_fade_is_one_border_where_nothing_is_seen(level, hold):
    out, back = torch.linspace(0.9, 0.1, 9), torch.linspace(0.1, 0.9, 9)
    frames = scene(1, 10) + [
        level + (frame - level) * share for frame, share in zip(scene(1, 9, start=10), out, strict=True)
    ]
    begin = len(frames)
    frames += flat(level, hold)
    frames += [level + (frame - level) * share for frame, share in zip(scene(2, 9), back, strict=True)] + scene(
        2, 10, start=9
    )
    [(place, border)] = borders(frames)
    assert begin <= place <= begin + hold
    assert border == "fade"


def test_black_that_is_cut_to_is_a_shot():
    assert borders(scene(1, 10) + flat(0, 8) + scene(2, 10)) == [(10, "cut"), (18, "cut")]


def test_a_white_frame_between_two_shots_begins_the_second():
    assert borders(scene(1, 10) + flat(1, 1) + scene(2, 10)) == [(10, "cut")]


def test_black_at_the_ends_is_no_border():
    ramp = torch.linspace(0, 1, 8)
    dark_in = [frame * share for frame, share in zip(scene(1, 8), ramp, strict=True)]
    dark_out = [frame * share for frame, share in zip(scene(1, 8, start=20), ramp.flip(0), strict=True)]
    assert borders(flat(0, 6) + dark_in + scene(1, 12, start=8) + dark_out + flat(0, 6)) == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_flashes_are_no_cuts(count):
    frames = scene(1, 24)
    for index in range(10, 10 + count):
        frames[index] = (frames[index] * 2.5 + 0.2).clamp(0, 1)
    assert borders(frames) == []
    frames[10 : 10 + count] = flat(1, count)
    assert borders(frames) == []


def test_what_passes_by_is_no_cut():
    frames = scene(1, 24, step=0)
    frames[10:13] = scene(2, 3)
    assert borders(frames) == []


def test_strobes_and_switched_lights_are_no_cuts():
    frames = scene(1, 40)
    frames = [frame * (0.2 if index // 2 % 2 else 1) for index, frame in enumerate(frames)]
    assert borders(frames) == []
    assert borders([*scene(1, 12), *(frame * 0.4 for frame in scene(1, 12, start=12))]) == []
    assert borders([*(frame * 0.5 for frame in scene(1, 12)), *scene(1, 12, start=12)]) == []


def test_dissolves_are_no_cuts():
    one, other = scene(1, 40), scene(2, 40)
    shares = torch.linspace(0, 1, 16)
    mixed = [torch.lerp(a, b, share) for a, b, share in zip(one[12:28], other[12:28], shares, strict=True)]
    assert borders(one[:12] + mixed + other[28:]) == []


@pytest.mark.parametrize("motion", [{"step": 6}, {"step": 1, "shake": 5}, {"step": 12}])
def test_motion_is_no_cut(motion):
    assert borders(scene(1, 20, **motion)) == []


def test_a_dash_is_no_cut():
    frames = scene(1, 10, step=0)
    for place in range(10, 15):
        blurred = [scene(1, 1, start=(place - 10) * 24 + part)[0] for part in range(0, 24, 3)]
        frames.append(torch.stack(blurred).mean(0))
    assert borders(frames + scene(1, 10, step=0, start=120)) == []


def test_one_frame_and_two():
    assert found(scene(1, 1)) == (Shot(0, 1),)
    assert borders(scene(1, 1) + scene(2, 1)) == [(1, "cut")]
    assert borders(flat(0, 5)) == []
