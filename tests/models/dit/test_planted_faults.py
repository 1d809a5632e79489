"""The golden cases must notice mistakes: each one planted here has to cost far more than the tolerance."""

import dataclasses
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from seedvr2_engine.models.dit import attention, blocks, geometry, model, rope, windows
from seedvr2_engine.models.dit.model import NaDiT

from .dit_cases import TINY, TOLERANCE, build_tiny, largest_error, tiny_weights


def replace(target, name, make):
    """Put `make(original)` in the place of an attribute."""

    def plant(monkeypatch):
        monkeypatch.setattr(target, name, make(getattr(target, name)))

    return plant


def always_shifted(shifted):
    return replace(geometry, "window_cuts", lambda original: lambda *grid, **_shifted: original(*grid, shifted=shifted))


def swapped_layers(original):
    return lambda *grid, shifted: original(*grid, shifted=not shifted)


def half_rounded_up(_original):
    def cut_axis(extent, size, *, shifted):
        offset = size // 2 if shifted and size < extent else 0
        edges = sorted({0, extent, *range(size - offset, extent, size)})
        return tuple(pairwise(edges))

    return cut_axis


def shifted_although_covered(_original):
    def cut_axis(extent, size, *, shifted):
        edges = sorted({0, extent, *range(size // 2 if shifted and extent > 1 else size, extent, size)})
        return tuple(pairwise(edges))

    return cut_axis


def rotate_halves(_original):
    def rotate(x, by):
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * by.cos - b * by.sin, b * by.cos + a * by.sin], dim=-1)

    return rotate


def rotate_back(original):
    return lambda x, by: original(x, rope.Rotation(by.cos, -by.sin))


def time_from_zero(original):
    return lambda config, cuts, _text_tokens, rounding: original(config, cuts, 0, rounding)


def token_steps(_original):
    def positions(_config, cuts, first):
        return torch.cat([first + torch.arange(end - start).float() for start, end in cuts])

    return positions


def positions_in_the_frame(original):
    return lambda config, cuts, first: original(config, ((0, cuts[-1][1]),), first)


def reshaped(view):
    def forward(self, timestep):
        x = model.linear_float32(self.proj_in, model.sinusoid(timestep, self.sinusoid_width))
        x = model.linear_float32(self.proj_hid, F.silu(x))
        return view(model.linear_float32(self.proj_out, F.silu(x)))

    return lambda _original: forward


def cosines_first(original):
    return lambda timestep, width: original(timestep, width).roll(width // 2, dims=-1)


def one_more_scale(original):
    return lambda x, shift, scale, eps: original(x, shift, 1 + scale, eps)


def head_of_the_mlp(original):
    return lambda self, timestep: original(self, timestep.flip(1))


def text_of(reduce):
    def make(original):
        def forward(self, video, text, layout, rotations, **how):
            seen = []
            hook = self.proj_out.of("txt").register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
            video, out = original(self, video, text, layout, rotations, **how)
            hook.remove()
            return video, None if out is None else self.proj_out.of("txt")(reduce(seen[-1], layout))

        return forward

    return make


def no_text(original):
    def attend(q, k, v, layout, **how):
        v = v.index_fill(0, layout.text_rows.flatten(), 0)
        return original(q, k, v, layout, **how)

    return attend


def patch_channels_first(self, video):
    split = video.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    return split.permute(0, 1, 2, 4, 6, 3, 5).flatten(4).flatten(0, 3)


def plain_mlp(activation):
    return lambda self, x: self.proj_out(activation(self.proj_in(x)))


def text_modulated_to_the_end(self, text, by):
    return blocks.modulated_norm(text, by.shift, by.scale, self.config.norm_eps)


def without_weight(original):
    return lambda x, eps, weight=None: original(x, eps)


def half_the_heads(self, qkv):
    return qkv.unflatten(1, (-1, self.config.head_width, self.config.heads)).transpose(2, 3)


WINDOWS = {
    "all windows regular": (always_shifted(False), "c9"),
    "all windows shifted": (always_shifted(True), "c9"),
    "even layers shifted": (replace(geometry, "window_cuts", swapped_layers), "c9"),
    "half a window rounded down": (replace(windows, "cut_axis", half_rounded_up), "c5"),
    "axes of one window shifted too": (replace(windows, "cut_axis", shifted_although_covered), "c4"),
    "windows of the frame's own size": (replace(windows, "_NORMAL_TOKENS", lambda _: 8 * 8), "c1"),
    "windows of the clip's own length": (replace(windows, "_NORMAL_FRAMES", lambda _: 10**9), "c6"),
}
PARTS = {
    "halves rotated instead of pairs": replace(attention, "rotate", rotate_halves),
    "rotated backwards": replace(attention, "rotate", rotate_back),
    "positions of the frame instead of the window": replace(rope, "_axis_positions", positions_in_the_frame),
    "modulation vectors in another order": replace(
        model.TimestepEmbedding, "forward", reshaped(lambda e: e.view(2, 3, -1).permute(2, 0, 1))
    ),
    "shift and scale exchanged": replace(
        model.TimestepEmbedding, "forward", reshaped(lambda e: e.view(-1, 2, 3)[..., [1, 0, 2]])
    ),
    "attention and MLP exchanged": replace(
        model.TimestepEmbedding, "forward", reshaped(lambda e: e.view(-1, 2, 3).flip(1))
    ),
    "cosines before sines": replace(model, "sinusoid", cosines_first),
    "one plus scale": replace(blocks, "modulated_norm", one_more_scale),
    "gate left out": replace(blocks, "gated_sum", lambda _: lambda x, change, gate: x + change),
    "queries and keys without weight": replace(attention, "rms_norm", without_weight),
    "heads inside the channels": replace(attention.JointAttention, "_split", lambda _: half_the_heads),
    "text without effect on the video": replace(attention, "attend", no_text),
    "text of the first window": replace(
        attention.JointAttention, "forward", text_of(lambda x, layout: x * layout.text_rows.shape[1])
    ),
    "patches with channels outside": replace(model.PatchIn, "patches", lambda _: patch_channels_first),
}
PARTS_3B = {
    "time counted from zero": replace(geometry, "video_angles", time_from_zero),
    "text not rotated": replace(geometry, "text_angles", lambda _: lambda *_: None),
    "head modulated by the MLP's vectors": replace(model.HeadModulation, "forward", head_of_the_mlp),
    "head norm without weight": replace(model, "rms_norm", without_weight),
    "text modulated in the last layer": replace(
        blocks.Block, "_text_into_attention", lambda _: text_modulated_to_the_end
    ),
    "gate and value exchanged": replace(
        blocks.GatedMLP,
        "forward",
        lambda _: lambda self, x: self.proj_out(self.proj_in_gate(x) * F.silu(self.proj_in(x))),
    ),
}
PARTS_7B = {
    "token steps instead of -1 to 1": replace(rope, "_axis_positions", token_steps),
    "SiLU instead of GELU": replace(blocks.PlainMLP, "forward", lambda _: plain_mlp(F.silu)),
}


def costs(monkeypatch, plant, family, case, factor=100.0):
    model = build_tiny(family)
    assert largest_error(model, case) <= TOLERANCE
    plant(monkeypatch)
    return largest_error(model, case) > factor * TOLERANCE


@pytest.mark.parametrize("family", ["3b", "7b"])
@pytest.mark.parametrize("fault", WINDOWS)
def test_wrong_windows_are_noticed(monkeypatch, family, fault):
    plant, case = WINDOWS[fault]
    assert costs(monkeypatch, plant, family, case)


@pytest.mark.parametrize("family", ["3b", "7b"])
@pytest.mark.parametrize("fault", PARTS)
def test_wrong_parts_are_noticed(monkeypatch, family, fault):
    assert costs(monkeypatch, PARTS[fault], family, "c9")


@pytest.mark.parametrize("fault", PARTS_3B)
def test_wrong_parts_of_the_3b_family_are_noticed(monkeypatch, fault):
    assert costs(monkeypatch, PARTS_3B[fault], "3b", "c9")


@pytest.mark.parametrize("fault", PARTS_7B)
def test_wrong_parts_of_the_7b_family_are_noticed(monkeypatch, fault):
    assert costs(monkeypatch, PARTS_7B[fault], "7b", "c9")


def test_the_exact_gelu_is_noticed(monkeypatch):
    plant = replace(blocks.PlainMLP, "forward", lambda _: plain_mlp(F.gelu))
    assert costs(monkeypatch, plant, "7b", "c0", factor=10)


@pytest.mark.parametrize(("family", "factor"), [("3b", 5), ("7b", 20)])
def test_frequencies_of_an_fp16_file_are_noticed(monkeypatch, family, factor):
    def from_half(original):
        return lambda config: original(config).half().float()

    assert costs(monkeypatch, replace(rope, "rotary_frequencies", from_half), family, "c10", factor)


@pytest.mark.parametrize("family", ["3b", "7b"])
@pytest.mark.parametrize(("eps", "factor"), [(1e-6, 1), (1e-4, 10)])
def test_a_wrong_eps_is_noticed(family, eps, factor):
    model = NaDiT(dataclasses.replace(TINY[family], norm_eps=eps))
    model.load_state_dict(tiny_weights(family))
    assert largest_error(model.requires_grad_(False), "c10") > factor * TOLERANCE
