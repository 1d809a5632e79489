"""The checkpoint's tensors as the kernels read them: composed, folded, smoothed and quantised, once, in FP64."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels.conv.operands import ConvWeights, NormOperands
from ...kernels.conv.pack import fold_time, pack_conv, pack_sets, pair_taps
from ...kernels.conv.upsample import ComposedUpsampler, compose_upsampler
from ...kernels.layout import DTYPES, WIDTH, folded_weight, unfolded_weight
from ...plan.execution_plan import Operation
from ...quant import QuantRecipe, smoothing_factors
from ..accuracy.fp16_scaling import PowerOfTwoScaling

SMOOTHING = 0.85
"""How much of a channel's outliers moves into the weights. Nano VAE, INT8, PSNR of four decoded clips against FP32 in
dB with 0.5, 0.7 and 0.85: 34.0, 32.9, 34.2, 29.5; 35.0, 36.0, 35.9, 38.1; 36.0, 37.5, 37.1, 39.6."""


class LayerWeights(NamedTuple):
    """What a convolution reads besides its frames."""

    conv: ConvWeights
    shortcut: Tensor | None
    """(Co, Cs), 16-bit."""

    @property
    def nbytes(self) -> int:
        """Bytes on the GPU."""
        return sum(tensor.nbytes for tensor in (*self.conv, self.shortcut) if tensor is not None)


class WeightStore:
    """Packed weights on the device, made when a plan first needs them."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        device: torch.device,
        activation_amax: Mapping[str, Tensor] | None = None,
        scaling: PowerOfTwoScaling | None = None,
    ) -> None:
        """tensors: the model's state; activation_amax: layer -> largest input of each channel (C,), for INT8.

        scaling: of what the layers read and write; they are part of the packed weights.
        """
        self._tensors = tensors
        self._device = device
        self.scaling = scaling or PowerOfTwoScaling()
        self._amax = activation_amax or {}
        self._packed: dict[tuple[str, int, str, str], LayerWeights] = {}
        self._norms: dict[tuple[str, str, str], NormOperands] = {}
        self._smoothing: dict[str, Tensor] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all packed weights on the GPU."""
        return sum(weights.nbytes for weights in self._packed.values())

    def prepare(self, operations: Iterable[Operation]) -> None:
        """Pack what these operations need and is not packed yet."""
        composed: dict[str, ComposedUpsampler] = {}
        for operation in sorted(operations, key=lambda operation: operation.layer):
            if operation.problem is None or _key(operation) in self._packed:
                continue
            if operation.problem.phases == 4:
                if operation.layer not in composed:
                    # Compositions are large in FP64; only one is kept while its variants, which are now neighbours, are
                    # packed.
                    composed = {operation.layer: self._compose(operation.layer)}
                self._packed[_key(operation)] = self._pack_upsampler(operation, composed[operation.layer])
            else:
                self._packed[_key(operation)] = self._pack(operation)

    def forget(self, recipe: QuantRecipe) -> None:
        """Give back the weights in the recipe's format of those layers that it keeps in 16 bits."""
        packed = [key for key in self._packed if key[2] == recipe.precision]
        for key in packed:
            if recipe.layer_precision(key[0])[0] != recipe.precision:
                del self._packed[key]

    def layer(self, operation: Operation) -> LayerWeights:
        """The packed weights of a convolution that was prepared."""
        return self._packed[_key(operation)]

    def norm(self, operation: Operation) -> NormOperands:
        """Parameters of the norm that prepares the input of `operation.layer`."""
        key = (operation.norm, operation.layer, operation.format)
        if key not in self._norms:
            weight = bias = inverse = None
            if operation.norm:
                weight, bias = (self._get(f"{operation.norm}.{name}").float() for name in ("weight", "bias"))
            smoothing = self._smooth(operation)
            if smoothing is not None:
                inverse = smoothing.reciprocal()
            # Normalised values have the model's size; others that of the tensor that is read.
            exponent = (0 if operation.norm else self.scaling.of(operation.source)) - self._input_exponent(operation)
            if exponent:
                ones = torch.ones(operation.size[2], device=self._device)
                inverse = (ones if inverse is None else inverse) * 2.0**exponent
            self._norms[key] = NormOperands(weight, bias, inverse)
        return self._norms[key]

    def is_smoothed(self, operation: Operation) -> bool:
        """Whether the layer's input is smoothed."""
        return operation.format == "int8" and operation.layer in self._amax

    def picture_bias(self) -> Tensor:
        """(3,) float32: the last convolution's bias, which is added when its taps are."""
        return self._get("decoder.conv_out.bias").float()

    def _get(self, name: str) -> Tensor:
        return self._tensors[name].detach().to(self._device)

    def _pack(self, operation: Operation) -> LayerWeights:
        assert operation.problem is not None
        weight, bias = self._conv(operation.layer)
        if operation.problem.kernel[0] == 1 and weight.shape[2] > 1:
            weight = fold_time(weight)
        elif operation.problem.paired:
            weight = pair_taps(weight)
        shortcut = None
        written = self.scaling.of(operation.target)
        if operation.shortcut:
            name = f"{operation.layer.rsplit('.', 1)[0]}.conv_shortcut"
            matrix = self._get(f"{name}.weight").flatten(1).double()
            matrix = matrix * 2.0 ** (self.scaling.of(operation.shortcut) - written)
            shortcut = matrix.to(DTYPES[operation.problem.output]).contiguous()
            bias = bias + self._get(f"{name}.bias").double()
        weight, bias = weight * 2.0 ** (self._read_exponent(operation) - written), bias * 2.0**-written
        return LayerWeights(pack_conv(weight, bias, operation.format, self._smooth(operation)), shortcut)

    def _input_exponent(self, operation: Operation) -> int:
        """Of the frames in the ring of a layer; 8-bit ones have exponents of their own."""
        return self.scaling.inputs.get(operation.layer, 0) if operation.format == "fp16" else 0

    def _read_exponent(self, operation: Operation) -> int:
        """Of what a convolution reads: a ring, or a buffer."""
        return self._input_exponent(operation) + self.scaling.of(operation.source)

    def _conv(self, layer: str) -> tuple[Tensor, Tensor]:
        """FP64 weight (Co, Ci, kt, kh, kw) and bias (Co,) of a convolution that is not an upsampler."""
        if layer.endswith(".to_qkv"):
            factors = {name: 2.0 ** -self.scaling.of(name) for name in _projections(layer)}
            matrix, bias = (
                torch.cat([self._get(f"{name}.{kind}").double() * factor for name, factor in factors.items()])
                for kind in ("weight", "bias")
            )
            return matrix[..., None, None, None], bias
        if layer.endswith(".to_out"):
            matrix, bias = self._get(f"{layer}.0.weight"), self._get(f"{layer}.0.bias")
            return matrix.double()[..., None, None, None], bias.double()
        weight, bias = self._get(f"{layer}.weight").double(), self._get(f"{layer}.bias").double()
        if layer == "encoder.conv_in":
            weight = unfolded_weight(weight)
        elif layer == "decoder.conv_out":
            weight, bias = folded_weight(weight), bias.new_zeros(WIDTH)
        return weight, bias

    def _compose(self, layer: str) -> ComposedUpsampler:
        upscale, conv = f"{layer}.upscale_conv", f"{layer}.conv"
        names = (f"{upscale}.weight", f"{upscale}.bias", f"{conv}.weight", f"{conv}.bias")
        return compose_upsampler(*(self._get(name).double() for name in names))

    def _pack_upsampler(self, operation: Operation, composed: ComposedUpsampler) -> LayerWeights:
        assert operation.problem is not None
        if self.is_smoothed(operation):
            self._smoothing.setdefault(
                operation.layer, self._factors(operation.layer, composed.later.abs().amax((0, 1, 2, 4, 5, 6)))
            )
        weight, bias = (composed.first, composed.first_bias) if operation.problem.kernel[0] == 1 else composed[2:]
        if operation.problem.paired:
            weight = pair_taps(weight)
        written = self.scaling.of(operation.target)
        weight, bias = weight * 2.0 ** (self._read_exponent(operation) - written), bias * 2.0**-written
        return LayerWeights(pack_sets(weight, bias, operation.format, self._smooth(operation)), None)

    def _smooth(self, operation: Operation) -> Tensor | None:
        """(C,) float32: what the layer's input channels are divided by; None where nothing is smoothed."""
        if not self.is_smoothed(operation):
            return None
        if operation.layer not in self._smoothing:
            weight, _ = self._conv(operation.layer)
            self._smoothing[operation.layer] = self._factors(operation.layer, weight.abs().amax((0, 2, 3, 4)))
        return self._smoothing[operation.layer]

    def _factors(self, layer: str, weight_amax: Tensor) -> Tensor:
        return smoothing_factors(self._amax[layer].to(self._device), weight_amax, SMOOTHING)


def _projections(layer: str) -> list[str]:
    """The layers whose rows stand below each other in an attention's first product."""
    return [layer.replace("to_qkv", name) for name in ("to_q", "to_k", "to_v")]


def _key(operation: Operation) -> tuple[str, int, str, str]:
    assert operation.problem is not None
    # A shortcut has the format of the tensor that it reads.
    return (
        operation.layer,
        operation.problem.kernel[0],
        operation.format,
        operation.problem.output if operation.shortcut else "",
    )
