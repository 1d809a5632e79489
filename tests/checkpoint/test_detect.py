"""Recognising the VAE by names and shapes, and refusing everything else with all reasons named."""

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seedvr2_engine.checkpoint.base import Checkpoint, TensorInfo
from seedvr2_engine.checkpoint.detect import detect_vae, load_vae_tensors, model_names, vae_tensor_names
from seedvr2_engine.checkpoint.opening import open_checkpoint
from seedvr2_engine.errors import CheckpointError
from seedvr2_engine.models.vae.config import Shape, VAEConfig

TINY = VAEConfig(block_out_channels=(32, 64, 32, 32))
State = dict[str, torch.Tensor]


class Listing(Checkpoint):
    """Names and shapes without values; a GGUF file unless told otherwise, because those may be collapsed."""

    format = "gguf"

    def __init__(self, shapes: Mapping[str, Shape], original: Mapping[str, Shape] | None = None) -> None:
        infos = {
            name: TensorInfo(name, shape, "F16", 2 * prod(shape), (original or {}).get(name))
            for name, shape in shapes.items()
        }
        super().__init__(Path("a.gguf"), infos, {})

    def _read(self, info: TensorInfo, dtype: torch.dtype | None) -> torch.Tensor:
        raise NotImplementedError

    def _read_packed(self, info: TensorInfo) -> None:
        raise NotImplementedError


class StrictListing(Listing):
    format = "safetensors"


@pytest.fixture(scope="module")
def tiny(golden_dir: Path) -> State:
    return load_file(golden_dir / "vae_tiny.safetensors")


@pytest.mark.parametrize(
    "config",
    [
        VAEConfig(),
        TINY,
        VAEConfig(block_out_channels=(32, 64, 96, 128), layers_per_block=1),
        VAEConfig(block_out_channels=(64, 32, 96, 32), layers_per_block=3, latent_channels=4, image_channels=1),
    ],
)
@pytest.mark.parametrize("kind", [Listing, StrictListing])
def test_the_configuration_follows_from_the_shapes(config: VAEConfig, kind: type[Listing]) -> None:
    checkpoint = kind(config.tensor_shapes())
    assert detect_vae(checkpoint) == config
    assert vae_tensor_names(checkpoint, config) == {name: name for name in config.tensor_shapes()}


def flat(shape: Shape) -> Shape:
    return (prod(shape),)


def two_axes(shape: Shape) -> Shape:
    return (shape[0], prod(shape[1:]))


def four_axes(shape: Shape) -> Shape:
    return (shape[0] * shape[1], *shape[2:])


def without_ones(shape: Shape) -> Shape:
    return shape[:2] if shape[2:] == (1, 1, 1) else shape


@pytest.mark.parametrize("collapse", [flat, two_axes, four_axes, without_ones])
def test_collapsed_convolutions(collapse: Callable[[Shape], Shape]) -> None:
    shapes = VAEConfig().tensor_shapes()
    collapsed = {name: collapse(shape) if len(shape) == 5 else shape for name, shape in shapes.items()}
    checkpoint = Listing(collapsed)
    assert detect_vae(checkpoint) == VAEConfig()
    assert len(vae_tensor_names(checkpoint, VAEConfig())) == 250
    with pytest.raises(CheckpointError, match="of another shape"):
        vae_tensor_names(StrictListing(collapsed), VAEConfig())


def test_an_original_shape_is_taken_at_its_word() -> None:
    shapes = VAEConfig().tensor_shapes()
    rows = {name: (prod(shape) // 256, 256) if len(shape) == 5 else shape for name, shape in shapes.items()}
    rows["encoder.conv_in.weight"] = (128, 81)
    rows["decoder.conv_out.weight"] = (3, 3456)
    assert len(vae_tensor_names(Listing(rows, shapes), VAEConfig())) == 250
    name = "encoder.down_blocks.1.resnets.0.conv1.weight"
    lying = {**shapes, name: (128, 256, 3, 3, 3)}
    with pytest.raises(CheckpointError, match=r"1 of another shape \(.*got \(128, 256, 3, 3, 3\)\)"):
        vae_tensor_names(Listing(rows, lying), VAEConfig())


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "vae.", "first_stage_model."])
def test_a_prefix_of_every_name_is_dropped(prefix: str) -> None:
    shapes = {prefix + name: shape for name, shape in TINY.tensor_shapes().items()}
    checkpoint = Listing(shapes)
    names = vae_tensor_names(checkpoint, detect_vae(checkpoint))
    assert names["encoder.conv_in.bias"] == f"{prefix}encoder.conv_in.bias"
    with pytest.raises(CheckpointError, match="another model"):
        detect_vae(Listing({**shapes, "other": (1,)}))


def old_attention(name: str) -> str:
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        name = name.replace(f".{new}.", f".{old}.")
    return name


def test_old_attention_names(tiny: State, tmp_path: Path) -> None:
    renamed = {old_attention(name): values for name, values in tiny.items()}
    assert sum(name not in tiny for name in renamed) == 16
    save_file(renamed, tmp_path / "old.safetensors")
    with open_checkpoint(tmp_path / "old.safetensors") as checkpoint:
        config, loaded = load_vae_tensors(checkpoint, torch.float16)
    assert config == TINY
    assert loaded.keys() == tiny.keys()
    assert all(torch.equal(loaded[name], tiny[name]) for name in tiny)


def test_two_names_for_one_tensor() -> None:
    name = "encoder.mid_block.attentions.0.to_q.bias"
    shapes = {**TINY.tensor_shapes(), name.replace("to_q", "query"): (32,)}
    with pytest.raises(CheckpointError, match=r"one tensor for encoder.*to_q\.bias, found .*query\.bias"):
        model_names(Listing(shapes))


def test_missing_unknown_and_wrong_tensors_are_all_named() -> None:
    shapes = TINY.tensor_shapes()
    del shapes["decoder.conv_in.weight"]
    shapes["quant_conv.weight"] = (32, 32)
    shapes["decoder.conv_norm_out.bias"] = (31,)
    with pytest.raises(CheckpointError) as caught:
        vae_tensor_names(Listing(shapes), detect_vae(Listing(shapes)))
    assert str(caught.value) == (
        "a.gguf: expected the 250 tensors of a SeedVR2 VAE of widths (32, 64, 32, 32), found 1 missing "
        "(decoder.conv_in.weight), 1 unknown (quant_conv.weight), 1 of another shape (decoder.conv_norm_out.bias: "
        "expected (32,), got (31,)); the file is incomplete or holds another model."
    )


def test_long_lists_end_with_a_count() -> None:
    shapes = {name: shape for name, shape in TINY.tensor_shapes().items() if not name.startswith("decoder.up")}
    with pytest.raises(CheckpointError, match=r"found 112 missing \((decoder\.\S+, ){10}and 102 more\)"):
        vae_tensor_names(Listing(shapes), detect_vae(Listing(shapes)))


def test_widths_survive_missing_tensors() -> None:
    shapes = TINY.tensor_shapes()
    for level in range(4):
        del shapes[f"encoder.down_blocks.{level}.resnets.0.conv1.bias"]
    assert detect_vae(Listing(shapes)) == TINY


DIT = {"vid_in.proj.weight": (2560, 132), "blocks.0.attn.proj_qkv.vid.weight": (7680, 2560)}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (DIT, r"diffusion transformer \(DiT\)"),
        ({f"model.diffusion_model.{name}": shape for name, shape in DIT.items()}, r"\(DiT\)"),
        ({"text_model.embeddings": (2, 2)}, "found 1 others, such as text_model.embeddings"),
        ({}, "found no tensors at all"),
        ({"encoder.down_blocks.0.resnets.0.conv1.weight": (1,)}, r"expected the tensor .*conv1\.bias"),
        (VAEConfig(block_out_channels=(48, 64, 32, 32)).tensor_shapes(), "multiples of 32"),
        ({**TINY.tensor_shapes(), "encoder.conv_out.bias": (31,)}, "an even number of encoder outputs"),
    ],
)
def test_other_models(shapes: Mapping[str, Shape], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        detect_vae(Listing(shapes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_are_those_of_the_file(golden_dir: Path, tiny: State, dtype: torch.dtype) -> None:
    with open_checkpoint(golden_dir / "vae_tiny.safetensors") as checkpoint:
        config, loaded = load_vae_tensors(checkpoint, dtype)
    assert config == TINY
    assert list(loaded) == list(TINY.tensor_shapes())
    assert all(torch.equal(loaded[name], tiny[name].to(dtype)) for name in tiny)


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        ([float("nan")], torch.float32, "expected finite weights, found NaN"),
        ([float("-inf")], torch.float32, "found NaN or infinity"),
        ([70_000.0], torch.float16, "within the range of torch.float16, found 7e\\+04; use float32"),
    ],
)
def test_values_that_are_not_finite(
    tiny: State, tmp_path: Path, values: list[float], dtype: torch.dtype, message: str
) -> None:
    name = "decoder.mid_block.resnets.1.norm2.bias"
    spoilt = tiny[name].float().clone()
    spoilt[7:8] = torch.tensor(values)
    save_file({**tiny, name: spoilt}, tmp_path / "a.safetensors")
    with (
        open_checkpoint(tmp_path / "a.safetensors") as checkpoint,
        pytest.raises(CheckpointError, match=f"^{name} in .*{message}"),
    ):
        load_vae_tensors(checkpoint, dtype)


def test_whole_numbers_are_no_weights(tiny: State, tmp_path: Path) -> None:
    name = "encoder.conv_in.bias"
    save_file({**tiny, name: torch.ones(32, dtype=torch.int8)}, tmp_path / "a.safetensors")
    with (
        open_checkpoint(tmp_path / "a.safetensors") as checkpoint,
        pytest.raises(CheckpointError, match="floating-point weights, got I8"),
    ):
        load_vae_tensors(checkpoint, torch.float32)
