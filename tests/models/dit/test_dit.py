"""The transformer against the public reference, in FP32 on the CPU."""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.models.dit import attention, geometry
from seedvr2_engine.models.dit.attention import choose_attention
from seedvr2_engine.models.dit.config import DiTConfig
from seedvr2_engine.models.dit.model import NaDiT, sinusoid

from .dit_cases import CASES, FAMILIES, TOLERANCE, build_tiny, golden, inputs, largest_error


@pytest.fixture(scope="module", params=FAMILIES)
def dit(request) -> NaDiT:
    return build_tiny(request.param)


def relative_rms(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual.float() - expected).square().mean().sqrt() / expected.square().mean().sqrt()).item()


@pytest.mark.parametrize("case", CASES)
def test_velocity(dit, case):
    assert largest_error(dit, case) <= TOLERANCE


def test_intermediate_values(dit):
    expected = {
        name.removeprefix(f"c0/inter_{dit.config.family}/"): value
        for name, value in golden().items()
        if name.startswith(f"c0/inter_{dit.config.family}/")
    }
    video, text, timestep = inputs("c0")
    plan = dit.geometry(tuple(video.shape[:3]), len(text))
    seen: dict[str, torch.Tensor] = {}
    hooks = []

    def in_raster_order(tokens, layer):
        return tokens[torch.argsort(plan.layouts[layer % 2].order)]

    def watch_block(layer):
        def keep(_module, _args, out):
            seen[f"block{layer}/vid"], seen[f"block{layer}/txt"] = in_raster_order(out[0], layer), out[1]

        return keep

    def watch_attention(layer):
        def keep(_module, _args, out):
            seen[f"block{layer}/attn_proj_out/vid"] = in_raster_order(out[0], layer)
            seen[f"block{layer}/attn_proj_out/txt"] = out[1]

        return keep

    for layer, block in enumerate(dit.blocks):
        hooks.append(block.register_forward_hook(watch_block(layer)))
        hooks.append(block.attn.register_forward_hook(watch_attention(layer)))
    vectors = dit.emb_in(timestep)
    seen["emb"], seen["txt_in"] = vectors.reshape(1, -1), dit.txt_in(text)
    seen["vid_in"] = dit.vid_in.proj(dit.vid_in.patches(video[None]))
    dit.velocity(video, plan, dit.conditioning(text, timestep))
    for hook in hooks:
        hook.remove()

    # After the last layer the reference's text is never read; ours has not been computed.
    compared = [name for name in expected if name in seen and name != "block3/txt"]
    assert len(compared) == 14
    for name in compared:
        assert (seen[name] - expected[name]).abs().max() <= TOLERANCE, name


def test_sinusoid():
    assert (sinusoid(golden()["temb/t"], 256) - golden()["temb/sinusoid"]).abs().max() <= 1e-5


def test_what_is_constant_is_computed_once(dit, monkeypatch):
    video, text, timestep = inputs("c3")
    whole = dit(video, text, timestep)
    plan, conditioning = dit.geometry(tuple(video.shape[:3]), len(text)), dit.conditioning(text, timestep)

    def fail(*_args, **_keywords):
        raise AssertionError("computed again")

    for name in ("window_cuts", "layout_windows", "rotation", "video_angles", "text_angles"):
        monkeypatch.setattr(geometry, name, fail)
    hooks = [module.register_forward_pre_hook(fail) for module in (dit.txt_in, dit.emb_in)]
    hooks += [module.register_forward_pre_hook(fail) for block in dit.blocks for module in block.ada.values()]
    try:
        assert torch.equal(dit.velocity(video, plan, conditioning), whole)
    finally:
        for hook in hooks:
            hook.remove()


def test_several_clips_are_the_single_ones(dit):
    video, text, timestep = inputs("c3")
    clips = torch.stack([video, 0.5 * video.flip(1), -video])
    together = dit(clips, text, timestep)
    for clip, out in zip(clips, together, strict=True):
        assert (out - dit(clip, text, timestep)).abs().max() <= TOLERANCE


DEAD = ["attn.proj_out.txt", "attn.norm_q.txt", "mlp.txt", "ada.txt.attn_gate", "ada.txt.mlp_"]


def test_dead_weights_of_the_last_layer_are_not_read():
    dit = build_tiny("7b")
    poisoned = 0
    for name, parameter in dit.blocks[-1].named_parameters():
        if name.startswith(tuple(DEAD)):
            parameter.fill_(torch.nan)
            poisoned += 1
    assert poisoned == 2 + 1 + 4 + 4
    width = dit.config.attention_width
    dit.blocks[-1].attn.proj_qkv.txt.weight[:width].fill_(torch.nan)
    assert largest_error(dit, "c0") <= TOLERANCE


def test_the_last_layer_computes_its_mlp_for_the_video_alone(dit):
    rows = []
    mlp = dit.blocks[-1].mlp
    hooks = [module.register_forward_pre_hook(lambda _m, args: rows.append(len(args[0]))) for module in mlp.values()]
    video, *rest = inputs("c0")
    dit(video, *rest)
    for hook in hooks:
        hook.remove()
    assert rows == [video.shape[:-1].numel() // 4]


def attend_one_by_one(q, k, v, q_bounds, k_bounds, longest_q, longest_k):
    """What a variable-length kernel promises: sequences between the bounds, each for itself."""
    assert q_bounds.dtype == k_bounds.dtype == torch.int32
    assert (longest_q, longest_k) == (q_bounds.diff().max(), k_bounds.diff().max())
    parts = [x.tensor_split(bounds[1:-1].long()) for x, bounds in ((q, q_bounds), (k, k_bounds), (v, k_bounds))]
    outs = [
        F.scaled_dot_product_attention(*(part.transpose(0, 1) for part in window)).transpose(0, 1)
        for window in zip(*parts, strict=True)
    ]
    return torch.cat(outs)


@pytest.mark.parametrize("kind", ["torch-varlen", "flash-attn"])
def test_variable_length_attention(dit, monkeypatch, kind):
    fake = SimpleNamespace(varlen_attn=attend_one_by_one, flash_attn_varlen_func=attend_one_by_one)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", fake)
    monkeypatch.setitem(sys.modules, "flash_attn", fake)
    video, text, timestep = inputs("c3")
    plan = dit.geometry(tuple(video.shape[:3]), len(text), attention=kind)
    out = dit.velocity(video, plan, dit.conditioning(text, timestep))
    assert (out - golden()[f"c3/out_{dit.config.family}"]).abs().max() <= TOLERANCE


@pytest.mark.parametrize(
    ("capability", "installed", "dtype", "kind"),
    [
        ((9, 0), {"flash_attn", "torch.nn.attention.varlen"}, torch.bfloat16, "flash-attn"),
        ((9, 0), {"torch.nn.attention.varlen"}, torch.float16, "torch-varlen"),
        ((9, 0), set(), torch.bfloat16, "sdpa"),
        ((9, 0), {"flash_attn"}, torch.float32, "sdpa"),
        ((7, 5), {"flash_attn"}, torch.float16, "sdpa"),
    ],
)
def test_choice_of_attention(monkeypatch, capability, installed, dtype, kind):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(attention, "find_spec", lambda name: name if name in installed else None)
    assert choose_attention(torch.device("cuda"), dtype) == kind
    assert choose_attention(torch.device("cpu"), dtype) == "sdpa"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("case", ["c2", "c3"])
def test_on_a_gpu(dit, case):
    video, text, timestep = inputs(case)
    expected = golden()[f"{case}/out_{dit.config.family}"]
    on_gpu = build_tiny(dit.config.family).cuda()
    # Values up to 3.2, summed in another order: 7.4e-5 at most on an H200.
    assert (on_gpu(video, text, timestep).cpu() - expected).abs().max() <= 2 * TOLERANCE
    half = on_gpu.bfloat16()
    conditioning = half.conditioning(text, timestep)
    kinds = {choose_attention(half.device, half.dtype), "sdpa"}
    outs = [
        half.velocity(video, half.geometry(tuple(video.shape[:3]), len(text), attention=kind), conditioning)
        for kind in kinds
    ]
    for out in outs:
        assert relative_rms(out.cpu(), expected) <= BFLOAT16_ERROR


# Measured: up to 0.015 in BF16 and 0.0018 in FP16, with weights that exaggerate every difference.
BFLOAT16_ERROR, FLOAT16_ERROR = 0.02, 0.0025


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, BFLOAT16_ERROR), (torch.float16, FLOAT16_ERROR)])
def test_sixteen_bits(dit, dtype, limit):
    half = build_tiny(dit.config.family).to(dtype)
    for case in ("c0", "c9"):
        out = half(*inputs(case))
        assert out.dtype == dtype
        assert 0 < relative_rms(out, golden()[f"{case}/out_{dit.config.family}"]) <= limit


# What rounding moved the reference's own output by on another set of tiny weights.
ROUNDING_ERRORS = {
    "3b": {"float16": 0.001, "bfloat16": 0.011, "float8": 0.10},
    "7b": {"float16": 0.027, "bfloat16": 0.17, "float8": 0.37},
}


@pytest.mark.parametrize("rounding", ROUNDING_ERRORS["3b"])
def test_rounded_frequencies_on_request(dit, rounding):
    video, text, timestep = inputs("c10")
    plan = dit.geometry(tuple(video.shape[:3]), len(text), rope_rounding=rounding)
    out = dit.velocity(video, plan, dit.conditioning(text, timestep))
    typical = ROUNDING_ERRORS[dit.config.family][rounding]
    assert typical / 3 <= relative_rms(out, golden()[f"c10/out_{dit.config.family}"]) <= 3 * typical


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_that_is_read_learns(family):
    config = DiTConfig(
        family, width=24, layers=2, separate_layers=1, heads=2, head_width=32, mlp_width=32, text_width=16
    )
    torch.manual_seed(0)
    dit = NaDiT(config)
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    dit(torch.randn(2, 2, 4, 6, 33), torch.randn(3, 16), 1000.0).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in dit.parameters())


@pytest.mark.parametrize(
    ("video", "text", "timestep", "message"),
    [
        ((3, 5, 4, 33), (2, 64), 1000, "positive multiples of 2, got 5x4"),
        ((3, 4, 4, 32), (2, 64), 1000, "expected 33 channels last"),
        ((0, 4, 4, 33), (2, 64), 1000, "got 4x4 .height x width. and 0 frames"),
        ((3, 4, 4, 33), (2, 63), 1000, r"expected an embedding of shape \(tokens, 64\), got \(2, 63\)"),
        ((3, 4, 4, 33), (0, 64), 1000, "at least one text token, got 0"),
        ((3, 4, 4, 33), (2, 64), torch.ones(2), "one number for all clips, got 2"),
        ((4, 4, 33), (2, 64), 1000, r"expected \(T, H, W\) or \(clips, T, H, W\)"),
    ],
)
def test_wrong_arguments_are_named(dit, video, text, timestep, message):
    with pytest.raises(InvalidArgumentError, match=message):
        dit(torch.zeros(video), torch.zeros(text), timestep)


def test_what_does_not_fit_together_is_named(dit):
    plan, conditioning = dit.geometry((1, 4, 4), 3), dit.conditioning(torch.zeros(2, 64), 1000)
    with pytest.raises(InvalidArgumentError, match="expected 3 text tokens as in the geometry, got 2"):
        dit.velocity(torch.zeros(1, 4, 4, 33), plan, conditioning)
    with pytest.raises(InvalidArgumentError, match=r"latents of shape \(1, 1, 4, 4\)"):
        dit.velocity(torch.zeros(1, 4, 6, 33), plan, conditioning)
    with pytest.raises(InvalidArgumentError, match=r"expected floating-point numbers, got torch.int64"):
        dit.velocity(torch.zeros(1, 4, 4, 33, dtype=torch.int64), plan, dit.conditioning(torch.zeros(3, 64), 0))
