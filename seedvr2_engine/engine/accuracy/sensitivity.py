"""How much of the picture's error each layer's 8-bit numbers cause, measured on the plain model.

A layer's input and weights are rounded to the format and back, all others stay as they are, and a small latent is
decoded. The errors of different layers are nearly independent, so their squares add up.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ...device import DeviceSpec
from ...kernels.conv.operands import frame_scale
from ...kernels.conv.upsample import compose_upsampler
from ...models.precision import exact_float32
from ...models.vae.blocks import FrameAttention, Resnet, Upsample
from ...models.vae.causal import CausalConv3d
from ...models.vae.config import VAEConfig
from ...models.vae.model import Decoder, VideoVAE
from ...plan import VAEShape, compile_vae_plan
from ...quant import QuantRecipe, quantize_rows, smoothing_factors
from ...quant.quantize import LIMITS
from ..vae.weights import SMOOTHING
from .calibrate import activation_maxima

PAIRED_NOISE = 5 / 3
"""What rounding to FP8 does to a resnet's convolution in pairs, as a multiple of what it does frame by frame: the
errors of the sums carry so much more energy where frames and taps are independent and alike. Measured 0.9 to 2.1, on
noise 2.7 (nano VAE, in FP32 but for the layer); an upsampler's are 1.0 to 1.2 times as large."""
_NOMINAL_PX = (720, 1280)
"""Rows and columns for which layers are weighed against each other; their shares hardly depend on it."""


def decoder_layers(decoder: Decoder) -> dict[str, nn.Module]:
    """The decoder's layers that may be computed in 8 bits, by the name that a recipe calls them, in order."""
    layers: dict[str, nn.Module] = {}
    for name, module in decoder.named_modules(prefix="decoder"):
        if isinstance(module, Resnet):
            layers |= {f"{name}.conv1": module.conv1, f"{name}.conv2": module.conv2}
        elif isinstance(module, (Upsample, FrameAttention)):
            layers[name] = module
    return layers


def picture(decoded: Tensor) -> Tensor:
    """What is seen of a decoded clip: [-1, 1] -> [0, 1], clamped, in FP32."""
    return (decoded.float() * 0.5 + 0.5).clamp(0, 1)


def mean_squared_error(actual: Tensor, exact: Tensor) -> Tensor:
    """Of two pictures in [0, 1], a scalar tensor; 1, the worst there is, where a value is NaN."""
    return (actual - exact).square().mean(dtype=torch.float64).nan_to_num(nan=1.0)


def decoder_shares(config: VAEConfig, device: DeviceSpec) -> dict[str, float]:
    """Each layer's share of the arithmetic of a later step of a decode, composed upsamplers as they are computed.

    Twice as much time is what a share takes in 16 bits, so it is also what a layer costs that is kept in 16 bits.
    """
    plan = compile_vae_plan(config, QuantRecipe("fp16"), device, VAEShape("decode", *_NOMINAL_PX), 1 << 62)
    flops: dict[str, int] = {}
    for operation, _ in plan.steady.executions():
        if operation.problem is not None or operation.kernel == "attention":
            flops[operation.layer] = flops.get(operation.layer, 0) + operation.flops
    return {name: value / sum(flops.values()) for name, value in flops.items()}


def paired_layers(config: VAEConfig, recipe: QuantRecipe, device: DeviceSpec) -> frozenset[str]:
    """The resnets' convolutions of a decode that are computed in pairs of frames where memory allows it."""
    plan = compile_vae_plan(config, recipe, device, VAEShape("decode", *_NOMINAL_PX), 1 << 62)
    problems = ((operation.layer, operation.problem) for operation in plan.steady.operations)
    return frozenset(
        layer for layer, problem in problems if problem is not None and problem.paired and problem.phases == 1
    )


@torch.no_grad()
def layer_errors(
    vae: VideoVAE,
    latent: Tensor,
    layers: Iterable[str],
    recipe: QuantRecipe,
    *,
    paired: Collection[str] = (),
    maxima: Mapping[str, Tensor] | None = None,
) -> dict[str, float]:
    """The mean squared error of the picture (in [0, 1]) that each layer causes on its own in the recipe's format.

    paired: those that are computed in pairs of frames (`paired_layers`). maxima: of every layer's input channels, for
    INT8; None measures them. On a GPU a model in FP32 is judged in FP16, which is faster, unless it overflows there.
    What that rounds is some 75 dB below the picture.
    """
    smoothing = {}
    if recipe.precision == "int8":
        smoothing = smoothing_by_layer(vae.decoder, activation_maxima(vae) if maxima is None else maxima)
    in_16_bits = vae.dtype == torch.float32 and vae.device.type == "cuda"
    for decoder in [deepcopy(vae.decoder).half(), vae.decoder] if in_16_bits else [vae.decoder]:
        with exact_float32():
            tails = _Tails(decoder, latent)
            if torch.isfinite(tails.exact).all():
                break
    modules = decoder_layers(decoder)
    errors = {}
    for name in layers:
        noise = PAIRED_NOISE if name in paired else 1.0
        with exact_float32(), rounded({name: modules[name]}, recipe, smoothing):
            errors[name] = mean_squared_error(tails.decode(modules[name]), tails.exact) * noise
    # One wait for the GPU instead of one for each layer.
    return dict(zip(errors, torch.stack(list(errors.values())).tolist(), strict=True)) if errors else {}


class _Tails:
    """A latent's decode, which can be done again from the block that a layer is in."""

    def __init__(self, decoder: Decoder, latent: Tensor) -> None:
        self._decoder = decoder
        self._inputs: list[Tensor] = []
        x = latent.to(decoder.conv_in.weight)
        for block in decoder.blocks:
            self._inputs.append(x)
            x = block(x)
        self.exact = picture(decoder.finish(x))
        self._block_of = {module: i for i, block in enumerate(decoder.blocks) for module in block.modules()}

    def decode(self, changed: nn.Module) -> Tensor:
        """The picture as a module makes it that has changed."""
        first = self._block_of[changed]
        x = self._inputs[first]
        for block in self._decoder.blocks[first:]:
            x = block(x)
        return picture(self._decoder.finish(x))


def smoothing_by_layer(decoder: Decoder, maxima: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layer -> (C,) float32: what INT8 divides its input channels by, as `weights.WeightStore` has it.

    maxima: layer -> (C,), the largest input of every channel (`calibrate.activation_maxima`).
    """
    factors = {}
    for name, layer in decoder_layers(decoder).items():
        if isinstance(layer, FrameAttention):
            continue
        if isinstance(layer, Upsample):
            tensors = (layer.upscale_conv.weight, layer.upscale_conv.bias, layer.conv.weight, layer.conv.bias)
            composed = compose_upsampler(*(tensor.detach().double() for tensor in tensors if tensor is not None))
            weight_amax = composed.later.abs().amax((0, 1, 2, 4, 5, 6))
        else:
            assert isinstance(layer, CausalConv3d)
            weight_amax = layer.weight.detach().abs().amax((0, 2, 3, 4))
        factors[name] = smoothing_factors(maxima[name], weight_amax, SMOOTHING)
    return factors


@contextmanager
def rounded(
    layers: Mapping[str, nn.Module], recipe: QuantRecipe, smoothing: Mapping[str, Tensor] | None = None
) -> Iterator[None]:
    """Round the inputs and weights of these layers to the recipe's 8-bit format until the context ends.

    An upsampler's input is rounded where the engine rounds it, before the 1x1x1 convolution, and of its two weights
    the last, whose rows are what the composed weights are made of. Of an attention queries, keys and values are.
    smoothing: INT8's factors by layer; without them nothing is smoothed.
    """
    with ExitStack() as undo:
        for name, layer in layers.items():
            factors = None if smoothing is None else smoothing.get(name)
            if isinstance(layer, Upsample):
                undo.enter_context(_rounded_conv(layer.upscale_conv, recipe, factors, weight=False))
                undo.enter_context(_rounded_conv(layer.conv, recipe, None, input=False))
            elif isinstance(layer, FrameAttention):
                undo.enter_context(_rounded_attention(layer))
            else:
                assert isinstance(layer, CausalConv3d)
                undo.enter_context(_rounded_conv(layer, recipe, factors))
        yield


@contextmanager
def _rounded_attention(attention: FrameAttention) -> Iterator[None]:
    """Queries and keys in INT8 with one scale a token, values in E4M3, keys and values without their mean."""

    def centred(x: Tensor, dtype: torch.dtype, axis: int) -> Tensor:
        mean = x.float().mean(1, keepdim=True)
        return (_round_by_amax(x.float() - mean, dtype, axis) + mean).to(x.dtype)

    def of_queries(_: nn.Module, args: object, x: Tensor) -> Tensor:
        return _round_by_amax(x.float(), torch.int8, -1).to(x.dtype)

    def of_keys(_: nn.Module, args: object, x: Tensor) -> Tensor:
        return centred(x, torch.int8, -1)

    def of_values(_: nn.Module, args: object, x: Tensor) -> Tensor:
        return centred(x, torch.float8_e4m3fn, 1)

    hooks = (
        attention.to_q.register_forward_hook(of_queries),
        attention.to_k.register_forward_hook(of_keys),
        attention.to_v.register_forward_hook(of_values),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _rounded_conv(
    conv: CausalConv3d, recipe: QuantRecipe, smoothing: Tensor | None, *, input: bool = True, weight: bool = True
) -> Iterator[None]:
    exact = conv.weight
    dtype = torch.int8 if recipe.precision == "int8" else torch.float8_e4m3fn

    def round_operands(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0].float()
        factors = x.new_ones(x.shape[1]) if smoothing is None else smoothing.to(x.device)
        if weight:
            conv.weight = nn.Parameter(_round_weight(exact, factors, dtype), requires_grad=False)
        return (_round_frames(x, factors, dtype).to(args[0].dtype) if input else args[0], *args[1:])

    hook = conv.register_forward_pre_hook(round_operands)
    try:
        yield
    finally:
        hook.remove()
        conv.weight = exact


def _round_weight(weight: Tensor, factors: Tensor, dtype: torch.dtype) -> Tensor:
    """(Co, Ci, kt, kh, kw) with its smoothing, through 8 bits and back, without the smoothing again."""
    smoothing = factors[:, None, None, None]
    data, scale = quantize_rows((weight.float() * smoothing).flatten(1), dtype)
    return ((data.float() * scale[:, None]).view(weight.shape) / smoothing).to(weight.dtype)


def _round_frames(x: Tensor, factors: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, C, T, H, W) through 8 bits and back, with one power of two a frame as its scale."""
    smoothing = factors[:, None, None, None]
    smooth = x / smoothing
    limit, floor, reach = frame_scale(dtype)
    amax = smooth.abs().amax((1, 3, 4), keepdim=True)
    step = torch.exp2(torch.ceil(torch.log2((amax / (limit * reach)).clamp(min=1e-30))).clamp(min=floor))
    scaled = (smooth / step).clamp(-limit, limit)
    restored = scaled.round() if dtype == torch.int8 else scaled.to(dtype).float()
    return restored * step * smoothing


def _round_by_amax(x: Tensor, dtype: torch.dtype, axis: int) -> Tensor:
    """Through 8 bits and back, with one scale along `axis`."""
    step = x.abs().amax(axis, keepdim=True).clamp(min=1e-20) / LIMITS[dtype]
    data = x / step
    return (data.round() if dtype == torch.int8 else data.to(dtype).float()) * step
