"""The hyper-parameters of the SeedVR2 diffusion transformer, and the names and shapes of its tensors."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ...errors import InvalidArgumentError
from ..vae.config import Shape

Family = Literal["3b", "7b"]
Stream = Literal["vid", "txt"]


@dataclass(frozen=True)
class DiTConfig:
    """What distinguishes one SeedVR2 transformer from another; the defaults are the public 3B model's.

    Source: ByteDance-Seed/SeedVR, `configs_3b/main.yaml`, `configs_7b/main.yaml` and `models/dit_v2`, `models/dit`.
    """

    family: Family = "3b"
    """Which public model the parts are from; the sizes below are free.

    3b: gated MLP, rotary embedding of video and text, a norm and a modulation before the head.
    7b: plain MLP with biases, rotary embedding of the video alone, no norm before the head.
    """
    width: int = 2560
    """Channels of a token, video and text alike."""
    layers: int = 32
    """Number of blocks; the even ones use regular windows, the odd ones shifted windows."""
    separate_layers: int = 10
    """The first so many blocks have weights of their own for video and text; the others share one set."""
    heads: int = 20
    """Attention heads."""
    head_width: int = 128
    """Channels of an attention head; even."""
    mlp_width: int = 6912
    """Channels inside the MLP."""
    text_width: int = 5120
    """Channels of a text embedding."""
    in_channels: int = 33
    """Channels of a latent position going in: noisy latent, condition latent, mask."""
    out_channels: int = 16
    """Channels of a latent position coming out."""
    patch_size: int = 2
    """Latent positions along each spatial edge of a token; a token is one latent frame deep."""
    sinusoid_width: int = 256
    """Channels of the timestep's sinusoid."""
    norm_eps: float = 1e-5
    """Added to the mean square in every norm."""

    def __post_init__(self) -> None:
        if not 0 <= self.separate_layers <= self.layers or self.layers < 1:
            raise InvalidArgumentError(
                f"separate_layers: expected 0 to {self.layers} of {self.layers} layers, got {self.separate_layers}."
            )
        if self.head_width < 2 or self.head_width % 2:
            raise InvalidArgumentError(f"head_width: expected an even number of channels, got {self.head_width}.")
        if self.family == "3b" and self.separate_layers == self.layers:
            raise InvalidArgumentError(
                "separate_layers: expected the last block of the 3b family to share its weights, got "
                f"{self.separate_layers} separate of {self.layers}."
            )

    @property
    def attention_width(self) -> int:
        """Channels of all heads together."""
        return self.heads * self.head_width

    @property
    def patch_positions(self) -> int:
        """Latent positions in one token."""
        return self.patch_size**2

    @property
    def axis_frequencies(self) -> int:
        """Rotary frequencies of each of the axes time, height, width."""
        rotated = self.head_width if self.family == "3b" else self.head_width // 2
        return rotated // 3 // 2

    def weight_sets(self, layer: int) -> tuple[str, ...]:
        """The sets of weights in block `layer`, by the names they have in a checkpoint."""
        return ("vid", "txt") if layer < self.separate_layers else ("all",)

    def tensor_shapes(self) -> dict[str, Shape]:
        """Every tensor of the model: name in the public checkpoint -> shape in PyTorch's order."""
        return dict(_tensors(self))


NamedShape = tuple[str, Shape]


def _affine(name: str, weight: Shape) -> list[NamedShape]:
    return [(f"{name}.weight", weight), (f"{name}.bias", weight[:1])]


def _tensors(config: DiTConfig) -> Iterator[NamedShape]:
    width, positions = config.width, config.patch_positions
    yield from _affine("vid_in.proj", (width, config.in_channels * positions))
    yield from _affine("txt_in", (width, config.text_width))
    yield from _affine("emb_in.proj_in", (width, config.sinusoid_width))
    yield from _affine("emb_in.proj_hid", (width, width))
    yield from _affine("emb_in.proj_out", (6 * width, width))
    for layer in range(config.layers):
        yield f"blocks.{layer}.attn.rope.rope.freqs", (config.axis_frequencies,)
        for weights in config.weight_sets(layer):
            yield from _block(config, f"blocks.{layer}", weights)
    if config.family == "3b":
        yield "vid_out_norm.weight", (width,)
        yield "vid_out_ada.out_shift", (width,)
        yield "vid_out_ada.out_scale", (width,)
    yield from _affine("vid_out.proj", (config.out_channels * positions, width))


def _block(config: DiTConfig, block: str, weights: str) -> Iterator[NamedShape]:
    width, inner = config.width, config.mlp_width
    yield f"{block}.attn.proj_qkv.{weights}.weight", (3 * config.attention_width, width)
    yield from _affine(f"{block}.attn.proj_out.{weights}", (width, config.attention_width))
    yield f"{block}.attn.norm_q.{weights}.weight", (config.head_width,)
    yield f"{block}.attn.norm_k.{weights}.weight", (config.head_width,)
    mlp = f"{block}.mlp.{weights}"
    if config.family == "3b":
        yield f"{mlp}.proj_in_gate.weight", (inner, width)
        yield f"{mlp}.proj_in.weight", (inner, width)
        yield f"{mlp}.proj_out.weight", (width, inner)
    else:
        yield from _affine(f"{mlp}.proj_in", (inner, width))
        yield from _affine(f"{mlp}.proj_out", (width, inner))
    for sublayer in ("attn", "mlp"):
        for part in ("shift", "scale", "gate"):
            yield f"{block}.ada.{weights}.{sublayer}_{part}", (width,)


PUBLIC_3B = DiTConfig()
PUBLIC_7B = DiTConfig("7b", width=3072, layers=36, separate_layers=36, heads=24, mlp_width=12288)
