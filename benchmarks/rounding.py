"""The decoder with its layers' operands rounded in one of many ways: what a rounding would cost, before it is built.

Plain FP32 PyTorch, composed upsamplers as the engine has them; everything that is not rounded is exact.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from seedvr2_engine.engine.accuracy.calibrate import calibration_clips
from seedvr2_engine.engine.accuracy.sensitivity import decoder_layers
from seedvr2_engine.kernels.conv.upsample import ComposedUpsampler, compose_upsampler
from seedvr2_engine.models.precision import exact_float32
from seedvr2_engine.models.vae.blocks import FrameAttention, Resnet, Upsample
from seedvr2_engine.models.vae.causal import CausalConv3d
from seedvr2_engine.models.vae.model import VideoVAE
from seedvr2_engine.quant import smoothing_factors

_SPACE = (1, 3, 4)


@dataclass(frozen=True)
class Rounding:
    """How the operands of a layer are rounded."""

    format: str
    """fp8 or int8."""
    inputs: bool = True
    """Whether the input is rounded."""
    weights: bool = True
    """Whether the weights are."""
    scale: str = "power"
    """Of an INT8 frame: a `power` of two, `float`, or `channel`, a float scale for each channel (an ideal)."""
    clip: float | None = None
    """Largest INT8 value in root mean squares of the frame; None is the frame's own largest."""
    slack: float = 0.0
    """Octaves by which INT8's power of two may be too small for the largest values, which are then clipped."""
    zero_point: bool = False
    """Whether INT8 codes cover the frame's range instead of its largest magnitude on both sides."""
    smoothing: float = 0.85
    """INT8: how much of a channel's outliers moves into the weights."""


@dataclass
class RoundedDecoder:
    """A decoder whose layers are rounded as `rounding` says."""

    vae: VideoVAE
    rounding: dict[str, Rounding] = field(default_factory=dict)
    """By layer, as recipes call them."""

    def __post_init__(self) -> None:
        # The attention has one way to round, which is the engine's.
        layers = decoder_layers(self.vae.decoder).items()
        self.layers = {name: layer for name, layer in layers if not isinstance(layer, FrameAttention)}
        self.seen: dict[str, Tensor] | None = None
        self._composed: dict[str, ComposedUpsampler] = {}
        self._weights: dict[tuple[str, int], Tensor] = {}
        self._amax: dict[str, Tensor] = {}
        self._weight_amax: dict[str, Tensor] = {}

    def use(self, rounding: Rounding | None, layers: Iterable[str] | None = None) -> None:
        """Round these layers (None: all) so, and no others."""
        self.rounding = {} if rounding is None else dict.fromkeys(layers or self.layers, rounding)
        self._weights.clear()

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Decode (1, 16, n+1, h, w)."""
        decoder = self.vae.decoder
        with exact_float32():
            x = decoder.conv_in(latent)
            x = self._resnet("decoder.mid_block.resnets.0", decoder.mid_block.resnets[0], x)
            x = decoder.mid_block.attentions[0](x)
            x = self._resnet("decoder.mid_block.resnets.1", decoder.mid_block.resnets[1], x)
            for index, block in enumerate(decoder.up_blocks):
                for i, resnet in enumerate(block.resnets):
                    x = self._resnet(f"decoder.up_blocks.{index}.resnets.{i}", resnet, x)
                for up in block.upsamplers:
                    x = self._upsample(f"decoder.up_blocks.{index}.upsamplers.0", up, x)
            return decoder.conv_out(F.silu(decoder.conv_norm_out(x)))

    def statistics(self, latents: Iterable[Tensor]) -> dict[str, dict[str, float]]:
        """Layer -> what its input looks like, over all frames: see `describe`."""
        self.use(None)
        found: dict[str, list[Tensor]] = {name: [] for name in self.layers}
        for latent in latents:
            self.seen = {}
            self.decode(latent)
            for name, x in self.seen.items():
                found[name].append(describe(x))
        self.seen = None
        names = ("mean_over_deviation", "peak_over_rms", "channel_peak_over_deviation", "rms")
        return {name: dict(zip(names, torch.stack(rows).mean(0).tolist(), strict=True)) for name, rows in found.items()}

    def _resnet(self, name: str, resnet: Resnet, x: Tensor) -> Tensor:
        h = self._conv(f"{name}.conv1", resnet.conv1, F.silu(resnet.norm1(x)))
        h = self._conv(f"{name}.conv2", resnet.conv2, F.silu(resnet.norm2(h)))
        return h + (x if resnet.conv_shortcut is None else resnet.conv_shortcut(x))

    def _conv(self, name: str, conv: CausalConv3d, x: Tensor) -> Tensor:
        x = self._input(name, x)
        x = torch.cat([x[:, :, :1].expand(-1, -1, 2, -1, -1), x], dim=2)
        return F.conv3d(x, self._weight(name, 0, conv.weight), conv.bias, padding=(0, 1, 1))

    def _upsample(self, name: str, up: Upsample, x: Tensor) -> Tensor:
        first, first_bias, later, later_bias = self._compose(name, up)
        x = self._input(name, x)
        if up.time_factor == 1:
            x = torch.cat([x[:, :, :1].expand(-1, -1, 2, -1, -1), x], dim=2)
            return self._phases(x, self._weight(name, 0, later[0]), later_bias[0])
        frames = [self._phases(x[:, :, :1], self._weight(name, 9, first[0]), first_bias[0])]
        for begin, sets in ((0, (2, 3)), (1, (0, 1))):
            seen = x[:, :, : begin + 2] if begin == 0 else x[:, :, begin:]
            if seen.shape[2] > 1:
                pair = [self._phases(seen, self._weight(name, i, later[i]), later_bias[i]) for i in sets]
                frames.append(torch.stack(pair, dim=3).flatten(2, 3))
        return torch.cat(frames, dim=2)

    def _phases(self, x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
        """x (1, C, t, H, W), kernels (4, C, C, kt, 2, 2), bias (4, 4, C) -> (1, C, t - kt + 1, 2 H, 2 W)."""
        _, channels, _, height, width = x.shape
        out = x.new_empty(1, channels, x.shape[2] - kernels.shape[3] + 1, 2 * height, 2 * width)
        for phase, (kernel, (inside, at_row, at_column, corner)) in enumerate(zip(kernels, bias, strict=True)):
            row, column = divmod(phase, 2)
            y = F.conv3d(F.pad(x, (1 - column, column, 1 - row, row)), kernel) + inside[:, None, None, None]
            h, w = (height - 1) * row, (width - 1) * column
            y[..., h, :] += at_row[:, None, None]
            y[..., w] += at_column[:, None, None]
            y[..., h, w] += corner[:, None]
            out[..., row::2, column::2] = y
        return out

    def _compose(self, name: str, up: Upsample) -> ComposedUpsampler:
        if name not in self._composed:
            parts = (up.upscale_conv.weight, up.upscale_conv.bias, up.conv.weight, up.conv.bias)
            composed = compose_upsampler(*(part.double() for part in parts if part is not None))
            self._composed[name] = ComposedUpsampler(*(part.float() for part in composed))
        return self._composed[name]

    def _input(self, name: str, x: Tensor) -> Tensor:
        if self.seen is not None:
            self.seen[name] = x
        rounding = self.rounding.get(name)
        if rounding is None or not rounding.inputs:
            return x
        if rounding.format == "fp8":
            step = torch.exp2(torch.ceil(torch.log2(_amax(x, _SPACE) / 448)).clamp(min=-2))
            return (x / step).to(torch.float8_e4m3fn).float() * step
        factors = self._factors(name, rounding)[:, None, None, None]
        return round_integers(x / factors, rounding) * factors

    def _weight(self, name: str, index: int, weight: Tensor) -> Tensor:
        rounding = self.rounding.get(name)
        if rounding is None or not rounding.weights:
            return weight
        if (name, index) not in self._weights:
            fp8 = rounding.format == "fp8"
            factors = 1.0 if fp8 else self._factors(name, rounding)[:, None, None, None]
            smooth = weight * factors
            scale = smooth.abs().amax((-4, -3, -2, -1), keepdim=True).clamp(min=1e-30) / (448 if fp8 else 127)
            codes = smooth / scale
            codes = codes.clamp(-448, 448).to(torch.float8_e4m3fn).float() if fp8 else codes.round()
            self._weights[name, index] = codes * scale / factors
        return self._weights[name, index]

    def _factors(self, name: str, rounding: Rounding) -> Tensor:
        if not self._amax:
            self._calibrate()
        return smoothing_factors(self._amax[name], self._weight_amax[name], rounding.smoothing)

    def _calibrate(self) -> None:
        chosen, self.rounding = self.rounding, {}
        maxima: dict[str, Tensor] = {}
        for clip in calibration_clips():
            self.seen = {}
            self.decode(self.vae.encode(clip))
            for name, x in self.seen.items():
                amax = x.abs().amax((0, 2, 3, 4))
                maxima[name] = torch.maximum(maxima[name], amax) if name in maxima else amax
        self.seen, self.rounding, self._amax = None, chosen, maxima
        for name, layer in self.layers.items():
            if isinstance(layer, Upsample):
                self._weight_amax[name] = self._compose(name, layer).later.abs().amax((0, 1, 2, 4, 5, 6))
            else:
                self._weight_amax[name] = layer.weight.detach().abs().amax((0, 2, 3, 4))


def round_integers(x: Tensor, rounding: Rounding) -> Tensor:
    """(1, C, T, H, W) through INT8 codes and back, each frame with its own scale."""
    axes = (3, 4) if rounding.scale == "channel" else _SPACE
    top, bottom = x.amax(axes, keepdim=True), x.amin(axes, keepdim=True)
    if rounding.clip is not None:
        limit = rounding.clip * x.square().mean(axes, keepdim=True).sqrt()
        top, bottom = torch.minimum(top, limit), torch.maximum(bottom, -limit)
    if rounding.zero_point:
        step, zero = (top - bottom) / 254, (top + bottom) / 2
    else:
        step, zero = torch.maximum(top, -bottom) / 127, torch.zeros_like(top)
    step = step.clamp(min=1e-12)
    if rounding.scale == "power":
        step = torch.exp2(torch.ceil(torch.log2(step) - rounding.slack))
    zero = (zero / step).round()
    return ((x / step - zero).round().clamp(-127, 127) + zero) * step


def describe(x: Tensor) -> Tensor:
    """(4,) of a layer's input (1, C, T, H, W): mean over deviation of the channels (RMS), a frame's peak over its RMS,
    a channel's peak over its deviation (99 % of channels and frames stay below), RMS."""
    flat = x[0].flatten(2)
    mean, deviation, peak = flat.mean(2), flat.std(2), flat.abs().amax(2)
    rms = flat.square().mean((0, 2)).sqrt()
    worst = (peak / deviation.clamp(min=1e-9)).flatten().kthvalue(max(1, int(0.99 * peak.numel()))).values
    ratio = mean.square().mean().sqrt() / deviation.square().mean().sqrt()
    return torch.stack([ratio, (peak.amax(0) / rms).mean(), worst, rms.mean()])


SCHEMES: Mapping[str, Rounding] = {
    "FP8": Rounding("fp8"),
    "FP8, inputs only": Rounding("fp8", weights=False),
    "FP8, weights only": Rounding("fp8", inputs=False),
    "INT8": Rounding("int8"),
    "INT8, inputs only": Rounding("int8", weights=False),
    "INT8, weights only": Rounding("int8", inputs=False),
    "INT8, float scale": Rounding("int8", scale="float"),
    "INT8, scale of each channel": Rounding("int8", scale="channel"),
    "INT8, zero point": Rounding("int8", zero_point=True),
    "INT8, zero point, float scale": Rounding("int8", zero_point=True, scale="float"),
    "INT8, slack of an eighth": Rounding("int8", slack=0.125),
    "INT8, slack of a quarter": Rounding("int8", slack=0.25),
    "INT8, slack of a half": Rounding("int8", slack=0.5),
    "INT8, slack of a quarter, smoothing 0.7": Rounding("int8", slack=0.25, smoothing=0.7),
    "INT8, slack of a quarter, zero point": Rounding("int8", slack=0.25, zero_point=True),
    "INT8, clipped at 12 RMS": Rounding("int8", clip=12.0),
    "INT8, clipped at 20 RMS": Rounding("int8", clip=20.0),
    "INT8, clipped at 30 RMS": Rounding("int8", clip=30.0),
    "INT8, smoothing 0.5": Rounding("int8", smoothing=0.5),
    "INT8, smoothing 0.7": Rounding("int8", smoothing=0.7),
    "INT8, smoothing 1": Rounding("int8", smoothing=1.0),
}
"""What `--recipes` tries in every layer."""


def _amax(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x.abs().amax(axes, keepdim=True).clamp(min=1e-30)
