"""Rotary embeddings against the reference's, also as it rounds them."""

import math

import pytest
import torch

from seedvr2_engine.models.dit.config import PUBLIC_3B, PUBLIC_7B
from seedvr2_engine.models.dit.rope import rotary_frequencies, rotate, rotation, text_angles, video_angles

from .dit_cases import golden

CONFIGS = {"3b": PUBLIC_3B, "7b": PUBLIC_7B}
ROUNDINGS = {"fp32": "float32", "fp16": "float16", "fp8": "float8"}


def one_window(size):
    return tuple(((0, extent),) for extent in size)


@pytest.mark.parametrize("stored", ROUNDINGS)
@pytest.mark.parametrize("family", CONFIGS)
def test_angles_are_the_reference_ones(family, stored):
    cases, config = golden(), CONFIGS[family]
    text_tokens = cases["rope/txt_len"].item()
    angles = torch.cat(
        [
            video_angles(config, one_window(size), text_tokens, ROUNDINGS[stored])
            for size in cases["rope/windows"].tolist()
        ]
    )
    # The last bit of a power may differ between libraries, and with it that of the largest angle.
    largest = 2e-5 if stored == "fp32" else 0
    assert (angles - cases[f"rope{family}/{stored}/vid_angles"]).abs().max() <= largest
    if family == "3b":
        expected = cases[f"rope3b/{stored}/txt_angles"]
        assert (text_angles(config, text_tokens, ROUNDINGS[stored]) - expected).abs().max() <= largest
    else:
        assert text_angles(config, text_tokens) is None


@pytest.mark.parametrize("family", CONFIGS)
def test_frequencies(family):
    expected = golden()[f"rope{family}/fp32/freqs"]
    assert torch.allclose(rotary_frequencies(CONFIGS[family]), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("family", CONFIGS)
def test_bfloat16_lies_between(family):
    exact, half, bfloat, eight = (
        video_angles(CONFIGS[family], one_window((3, 15, 27)), 58, rounding)
        for rounding in ("float32", "float16", "bfloat16", "float8")
    )
    errors = [(angles - exact).square().mean().item() for angles in (half, bfloat, eight)]
    assert 0 < errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("family", CONFIGS)
def test_rotation_is_the_reference_one(family):
    cases, config = golden(), CONFIGS[family]
    by = rotation(video_angles(config, one_window(cases["rope_apply/window"].tolist()), 58), 128)
    out = rotate(cases["rope_apply/q_in"].float(), by)
    assert (out - cases[f"rope_apply/{family}_q_out"]).abs().max() <= 1e-5


def test_rotation_of_text_is_the_reference_one():
    cases = golden()
    out = rotate(cases["rope_apply/txt_q_in"].float(), rotation(text_angles(PUBLIC_3B, 58), 128))
    assert (out - cases["rope_apply/3b_txt_q_out"]).abs().max() <= 1e-5


@pytest.mark.parametrize(("family", "rotated"), [("3b", 126), ("7b", 60)])
def test_the_last_channels_stay_bit_for_bit(family, rotated):
    x = torch.randn(2, 2, 128)
    out = rotate(x, rotation(torch.rand(2, rotated // 2), 128))
    assert torch.equal(out[..., rotated:], x[..., rotated:])
    assert not torch.equal(out[..., :rotated], x[..., :rotated])


def test_a_clipped_window_is_stretched_in_the_7b_family_only():
    cuts = (((0, 1),), ((0, 3), (3, 5)), ((0, 1),))
    stretched = video_angles(PUBLIC_7B, cuts, 58)[:, 10]
    assert torch.allclose(stretched, math.pi * torch.tensor([-1.0, 0.0, 1.0, -1.0, 1.0]))
    counted = video_angles(PUBLIC_3B, cuts, 58)[:, 21]
    assert torch.equal(counted, torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0]))
