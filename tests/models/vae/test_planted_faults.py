"""The golden cases must notice mistakes: each one planted here has to cost far more than the tolerance."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seedvr2_engine.models.vae import blocks, causal

from ...conftest import build_tiny_vae
from .test_golden import TOLERANCE


def set_eps(model):
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-5


def swap_forward(target, forward):
    def plant(monkeypatch):
        monkeypatch.setattr(target, "forward", forward)

    return plant


def norm_over_all_frames(self, x):
    return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def interleaved_groups(self, x):
    frames = x.transpose(1, 2).flatten(0, 1)
    c = frames.shape[1]
    order = torch.arange(c).view(c // self.num_groups, self.num_groups).t().flatten()
    out = F.group_norm(frames[:, order], self.num_groups, None, None, self.eps)[:, order.argsort()]
    out = out * self.weight[:, None, None] + self.bias[:, None, None]
    return out.view(x.transpose(1, 2).shape).transpose(1, 2)


def zeros_before_the_clip(self, x, cache=None):
    pad = self.kernel_size[0] - 1
    return nn.Conv3d.forward(self, F.pad(x, (0, 0, 0, 0, pad, 0)))


def symmetric_time_padding(self, x, cache=None):
    if self.kernel_size[0] == 3:
        x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    return nn.Conv3d.forward(self, x)


def forgets_between_slices(self, x, cache=None):
    past = x[:, :, :1].expand(-1, -1, self.kernel_size[0] - 1, -1, -1)
    if cache is not None:
        cache[self] = x[:, :, -1:]
    return nn.Conv3d.forward(self, torch.cat([past, x], dim=2))


def attention(*, norm=True, residual=True, scale=None, heads=1, across=False):
    def forward(self, x):
        n, c, t, h, w = x.shape
        normed = self.group_norm(x) if norm else x
        if across:
            tokens = normed.flatten(2).transpose(1, 2)
        else:
            tokens = normed.transpose(1, 2).flatten(0, 1).flatten(2).transpose(1, 2)
        q, k, v = (
            project(tokens).unflatten(-1, (heads, -1)).transpose(1, 2) for project in (self.to_q, self.to_k, self.to_v)
        )
        out = self.to_out[0](F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2))
        out = out.transpose(1, 2)
        out = out.reshape(x.shape) if across else out.reshape(n, t, c, h, w).transpose(1, 2)
        return x + out if residual else out

    return forward


def shuffle(pattern):
    def _shuffle(self, x):
        n, phases, t, h, w = x.shape
        r = self.time_factor
        c = phases // (4 * r)
        sizes = {"x": 2, "y": 2, "z": r, "c": c}
        x = x.view(n, *(sizes[axis] for axis in pattern), t, h, w)
        at = {axis: 1 + i for i, axis in enumerate(pattern)}
        rows, columns = (at["y"], at["x"]) if pattern == "xyzc" else (at["x"], at["y"])
        return x.permute(0, at["c"], 5, at["z"], 6, rows, 7, columns).reshape(n, c, t * r, 2 * h, 2 * w)

    return lambda monkeypatch: monkeypatch.setattr(blocks.Upsample, "_shuffle", _shuffle)


def drops_frame(index, *, after_conv=False):
    def forward(self, x, cache=None):
        x = self._shuffle(self.upscale_conv(x))
        if after_conv:
            x = self.conv(x, cache)
        if self.time_factor == 2:
            x = torch.cat([x[:, :, :index], x[:, :, index + 1 :]], dim=2)
        return x if after_conv else self.conv(x, cache)

    return swap_forward(blocks.Upsample, forward)


def downsample_padding(pad, mode="constant"):
    def forward(self, x, cache=None):
        left, right, top, bottom = pad
        return self.conv(F.pad(x, (left, right, top, bottom, 0, 0), mode=mode), cache)

    return swap_forward(blocks.Downsample, forward)


FAULTS = {
    "GroupNorm over all frames": swap_forward(blocks.FrameGroupNorm, norm_over_all_frames),
    "interleaved groups": swap_forward(blocks.FrameGroupNorm, interleaved_groups),
    "zeros before the clip": swap_forward(causal.CausalConv3d, zeros_before_the_clip),
    "symmetric time padding": swap_forward(causal.CausalConv3d, symmetric_time_padding),
    "GELU for SiLU": lambda monkeypatch: monkeypatch.setattr(F, "silu", lambda x, inplace: F.gelu(x)),
    "attention without its norm": swap_forward(blocks.FrameAttention, attention(norm=False)),
    "attention without residual": swap_forward(blocks.FrameAttention, attention(residual=False)),
    "attention unscaled": swap_forward(blocks.FrameAttention, attention(scale=1.0)),
    "attention with 8 heads": swap_forward(blocks.FrameAttention, attention(heads=8)),
    "attention over all frames": swap_forward(blocks.FrameAttention, attention(across=True)),
    "attention absent": swap_forward(blocks.FrameAttention, lambda self, x: x),
    "shuffle order z x y c": shuffle("zxyc"),
    "shuffle order c x y z": shuffle("cxyz"),
    "rows and columns swapped": shuffle("xyzc"),
    "frame 0 dropped instead of 1": drops_frame(0),
    "frame dropped after the convolution": drops_frame(1, after_conv=True),
    "downsample padded left and top": downsample_padding((1, 0, 1, 0)),
    "downsample padded by repetition": downsample_padding((0, 1, 0, 1), "replicate"),
}


def largest_error(model, cases) -> float:
    errors = []
    for case in ("decode_1x6x9", "decode_3x5x7"):
        errors.append((model.decode(cases[f"{case}.z"]) - cases[f"{case}.out"]).abs().max())
    for case in ("encode_1x48x72", "encode_9x40x56"):
        moments = torch.cat(model.encode_distribution(cases[f"{case}.x"]), dim=1)
        errors.append((moments - cases[f"{case}.moments"]).abs().max())
    return max(errors).item()


def test_without_a_fault_the_cases_pass(tiny_cases):
    assert largest_error(build_tiny_vae(), tiny_cases) <= TOLERANCE


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_noticed(monkeypatch, tiny_cases, fault):
    model = build_tiny_vae()
    FAULTS[fault](monkeypatch)
    assert largest_error(model, tiny_cases) > 100 * TOLERANCE


def test_wrong_eps_is_noticed(tiny_cases):
    model = build_tiny_vae()
    set_eps(model)
    assert largest_error(model, tiny_cases) > 100 * TOLERANCE


def test_memory_lost_between_slices_is_noticed(monkeypatch, tiny_cases):
    model = build_tiny_vae()
    monkeypatch.setattr(causal.CausalConv3d, "forward", forgets_between_slices)
    out = model.decode(tiny_cases["decode_3x5x7.z"], slice_frames=4)
    assert (out - tiny_cases["decode_3x5x7.out_sliced"]).abs().max() > 100 * TOLERANCE


def test_tf32_rounding_would_be_noticed(tiny_cases):
    model = build_tiny_vae()
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_pre_hook(lambda _m, args: (_keep_ten_bits(args[0]), *args[1:]))
    assert largest_error(model, tiny_cases) > 4 * TOLERANCE


def _keep_ten_bits(x: torch.Tensor) -> torch.Tensor:
    return (x.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)
