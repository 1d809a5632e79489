"""The fused transformer gives the plain model's velocity, with the references and the kernels in the interpreter."""

import pytest
import torch

from seedvr2_engine.bench.random_models import random_dit
from seedvr2_engine.engine.dit import layers
from seedvr2_engine.engine.dit.backend import reference_tokens, triton_tokens
from seedvr2_engine.engine.dit.fused import FusedDiT, reason_for_plain, serve_dit
from seedvr2_engine.engine.dit.weights import streamed
from seedvr2_engine.kernels.configs import WindowConfig
from seedvr2_engine.models.dit.config import DiTConfig

from ...models.dit.dit_cases import CASES, FAMILIES, TOLERANCE, build_tiny, golden, inputs, largest_error


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES)
def test_twins_give_the_golden_velocity(family, case):
    assert largest_error(FusedDiT(build_tiny(family), reference_tokens()), case) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", ["c2", "c3", "c5"])
def test_the_attention_kernel_gives_the_golden_velocity(family, case):
    dit = FusedDiT(build_tiny(family), reference_tokens(), windows=WindowConfig(32, 16, 4, 2, uses_tma=True))
    video, text, timestep = inputs(case)
    # Only geometries that leave the choice open use it.
    plan = dit.geometry(tuple(video.shape[:3]), len(text), attention="torch-varlen")
    out = dit.velocity(video, plan, dit.conditioning(text, timestep))
    assert (out - golden()[f"{case}/out_{family}"]).abs().max() <= TOLERANCE
    clips = torch.stack([video, -video])
    plan = dit.geometry(tuple(clips.shape[:4]), len(text), attention="torch-varlen")
    expected = dit.plain(clips, text, timestep)
    assert (dit.velocity(clips, plan, dit.conditioning(text, timestep)) - expected).abs().max() <= TOLERANCE


@pytest.fixture(scope="module")
def kernels():
    pytest.importorskip("triton")
    from ...kernels.conftest import INTERPRETS

    if not INTERPRETS:
        pytest.skip("runs in Triton's interpreter: TRITON_INTERPRET=1")
    return triton_tokens()


CONFIGS = {
    "3b": DiTConfig("3b", width=40, layers=3, separate_layers=1, heads=2, head_width=16, mlp_width=48, text_width=16),
    "7b": DiTConfig("7b", width=40, layers=3, separate_layers=3, heads=2, head_width=16, mlp_width=48, text_width=16),
}
# 5 x 2 x 2 tokens: windows of two, two and one frame, and of one, two and two where they are shifted.
SHAPE, TEXT_TOKENS = (5, 4, 4), 3


def build_small(family):
    torch.manual_seed(0)
    return random_dit(CONFIGS[family], torch.device("cpu"), torch.float32)


def small_inputs(clips=1):
    generator = torch.Generator().manual_seed(1)
    video = torch.randn(clips, *SHAPE, 33, generator=generator)
    return video, torch.randn(TEXT_TOKENS, 16, generator=generator), 1000.0


@pytest.mark.slow
@pytest.mark.parametrize(("family", "clips"), [("3b", 2), ("7b", 1)])
def test_kernels_give_the_plain_velocity(family, clips, kernels):
    dit = build_small(family)
    assert dit.geometry(SHAPE, TEXT_TOKENS).permutations[0] is not None
    expected = dit(*small_inputs(clips))
    assert (FusedDiT(dit, kernels)(*small_inputs(clips)) - expected).abs().max() <= 1e-5 * expected.abs().max()


def relative_rms(actual, expected):
    return ((actual.float() - expected).square().mean().sqrt() / expected.square().mean().sqrt()).item()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_as_close_as_the_plain_model(family, kernels):
    expected = build_small(family)(*small_inputs())
    plain = relative_rms(build_small(family).bfloat16()(*small_inputs()), expected)
    fused = FusedDiT(build_small(family).bfloat16(), kernels)
    first, second = (fused(*small_inputs()) for _ in range(2))
    assert torch.equal(first, second)
    assert 0 < relative_rms(first, expected) <= 1.2 * plain


def test_several_clips():
    for family in FAMILIES:
        dit = build_tiny(family)
        video, text, timestep = inputs("c3")
        clips = torch.stack([video, 0.5 * video.flip(1), -video])
        expected = dit(clips, text, timestep)
        assert (FusedDiT(dit, reference_tokens())(clips, text, timestep) - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_long_mlps_are_cut_into_rows(family, monkeypatch):
    monkeypatch.setattr(layers, "MLP_ROWS", 7)
    assert largest_error(FusedDiT(build_tiny(family), reference_tokens()), "c0") <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_on_the_host(family):
    fused = FusedDiT(streamed(build_tiny(family)), reference_tokens())
    assert largest_error(fused, "c2") <= TOLERANCE
    assert fused.resident_bytes > 0
    assert fused.graphs.reason == "the weights come from the host"
    assert all(p.is_meta for n, p in fused.named_parameters() if n.startswith("blocks.") and p.ndim == 2)


def test_weights_keep_their_names_and_are_not_copied():
    dit = build_tiny("3b")
    before = {name: tensor.clone() for name, tensor in dit.state_dict().items()}
    fused = FusedDiT(dit, reference_tokens())
    after = fused.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(p is q for p, q in zip(dit.parameters(), fused.parameters(), strict=True))
    mlp = fused.blocks[0].mlp["vid"]
    assert layers.joined_rows(mlp.proj_in_gate.weight, mlp.proj_in.weight) is not None
    assert layers.joined_rows(mlp.proj_in.weight, mlp.proj_in_gate.weight) is None


def test_geometries_are_kept_for_a_while():
    fused = FusedDiT(build_tiny("3b"), reference_tokens())
    first = fused.geometry((1, 4, 4), 3)
    assert fused.geometry((1, 4, 4), 3) is first
    for height in range(4, 14, 2):
        fused.geometry((1, height, 6), 3)
    assert fused.geometry((1, 4, 4), 3) is not first


def test_the_plain_model_serves_with_a_reason():
    dit = build_tiny("3b")
    assert "runs on cpu" in reason_for_plain(dit)
    assert serve_dit(dit) is dit


def build_cuda(family, dtype=torch.bfloat16):
    return build_tiny(family).cuda().to(dtype)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_on_a_gpu(family, dtype):
    for case in ("c0", "c2", "c3"):
        video, text, timestep = inputs(case)
        expected = golden()[f"{case}/out_{family}"]
        plain = relative_rms(build_cuda(family, dtype)(video, text, timestep).cpu(), expected)
        fused = serve_dit(build_cuda(family, dtype))
        assert isinstance(fused, FusedDiT)
        plan, conditioning = fused.geometry(tuple(video.shape[:3]), len(text)), fused.conditioning(text, timestep)
        outs = [fused.velocity(video, plan, conditioning) for _ in range(4)]
        assert fused.graphs.reason == ""
        assert all(torch.equal(out, outs[0]) for out in outs)
        assert relative_rms(outs[0].cpu(), expected) <= 1.3 * plain
