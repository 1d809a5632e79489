"""The transformer block: windowed attention and an MLP over two streams, each modulated by the timestep.

Source: ByteDance-Seed/SeedVR, `models/dit_v2/nablocks/mmsr_block.py`, `models/dit_v2/modulation.py`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import JointAttention
from .config import DiTConfig
from .geometry import Geometry
from .streams import PerStream, gated_sum, modulated_norm, rms_norm


class Modulation(NamedTuple):
    """What the timestep does to one stream around one sublayer; (width,) each, float32."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


class StreamModulation(NamedTuple):
    """One stream's modulations in one block."""

    attention: Modulation
    mlp: Modulation


@dataclass(frozen=True)
class BlockModulation:
    """The modulations of one block."""

    video: StreamModulation
    text: StreamModulation


class Ada(nn.Module):
    """The six learned vectors of a block and stream that the timestep's own are added to."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for sublayer in ("attn", "mlp"):
            self.register_parameter(f"{sublayer}_shift", nn.Parameter(torch.zeros(width)))
            self.register_parameter(f"{sublayer}_scale", nn.Parameter(torch.ones(width)))
            self.register_parameter(f"{sublayer}_gate", nn.Parameter(torch.zeros(width)))

    def forward(self, timestep: Tensor) -> StreamModulation:
        """Add the timestep's vectors, (width, sublayer, shift/scale/gate) float32."""
        attention, mlp = (
            Modulation(
                *(
                    timestep[:, index, part] + self.get_parameter(f"{sublayer}_{name}").float()
                    for part, name in enumerate(Modulation._fields)
                )
            )
            for index, sublayer in enumerate(("attn", "mlp"))
        )
        return StreamModulation(attention, mlp)


class GatedMLP(nn.Module):
    """The 3b family's MLP: SiLU of one projection times another."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.proj_in_gate = nn.Linear(config.width, config.mlp_width, bias=False)
        self.proj_in = nn.Linear(config.width, config.mlp_width, bias=False)
        self.proj_out = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, width) -> (tokens, width)"""
        out: Tensor = self.proj_out(F.silu(self.proj_in_gate(x)) * self.proj_in(x))
        return out


class PlainMLP(nn.Module):
    """The 7b family's MLP: GELU in its tanh form."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.proj_in = nn.Linear(config.width, config.mlp_width)
        self.proj_out = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, width) -> (tokens, width)"""
        out: Tensor = self.proj_out(F.gelu(self.proj_in(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """One layer of the transformer.

    After the attention of the last layer nothing reads the text any more, so there it only serves keys and values.
    """

    def __init__(self, config: DiTConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        self.is_last = layer == config.layers - 1
        weight_sets = config.weight_sets(layer)
        mlp = GatedMLP if config.family == "3b" else PlainMLP
        self.attn = JointAttention(config, weight_sets)
        self.mlp = PerStream(weight_sets, lambda: mlp(config))
        self.ada = PerStream(weight_sets, lambda: Ada(config.width))

    def modulation(self, timestep: Tensor) -> BlockModulation:
        """The block's modulations for the timestep's vectors, (width, 2, 3) float32."""
        return BlockModulation(self.ada.of("vid")(timestep), self.ada.of("txt")(timestep))

    def forward(self, video: Tensor, text: Tensor, by: BlockModulation, geometry: Geometry) -> tuple[Tensor, Tensor]:
        """Pass video tokens in this layer's window order, and text tokens, each (tokens, width).

        The last layer returns the text as it came.
        """
        eps, layout = self.config.norm_eps, self.layer % 2
        text_asks = not self.is_last
        video_change, text_change = self.attn(
            modulated_norm(video, by.video.attention.shift, by.video.attention.scale, eps),
            self._text_into_attention(text, by.text.attention),
            geometry.layouts[layout],
            (geometry.rotations[layout], geometry.text_rotation),
            text_asks=text_asks,
            kind=geometry.attention,
        )
        video = gated_sum(video, video_change, by.video.attention.gate)
        video = self._through_mlp(self.mlp.of("vid"), video, by.video.mlp)
        if text_asks:
            text = gated_sum(text, text_change, by.text.attention.gate)
            text = self._through_mlp(self.mlp.of("txt"), text, by.text.mlp)
        return video, text

    def _text_into_attention(self, text: Tensor, by: Modulation) -> Tensor:
        if self.is_last and self.config.family == "3b":
            return rms_norm(text, self.config.norm_eps).to(text.dtype)
        return modulated_norm(text, by.shift, by.scale, self.config.norm_eps)

    def _through_mlp(self, mlp: nn.Module, x: Tensor, by: Modulation) -> Tensor:
        return gated_sum(x, mlp(modulated_norm(x, by.shift, by.scale, self.config.norm_eps)), by.gate)
