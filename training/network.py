"""The VAE as pure functions of a dictionary of tensors, laid out for fast training.

The same arithmetic as `seedvr2_engine.models.vae.model`, with the same tensor names, but activations are stored
(N, T, H, W, C), so that cuDNN's channels-last kernels run without conversions, and normalisation, SiLU and the
causal padding are one function that `torch.compile` turns into one kernel. Weights are an argument, so the
trainer can hand in master weights, averaged weights, or weights rounded as a file format would round them.
"""

import math
import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from seedvr2_engine.models.vae.config import VAEConfig

Weights = dict[str, Tensor]

NANO = VAEConfig(block_out_channels=(32, 32, 64, 64))
"""The small model that ships with the package."""

SOFT_EPS = 1.0
"""Epsilon of the soft norms while training; `fold_soft_norms` turns it into the model's own 1e-6."""
SOFT_NORMS = re.compile(
    r"encoder\.(down_blocks\.3|mid_block)\..*(norm1|group_norm)|decoder\.up_blocks\.3\..*norm1|.*conv_norm_out"
)
SOFT_STREAM_WRITERS = re.compile(
    r"encoder\.(down_blocks\.2\.downsamplers\.0\.conv|(down_blocks\.3|mid_block)\..*(conv2|to_out\.0))\."
    r"|decoder\.up_blocks\.(2\.upsamplers\.0\.conv|3\..*conv2)\."
)


def fold_soft_norms(weights: Weights) -> Weights:
    """Weights for epsilon 1e-6 that compute what `weights` compute with soft norms, exactly.

    With 32 groups over 32 or 64 channels a norm on the main path would erase the brightness and contrast of
    every frame; the network would then carry them in a spike at one place of the frame. A norm whose epsilon is of
    the size of the variance leaves them. Norm(x, 1) = Norm(c x, c^2) lets such a norm be trained at a size of 1
    and shipped at a size of c = 1e-3, by scaling the layers that write the stream it reads.
    """
    factor = math.sqrt(NANO.norm_eps / SOFT_EPS)
    return {name: w * factor if SOFT_STREAM_WRITERS.match(name) else w for name, w in weights.items()}


def unfold_soft_norms(weights: Weights) -> Weights:
    """The reverse of `fold_soft_norms`: weights of a file that ships, to go on training with."""
    factor = math.sqrt(SOFT_EPS / NANO.norm_eps)
    return {name: w * factor if SOFT_STREAM_WRITERS.match(name) else w for name, w in weights.items()}


def decoder_part(weights: Weights) -> Weights:
    """The decoder's tensors, FP32, in the order of `VAEConfig.tensor_shapes`, whatever the order of the file."""
    return {name: weights[name].float() for name in NANO.tensor_shapes() if name.startswith("decoder.")}


def initial_weights(rng: torch.Generator, config: VAEConfig = NANO) -> Weights:
    """Random FP32 weights: variance-preserving convolutions, quiet residual branches, open skip paths."""
    weights: Weights = {}
    for name, shape in config.tensor_shapes().items():
        if len(shape) == 1:
            is_gain = "norm" in name and name.endswith("weight")
            weights[name] = torch.full(shape, 1.0 if is_gain else 0.0, device=rng.device)
            continue
        gain = 1 / math.sqrt(math.prod(shape[1:]))
        if name.endswith((".conv2.weight", "to_out.0.weight")):
            gain *= 0.3
        weight = torch.randn(shape, generator=rng, device=rng.device) * gain
        if ".upsamplers." in name:
            weight = weight * 0.5 + _skip_path(shape, rng.device)
        weights[name] = weight
    _modulate_last_upsampler(weights)
    return weights


def _modulate_last_upsampler(weights: Weights) -> None:
    """Start half of the channels as (value + 1) times a checkerboard.

    `decoder.conv_norm_out` has one channel a group and removes its mean; a checkerboard has none to remove, and
    SiLU makes brightness of it again.
    """
    name = "decoder.up_blocks.2.upsamplers.0.upscale_conv"
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    half = weight.shape[1] // 2
    for phase, sign in enumerate((1.0, -1.0, -1.0, 1.0)):
        rows = slice(phase * 2 * half + half, (phase + 1) * 2 * half)
        weight[rows] *= sign
        bias[rows] = sign


def _skip_path(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Weights that hand every channel through: nearest-neighbour upsampling for the 1x1x1 convolution."""
    outputs, inputs = shape[:2]
    identity = torch.eye(inputs, device=device).repeat(outputs // inputs, 1)
    path = torch.zeros(shape, device=device)
    path[:, :, -1, shape[3] // 2, shape[4] // 2] = identity
    return path


def norm_silu(x: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
    """GroupNorm per frame, SiLU, and the causal padding: two copies of the first frame in front.

    x (N, T, H, W, C) in any float dtype; statistics are FP32; result (N, 2 + T, H, W, C) in x's dtype. A still,
    T = 1, is not padded (see `_conv`).
    """
    n, t, h, w, c = x.shape
    grouped = x.float().view(n, t, h * w, NANO.norm_groups, c // NANO.norm_groups)
    variance, mean = torch.var_mean(grouped, dim=(2, 4), correction=0, keepdim=True)
    y = ((grouped - mean) * torch.rsqrt(variance + eps)).view(n, t, h, w, c)
    y = F.silu(y * gain + bias).to(x.dtype)
    return _lead(y, 2)


class Network:
    """The two passes of the VAE, with weights given to each."""

    def __init__(
        self,
        norm: Callable[[Tensor, Tensor, Tensor, float], Tensor] = norm_silu,
        *,
        soft: bool,
        config: VAEConfig = NANO,
        rounded: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """`norm` is `norm_silu` or a faster twin; `soft` is false for weights out of `fold_soft_norms`.

        config: any widths; groups, epsilon and scaling factor are the small model's. rounded: what becomes of the
        activations (N, T, H, W, C) that convolutions read, but for the latents; None leaves them.
        """
        self.norm = norm
        self.soft = soft
        self.config = config
        self.rounded = rounded or (lambda x: x)

    def encode(self, weights: Weights, video: Tensor) -> tuple[Tensor, Tensor]:
        """Video (N, 3, 4n+1, H, W) in [-1, 1] -> mean and log-variance (N, n+1, H/8, W/8, 16)."""
        x = _conv(weights, "encoder.conv_in", _lead(video.permute(0, 2, 3, 4, 1), 2))
        for level in range(len(self.config.block_out_channels)):
            block = f"encoder.down_blocks.{level}"
            for i in range(self.config.layers_per_block):
                x = self._resnet(weights, f"{block}.resnets.{i}", x)
            name = f"{block}.downsamplers.0.conv"
            if f"{name}.weight" in weights:
                time = self.config.encoder_downsamples_time(level)
                x = F.pad(x, (0, 0, 0, 1, 0, 1))
                x = _conv(weights, name, _lead(x, 2 if time else 0), (2 if time else 1, 2, 2), (0, 0, 0))
        x = self._mid_block(weights, "encoder.mid_block", x)
        moments = _conv(weights, "encoder.conv_out", self._norm(weights, "encoder.conv_norm_out", x))
        mean, log_variance = moments.float().chunk(2, dim=-1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, weights: Weights, latent: Tensor) -> Tensor:
        """Latent (N, n+1, h, w, 16) -> video (N, 3, 4n+1, 8h, 8w), float32."""
        x = _conv(weights, "decoder.conv_in", _lead(latent, 2))
        x = self._mid_block(weights, "decoder.mid_block", x)
        for index in range(len(self.config.block_out_channels)):
            block = f"decoder.up_blocks.{index}"
            for i in range(self.config.layers_per_block + 1):
                x = self._resnet(weights, f"{block}.resnets.{i}", x)
            name = f"{block}.upsamplers.0"
            if f"{name}.conv.weight" in weights:
                x = _linear(weights, f"{name}.upscale_conv", self.rounded(x))
                x = _shuffle(x, time=self.config.decoder_upsamples_time(index))
                x = _conv(weights, f"{name}.conv", _lead(self.rounded(x), 2))
        x = _conv(weights, "decoder.conv_out", self._norm(weights, "decoder.conv_norm_out", x))
        return x.float().permute(0, 4, 1, 2, 3)

    def _norm(self, weights: Weights, name: str, x: Tensor) -> Tensor:
        gain, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return self.rounded(self.norm(x, gain, bias, self._epsilon(name)))

    def _epsilon(self, name: str) -> float:
        return SOFT_EPS if self.soft and SOFT_NORMS.fullmatch(name) else NANO.norm_eps

    def _resnet(self, weights: Weights, name: str, x: Tensor) -> Tensor:
        h = _conv(weights, f"{name}.conv1", self._norm(weights, f"{name}.norm1", x))
        h = _conv(weights, f"{name}.conv2", self._norm(weights, f"{name}.norm2", h))
        if f"{name}.conv_shortcut.weight" in weights:
            x = _linear(weights, f"{name}.conv_shortcut", x)
        return x + h

    def _mid_block(self, weights: Weights, name: str, x: Tensor) -> Tensor:
        x = self._resnet(weights, f"{name}.resnets.0", x)
        x = x + self._attend(weights, f"{name}.attentions.0", x)
        return self._resnet(weights, f"{name}.resnets.1", x)

    def _attend(self, weights: Weights, name: str, x: Tensor) -> Tensor:
        n, t, h, w, c = x.shape
        frames = x.reshape(n * t, h * w, c).transpose(1, 2)
        gain, bias = weights[f"{name}.group_norm.weight"], weights[f"{name}.group_norm.bias"]
        eps = self._epsilon(f"{name}.group_norm")
        tokens = F.group_norm(frames, self.config.norm_groups, gain.to(x.dtype), bias.to(x.dtype), eps).transpose(1, 2)
        q, k, v = (_linear(weights, f"{name}.to_{part}", tokens)[:, None] for part in "qkv")
        attended = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return _linear(weights, f"{name}.to_out.0", attended).view(x.shape)


def _lead(x: Tensor, frames: int) -> Tensor:
    """`frames` copies of the first frame in front of x (N, T, ...), unless x is a still."""
    return torch.cat([x[:, :1]] * frames + [x], dim=1) if frames and x.shape[1] > 1 else x


def _conv(
    weights: Weights,
    name: str,
    x: Tensor,
    stride: tuple[int, int, int] = (1, 1, 1),
    padding: tuple[int, int, int] = (0, 1, 1),
) -> Tensor:
    """Convolution of x (N, T, H, W, C), already padded in front, in the weight's dtype.

    All temporal taps see the same frame of a still, so it is convolved with their sum: a third of the work, and one
    in two dimensions. `prepared` computes the sums beforehand.
    """
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    if x.shape[1] == 1:
        still = weight.sum(2) if weight.ndim == 5 else weight
        still = still.contiguous(memory_format=torch.channels_last)
        pixels = x[:, 0].to(still.dtype).permute(0, 3, 1, 2)
        flat = F.conv2d(pixels, still, bias.to(still.dtype), stride[1:], padding[1:])
        return flat.permute(0, 2, 3, 1)[:, None]
    x = x.to(weight.dtype).permute(0, 4, 1, 2, 3)
    weight = weight.contiguous(memory_format=torch.channels_last_3d)
    y = F.conv3d(x, weight, bias.to(weight.dtype), stride, padding)
    return y.permute(0, 2, 3, 4, 1)


def prepared(weights: Weights, dtype: torch.dtype, *, still: bool) -> Weights:
    """FP32 weights in the formats that every call would bring them into, for a network that does not change.

    dtype: of everything but norms. For stills the temporal taps are summed, in FP32.
    """
    ready: Weights = {}
    for name, weight in weights.items():
        if "norm" in name:
            ready[name] = weight
        elif weight.ndim < 5 or name.endswith(("upscale_conv.weight", "conv_shortcut.weight")):
            ready[name] = weight.to(dtype)
        elif still:
            ready[name] = weight.sum(2).to(dtype).contiguous(memory_format=torch.channels_last)
        else:
            ready[name] = weight.to(dtype).contiguous(memory_format=torch.channels_last_3d)
    return ready


def _linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    """A 1x1x1 convolution or a linear layer over the last axis of x."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return F.linear(x, weight.flatten(1), bias.to(weight.dtype))


def _shuffle(x: Tensor, *, time: bool) -> Tensor:
    """Channels to pixels, in the order (row, column, frame, channel); the clip's first frame has one phase only."""
    n, t, h, w, phases = x.shape
    r = 2 if time else 1
    c = phases // (4 * r)
    x = x.reshape(n, t, h, w, 2, 2, r, c).permute(0, 1, 6, 2, 4, 3, 5, 7)
    x = x.reshape(n, t * r, 2 * h, 2 * w, c)
    return torch.cat([x[:, :1], x[:, 2:]], dim=1) if time else x
