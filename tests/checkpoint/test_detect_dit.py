"""Recognising the transformer by names and shapes, loading it from every kind of file, and refusing the rest."""

from collections.abc import Mapping
from math import prod
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from seedvr2_engine.checkpoint.base import Checkpoint, TensorInfo
from seedvr2_engine.checkpoint.detect_dit import detect_dit, dit_tensor_names, load_text
from seedvr2_engine.checkpoint.opening import open_checkpoint
from seedvr2_engine.errors import CheckpointError, InvalidArgumentError, ModelFileError
from seedvr2_engine.loading_dit import load_dit
from seedvr2_engine.models.dit.config import PUBLIC_3B, PUBLIC_7B, DiTConfig, Family
from seedvr2_engine.models.vae.config import Shape

from ..models.dit.dit_cases import FAMILIES, TINY, TOLERANCE, golden, inputs, tiny_weights

State = dict[str, torch.Tensor]
TEXTS: dict[str, Shape] = {"positive_conditioning": (58, 5120), "negative_conditioning": (64, 5120)}


class Listing(Checkpoint):
    """Names and shapes without values."""

    format = "safetensors"

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        infos = {name: TensorInfo(name, shape, "F16", 2 * prod(shape)) for name, shape in shapes.items()}
        super().__init__(Path("a.safetensors"), infos, {})

    def _read(self, info: TensorInfo, *_: object) -> torch.Tensor:
        raise NotImplementedError

    def _read_packed(self, info: TensorInfo) -> None:
        raise NotImplementedError


def saved(tmp_path: Path, state: State) -> Path:
    path = tmp_path / "dit.safetensors"
    save_file(state, path)
    return path


def saved_gguf(tmp_path: Path, state: State, quantised: gguf.GGMLQuantizationType) -> tuple[Path, State]:
    """Block matrices quantised where their rows allow it, all else F16, as the public files are; and the values."""
    path, values = tmp_path / "dit.gguf", {}
    writer = gguf.GGUFWriter(path, "seedvr2")
    for name, tensor in state.items():
        fits = tensor.ndim == 2 and tensor.shape[1] % 32 == 0 and name.startswith("blocks.")
        kind = quantised if fits else gguf.GGMLQuantizationType.F16
        data = gguf.quants.quantize(tensor.numpy().astype(np.float32), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        values[name] = torch.from_numpy(gguf.quants.dequantize(data, kind).astype(np.float32)).view(tensor.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, values


def assert_holds(path: Path, expected: State, dtype: torch.dtype = torch.float32) -> None:
    dit = load_dit(path, dtype=dtype)
    assert not any(parameter.requires_grad for parameter in dit.parameters())
    state = dit.state_dict()
    assert state.keys() == expected.keys()
    for name, value in state.items():
        assert value.dtype == dtype
        assert torch.equal(value, expected[name].to(dtype)), name


@pytest.mark.parametrize(
    "config",
    [
        PUBLIC_3B,
        PUBLIC_7B,
        *TINY.values(),
        DiTConfig("3b", width=64, layers=5, separate_layers=0, heads=2, head_width=48, mlp_width=96, text_width=32),
        DiTConfig("7b", width=96, layers=3, separate_layers=1, heads=3, head_width=64, mlp_width=32, in_channels=17),
    ],
)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("texts", [{}, TEXTS], ids=["bare", "with texts"])
def test_the_configuration_follows_from_the_shapes(config: DiTConfig, prefix: str, texts: Mapping[str, Shape]) -> None:
    shapes = config.tensor_shapes()
    checkpoint = Listing({prefix + name: shape for name, shape in {**shapes, **texts}.items()})
    assert detect_dit(checkpoint) == config
    assert dit_tensor_names(checkpoint, config) == {name: prefix + name for name in shapes}


def listed_error(shapes: Mapping[str, Shape]) -> str:
    checkpoint = Listing(shapes)
    with pytest.raises(CheckpointError) as caught:
        dit_tensor_names(checkpoint, detect_dit(checkpoint))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_extra_and_misshapen_tensors_are_all_named() -> None:
    shapes = PUBLIC_3B.tensor_shapes()
    del shapes["blocks.31.mlp.all.proj_out.weight"], shapes["blocks.0.attn.rope.rope.freqs"]
    shapes["blocks.0.attn.proj_qkv.vid.bias"] = (7680,)
    shapes["vid_out.proj.weight"] = (64, 2561)
    message = listed_error(shapes)
    assert "expected the 635 tensors of a SeedVR2 transformer (3b family) of 32 layers, 2560 wide" in message
    assert "2 missing (blocks.0.attn.rope.rope.freqs, blocks.31.mlp.all.proj_out.weight)" in message
    assert "1 unknown (blocks.0.attn.proj_qkv.vid.bias)" in message
    assert "vid_out.proj.weight: expected (64, 2560), got (64, 2561)" in message


def test_a_lost_block_is_named() -> None:
    shapes = {name: shape for name, shape in PUBLIC_7B.tensor_shapes().items() if not name.startswith("blocks.7.")}
    message = listed_error(shapes)
    assert "missing (blocks.7." in message
    assert "unknown (blocks.35." in message


def test_a_block_of_absurd_number_costs_nothing() -> None:
    shapes = {**PUBLIC_3B.tensor_shapes(), "blocks.999999999999.ada.all.attn_gate": (2560,)}
    assert "unknown (blocks.999999999999.ada.all.attn_gate)" in listed_error(shapes)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("vid_in.proj.bias", None, "expected the tensor vid_in.proj.bias of a SeedVR2 transformer"),
        ("blocks.0.attn.norm_q.vid.weight", None, "expected the tensor blocks.0.attn.norm_q.vid.weight"),
        (
            "vid_in.proj.bias",
            (0,),
            "vid_in.proj.bias in a.safetensors: expected a positive multiple of 1 values, got 0",
        ),
        ("txt_in.weight", (2561, 5119), "expected a positive multiple of 2560 values, got 13109759"),
        ("blocks.0.attn.norm_q.vid.weight", (127,), "blocks.0.attn.proj_qkv.vid.weight in a.safetensors: expected"),
    ],
)
def test_sizes_that_make_no_transformer(name: str, shape: Shape | None, message: str) -> None:
    shapes = PUBLIC_3B.tensor_shapes()
    if shape is None:
        del shapes[name]
    else:
        shapes[name] = shape
    assert message in listed_error(shapes)


def test_an_impossible_configuration() -> None:
    shapes = {name.replace(".all.", ".vid."): shape for name, shape in PUBLIC_3B.tensor_shapes().items()}
    assert "expected the last block of the 3b family to share its weights" in listed_error(shapes)


def test_other_models_are_refused(golden_dir: Path) -> None:
    with pytest.raises(CheckpointError, match="found a VAE; give this file where the VAE is asked for"):
        load_dit(golden_dir / "vae_tiny.safetensors")
    assert "found 1 others, such as lstm.weight; this is another model" in listed_error({"lstm.weight": (2, 2)})
    assert "found no tensors at all" in listed_error({})
    with pytest.raises(ModelFileError, match="found none; check the path"):
        load_dit(golden_dir / "absent.safetensors")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_golden_velocity_after_loading(golden_dir: Path, family: Family) -> None:
    dit = load_dit(golden_dir / f"dit_tiny_{family}.safetensors")
    assert dit.config == TINY[family]
    assert not dit.training
    assert (dit(*inputs("c0")) - golden()[f"c0/out_{family}"]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_casts(tmp_path: Path, family: Family, stored: torch.dtype, dtype: torch.dtype) -> None:
    state = {name: tensor.to(stored) for name, tensor in tiny_weights(family).items()}
    assert_holds(saved(tmp_path, state), {name: tensor.float() for name, tensor in state.items()}, dtype)


@pytest.mark.parametrize("suffix", ["weight_scale", "scale_weight"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_scaled_fp8(tmp_path: Path, suffix: str, per_channel: bool) -> None:
    state, expected = {}, {}
    for name, tensor in tiny_weights("3b").items():
        state[name] = expected[name] = tensor
        if tensor.ndim == 2:
            amax = tensor.abs().amax(1, keepdim=True) if per_channel else tensor.abs().max()
            scale = amax / 448
            state[name] = (tensor / scale).to(torch.float8_e4m3fn)
            state[f"{name.removesuffix('weight')}{suffix}"] = scale.flatten() if per_channel else scale
            expected[name] = state[name].float() * scale
    assert_holds(saved(tmp_path, state), expected)


def test_mixed_types(tmp_path: Path) -> None:
    state = {
        name: tensor.to(torch.float16 if name.startswith("blocks.3.") else torch.float8_e4m3fn)
        for name, tensor in tiny_weights("7b").items()
    }
    assert_holds(saved(tmp_path, state), {name: tensor.float() for name, tensor in state.items()})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_gguf(tmp_path: Path, family: Family, kind: str) -> None:
    path, values = saved_gguf(tmp_path, tiny_weights(family), gguf.GGMLQuantizationType[kind])
    assert_holds(path, values)


def test_a_repackaged_file_brings_its_text(tmp_path: Path) -> None:
    text = torch.randn(58, 64).bfloat16()
    state = {**tiny_weights("3b"), "positive_conditioning": text, "negative_conditioning": -text}
    path = saved(tmp_path, state)
    assert_holds(path, tiny_weights("3b"))
    with open_checkpoint(path) as checkpoint:
        assert torch.equal(load_text(checkpoint), text.float())


def test_a_bare_file_brings_none(golden_dir: Path) -> None:
    with open_checkpoint(golden_dir / "dit_tiny_3b.safetensors") as checkpoint:
        assert load_text(checkpoint) is None


def test_a_text_of_one_axis_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"positive_conditioning": torch.zeros(64)})
    with open_checkpoint(path) as checkpoint, pytest.raises(CheckpointError, match=r"got shape \(64,\)"):
        load_text(checkpoint)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = tiny_weights("3b")
    state["blocks.2.mlp.all.proj_in.weight"][3, 4] = torch.nan
    with pytest.raises(CheckpointError, match=r"blocks.2.mlp.all.proj_in.weight in .* found NaN or infinity"):
        load_dit(saved(tmp_path, state))


@pytest.mark.parametrize("family", FAMILIES)
def test_other_frequencies_are_refused(tmp_path: Path, family: Family) -> None:
    state = tiny_weights(family)
    state["blocks.1.attn.rope.rope.freqs"] *= 1.1
    with pytest.raises(CheckpointError, match=r"blocks.1.attn.rope.rope.freqs .*expected the rotary frequencies"):
        load_dit(saved(tmp_path, state))


def test_dtypes_that_cannot_be_computed_in_are_refused(golden_dir: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"expected torch.float32, float16 or bfloat16, got torch.int8"):
        load_dit(golden_dir / "dit_tiny_3b.safetensors", dtype=torch.int8)


def test_a_transformer_is_no_vae(golden_dir: Path) -> None:
    from seedvr2_engine.loading import load_vae

    with pytest.raises(CheckpointError, match="found a diffusion transformer"):
        load_vae(golden_dir / "dit_tiny_3b.safetensors")


def test_loading_leaves_the_file_alone(golden_dir: Path) -> None:
    path = golden_dir / "dit_tiny_7b.safetensors"
    before = path.read_bytes()
    dit = load_dit(path)
    dit.blocks[0].ada.vid.attn_gate.fill_(7)
    assert path.read_bytes() == before
    assert not torch.equal(dit.blocks[0].ada.vid.attn_gate, load_file(path)["blocks.0.ada.vid.attn_gate"])
