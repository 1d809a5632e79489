"""Tensors that FP16 does not hold are stored as powers of two of themselves, which changes nothing but their range."""

import copy
import math
import random
from dataclasses import replace
from statistics import median

import pytest
import torch
from torch import Tensor

from seedvr2_engine.device import DeviceSpec
from seedvr2_engine.engine import EngineOptions, VAEEngine, reference_backend
from seedvr2_engine.engine.accuracy.check import check_accuracy
from seedvr2_engine.engine.accuracy.fp16_scaling import (
    FP16_LARGEST,
    MARGIN,
    Extremes,
    PowerOfTwoScaling,
    choose_scaling,
    measure_scaling,
    module_extremes,
    plan_operations,
    smallest_exponent,
)
from seedvr2_engine.engine.accuracy.sample_clips import sample_clips
from seedvr2_engine.engine.vae import engine as engine_module
from seedvr2_engine.models.vae.model import VideoVAE
from seedvr2_engine.quant import QuantRecipe

from ..conftest import GPU, HOPPER, relative

STREAM, HIDDEN, VALUES, PROJECTED, NORMALISED = 2.0**14, 2.0**18, 2.0**16, 2.0**16, 2.0**20
"""What is multiplied into the streams, into what stands inside one resnet of each direction, and into an attention's
values, queries (out of its keys) and input."""
WAYS = [pytest.param(GPU, id="single frames"), pytest.param(HOPPER, id="pairs")]


@pytest.fixture(scope="module")
def clip() -> Tensor:
    return sample_clips(32)[:, :, :1]


@pytest.fixture(scope="module")
def healthy(tiny_vae: VideoVAE) -> VideoVAE:
    """The tiny model with so small an epsilon that the scale of a tensor makes no difference to its norm."""
    vae = VideoVAE(replace(tiny_vae.config, norm_eps=1e-14))
    vae.load_state_dict(tiny_vae.state_dict())
    return vae.requires_grad_(False)


@pytest.fixture(scope="module")
def loud(healthy: VideoVAE) -> VideoVAE:
    """The same function, with tensors far beyond FP16 between its layers."""
    vae = with_loud_streams(healthy)
    for name, tensor in vae.state_dict().items():
        if "up_blocks.1.resnets.1.conv1." in name or "down_blocks.2.resnets.0.conv1." in name:
            tensor *= HIDDEN
        if ".to_v." in name:
            tensor *= VALUES
        if name.endswith("to_out.0.weight"):
            tensor /= VALUES
        if ".to_q." in name:
            tensor *= PROJECTED
        if ".to_k." in name:
            tensor /= PROJECTED
        if ".attentions.0.group_norm." in name:
            tensor *= NORMALISED
        if any(part in name for part in (".to_q.weight", ".to_k.weight", ".to_v.weight")):
            tensor /= NORMALISED
    return vae


def with_loud_streams(vae: VideoVAE) -> VideoVAE:
    """What is added to a stream is louder, and so is what is added to what is linear in it."""
    vae = copy.deepcopy(vae)
    for name, tensor in vae.state_dict().items():
        is_beside = name.endswith(".bias") and any(part in name for part in ("conv_shortcut", "samplers.0."))
        if is_beside or any(part in name for part in ("conv_in.", "conv2.", "to_out.0.")):
            tensor *= STREAM
    return vae


@pytest.fixture(scope="module")
def loud_scaling(loud: VideoVAE, clip: Tensor) -> PowerOfTwoScaling:
    return measure_scaling(loud, GPU, clip)


@pytest.fixture(autouse=True)
def calibrated(monkeypatch: pytest.MonkeyPatch, tiny_vae: VideoVAE, tiny_maxima: dict[str, Tensor]) -> None:
    """Calibrating takes longer than all the rest, and only resampling layers see louder inputs."""

    def maxima(vae: VideoVAE, _device: torch.device) -> dict[str, Tensor]:
        stream = (vae.decoder.conv_in.weight.abs().max() / tiny_vae.decoder.conv_in.weight.abs().max()).item()
        return {name: amax * (stream if "samplers" in name else 1) for name, amax in tiny_maxima.items()}

    monkeypatch.setattr(engine_module, "calibrate_on", maxima)


def engine_of(
    vae: VideoVAE, precision: str, scaling: PowerOfTwoScaling | None = None, gpu: DeviceSpec = GPU
) -> VAEEngine:
    options = EngineOptions(scaling=scaling or PowerOfTwoScaling())
    return VAEEngine(vae, QuantRecipe(precision), gpu, reference_backend(), device="cpu", options=options)


def latent(frames: int = 3, batch: int = 1) -> Tensor:
    return torch.randn(batch, 16, frames, 4, 5, generator=torch.Generator().manual_seed(0))


def video(frames: int = 9, batch: int = 1, size: tuple[int, int] = (33, 40)) -> Tensor:
    return torch.rand(batch, 3, frames, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def forced(vae: VideoVAE, seed: int = 0) -> PowerOfTwoScaling:
    """An exponent of its own for every tensor that may have one."""
    draw = random.Random(seed)
    steps = plan_operations(vae.config, GPU)
    loudest = choose_scaling(dict.fromkeys(_modules(vae), Extremes(1e9, 1e9)), steps)
    tensors = {name: draw.randint(1, 9) for name in loudest.tensors}
    for step in steps:
        if step.kernel == "attention":
            tensors[step.target] = tensors[f"{step.layer}.to_v"]
            tensors |= {f"{step.layer}.to_q": 5, f"{step.layer}.to_k": -5}
    return PowerOfTwoScaling(tensors, {name: draw.randint(1, 9) for name in loudest.inputs})


def _modules(vae: VideoVAE) -> list[str]:
    return [name for name, _ in vae.named_modules()]


def with_a_quiet_group(vae: VideoVAE) -> VideoVAE:
    """Groups of channels whose variance is below epsilon, in a stream and inside a resnet."""
    vae = copy.deepcopy(vae).requires_grad_(False)
    for layer in (vae.decoder.up_blocks[1].resnets[0].conv1, vae.encoder.down_blocks[1].resnets[1].conv1):
        layer.weight[:8] *= 1e-4
        layer.bias[:8] *= 1e-4
    for layer in (vae.decoder.conv_in, vae.encoder.conv_in):
        layer.weight[:2] *= 1e-4
        layer.bias[:2] *= 1e-4
    return vae


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("gpu", WAYS)
@pytest.mark.parametrize("precision", ["fp16", "fp8", "int8"])
def test_scaling_changes_nothing_but_the_range(tiny_vae: VideoVAE, gpu: DeviceSpec, precision: str) -> None:
    """With FP32 in the place of FP16 there is nothing to overflow or to round away, so not one bit changes."""
    vae = with_a_quiet_group(tiny_vae)
    plain, scaled = engine_of(vae, precision, gpu=gpu), engine_of(vae, precision, forced(vae), gpu)
    assert torch.equal(scaled.decode(latent()), plain.decode(latent()))
    assert torch.equal(scaled.encode(video()), plain.encode(video()))
    if precision == "fp16":
        assert relative(scaled.decode(latent()), vae.decode(latent())) < 1e-5
        assert relative(scaled.encode(video()), vae.encode(video())) < 1e-5


def test_every_tensor_of_16_bits_can_have_an_exponent(tiny_vae: VideoVAE) -> None:
    scaling = forced(tiny_vae)
    for step in plan_operations(tiny_vae.config, GPU):
        if step.kernel == "norm":
            assert step.source in scaling.tensors
            assert step.layer in scaling.inputs
        is_convolution = step.problem is not None and step.problem.output == "fp16"
        if step.kernel == "attention" or (is_convolution and not step.layer.endswith(".to_qkv")):
            assert step.target in scaling.tensors


def test_the_louder_model_is_the_same_function(healthy: VideoVAE, loud: VideoVAE) -> None:
    assert relative(loud.decode(latent()), healthy.decode(latent())) < 1e-5
    assert relative(loud.encode(video()), healthy.encode(video())) < 1e-5


@pytest.mark.parametrize(("precision", "gpu"), [("fp16", GPU), ("fp16", HOPPER), ("fp8", GPU), ("int8", GPU)])
def test_weights_that_overflow_fp16_are_as_exact_as_others(
    healthy: VideoVAE, loud: VideoVAE, loud_scaling: PowerOfTwoScaling, precision: str, gpu: DeviceSpec
) -> None:
    helpless = engine_of(loud, precision, gpu=gpu)
    assert not helpless.decode(latent()).isfinite().all()
    assert not helpless.encode(video()).isfinite().all()
    engines = engine_of(healthy, precision, gpu=gpu), engine_of(loud, precision, loud_scaling, gpu)
    # What is rounded to the other side in a clip can cost it or gain it 3 dB, so half of many clips must agree; BF16
    # would lose 18 dB in each.
    for part, x in (("decode", latent(batch=2)), ("encode", video(5, batch=12, size=(17, 24)))):
        exact = getattr(healthy, part)(x)
        lost, lost_here = ([*map(relative, getattr(engine, part)(x), exact)] for engine in engines)
        assert abs(median(20 * math.log10(b / a) for a, b in zip(lost, lost_here, strict=True))) < 1


def test_scaling_leaves_the_margin_and_not_twice_as_much(loud: VideoVAE, loud_scaling: PowerOfTwoScaling, clip) -> None:
    extremes = module_extremes(loud, clip)
    stream = extremes["decoder.up_blocks.3.resnets.2"].output
    found = extremes["decoder.up_blocks.1.resnets.1.conv1"].output
    exponent = loud_scaling.tensors["decoder.up_blocks.1.resnets.1.conv1.y"]
    assert FP16_LARGEST / MARGIN / 2 < found * 2.0**-exponent <= FP16_LARGEST / MARGIN
    assert stream * 2.0 ** -loud_scaling.tensors["decoder.up_blocks.3.resnets.0.conv2.y"] <= FP16_LARGEST / MARGIN
    assert loud_scaling.largest >= max(stream, found)
    block = "decoder.mid_block.attentions.0"
    assert loud_scaling.of(f"{block}.to_q") == -loud_scaling.of(f"{block}.to_k") > 8
    assert loud_scaling.of(f"{block}.to_v") == loud_scaling.of(f"{block}.y") > 0
    assert loud_scaling.inputs[f"{block}.to_qkv"] > 0
    assert "decoder.up_blocks.3.resnets.1.conv1.y" not in loud_scaling.tensors


@pytest.mark.parametrize(
    ("largest", "exponent"),
    [(0.0, 0), (4094.0, 0), (4094.1, 1), (8188.0, 1), (8188.1, 2), (65504.0, 4), (1e30, 88), (math.inf, 0)],
)
def test_the_smallest_exponent(largest: float, exponent: int) -> None:
    assert smallest_exponent(largest) == exponent


def test_healthy_weights_have_none(tiny_vae: VideoVAE, clip: Tensor) -> None:
    scaling = measure_scaling(tiny_vae, GPU, clip)
    assert scaling == PowerOfTwoScaling()
    assert scaling.describe() == ""
    assert not any(module._forward_hooks for module in tiny_vae.modules())


def test_a_model_that_overflows_itself_is_measured_in_fp32(healthy: VideoVAE, clip: Tensor) -> None:
    half = with_loud_streams(healthy).half()
    assert not half.decode(half.encode(clip)).isfinite().all()
    assert measure_scaling(half, GPU, clip).tensors.keys() >= {"decoder.conv_in.y", "encoder.conv_in.y"}
    assert half.dtype == torch.float16


def test_the_line_for_people_counts() -> None:
    assert PowerOfTwoScaling({"a": 3}, largest=3e4).describe() == (
        "1 tensor between the layers is stored as 2^-3 of itself: "
        "FP16 ends at 65504, and with these weights tensors reach 3e+04 on small clips"
    )
    assert (
        PowerOfTwoScaling({"a": 3, "b": 5}, {"c": 7}, 2e5)
        .describe()
        .startswith(
            "2 tensors between the layers and 1 input of layers in FP16 are stored as 2^-7 to 2^-3 of themselves: "
        )
    )


def test_the_accuracy_check_takes_no_layer_for_an_overflow(healthy, loud, loud_scaling, clip) -> None:
    """And another recipe of the same engine keeps the scaling."""

    def build(recipe: QuantRecipe, previous: VAEEngine | None) -> VAEEngine:
        return engine_of(loud, "fp8", loud_scaling) if previous is None else previous.with_recipe(recipe)

    wanted, _ = check_accuracy(
        healthy, QuantRecipe("fp8"), lambda _, __: engine_of(healthy, "fp8"), min_psnr_db=0, clip=clip
    )
    result, engine = check_accuracy(loud, QuantRecipe("fp8"), build, min_psnr_db=wanted.psnr_db - 0.5, clip=clip)
    assert result.kept == ()
    kept = engine.with_recipe(engine.recipe.keeping_in_16_bits("decoder.up_blocks.3", "the test wants it"))
    exact = healthy.decode(latent())
    assert relative(kept.decode(latent()), exact) < relative(engine.decode(latent()), exact)
    high = engine.with_recipe(replace(engine.recipe, format_16_bit="bf16"))
    assert high.decode(latent()).isfinite().all()
