"""Which tensors are stored as 2^-exponent of themselves, because FP16 would overflow.

Whatever reads such a tensor either normalises it, for which the epsilon shrinks by 2^(-2 exponent), or is linear in it.
Multiplying by powers of two is exact, so the engine computes what it would with more range, bit for bit. A plan's
buffers have their exponents one by one: all layers that add to one stream write the same buffer, and those that begin
another one (the resampling layers and resnets with a shortcut) carry the difference in their weights.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from math import ceil, inf, isfinite, log2
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...device import DeviceSpec
from ...models.vae.blocks import FrameAttention, Resnet, Upsample
from ...models.vae.causal import CausalConv3d
from ...models.vae.config import VAEConfig
from ...models.vae.model import VideoVAE
from ...plan import VAEShape, compile_vae_plan
from ...plan.execution_plan import Operation, Part
from ...quant import QuantRecipe
from .sample_clips import sample_clips

FP16_LARGEST = 65504
MARGIN = 16
"""How many times larger than on the small clips a tensor may become before FP16 overflows."""
_ENOUGH = 16
"""What the largest value of an input that is scaled at all is brought down to. The weights of such a layer are small,
and below 6e-5 FP16 rounds coarsely; they grow by what the input shrinks."""
_ANY_PX = 64
"""Edge of the pictures of the plan that is asked for its buffers; they do not depend on it."""


@dataclass(frozen=True)
class PowerOfTwoScaling:
    """Exponents that are not 0, which is nothing at all for most weights."""

    tensors: Mapping[str, int] = field(default_factory=dict)
    """Of what stands between the layers, by the name of the plan's buffer. The three projections of an attention, which
    share a buffer, by the layer's name (such as `decoder.mid_block.attentions.0.to_v`)."""
    inputs: Mapping[str, int] = field(default_factory=dict)
    """Of the frames that a convolution reads, where it is computed in FP16, by its name; 8-bit frames have exponents of
    their own."""
    largest: float = 0.0
    """The largest magnitude that was seen in one of these tensors."""

    def of(self, name: str) -> int:
        """The exponent of a tensor between the layers."""
        return self.tensors.get(name, 0)

    def describe(self) -> str:
        """One line for people; empty where every exponent is 0."""
        exponents = sorted({*self.tensors.values(), *self.inputs.values()})
        if not exponents:
            return ""
        counts = [(len(self.tensors), "tensor", "between the layers"), (len(self.inputs), "input", "of layers in FP16")]
        named = [f"{count} {noun}{'s' if count > 1 else ''} {where}" for count, noun, where in counts if count]
        powers = " to ".join(f"2^{-exponent}" for exponent in (exponents[-1], *exponents[:-1][:1]))
        verb, owner = ("is", "itself") if len(self.tensors) + len(self.inputs) == 1 else ("are", "themselves")
        return (
            f"{' and '.join(named)} {verb} stored as {powers} of {owner}: FP16 ends at {FP16_LARGEST}, "
            f"and with these weights tensors reach {self.largest:.3g} on small clips"
        )


class Extremes(NamedTuple):
    """The largest magnitudes of a module's tensors; what is not finite counts as infinite."""

    input: float
    output: float


def measure_scaling(vae: VideoVAE, spec: DeviceSpec, clips: Tensor | None = None) -> PowerOfTwoScaling:
    """The exponents for a VAE, from one reconstruction of small clips, where the model is.

    clips (N, 3, 4n+1, H, W) in [-1, 1]; None is the first frame of each of `sample_clips()`. A model in 16 bits that
    overflows itself is measured in FP32.
    """
    clips = sample_clips()[:, :, :1] if clips is None else clips
    extremes = module_extremes(vae, clips)
    if vae.dtype != torch.float32 and not all(isfinite(value) for pair in extremes.values() for value in pair):
        extremes = module_extremes(deepcopy(vae).float(), clips)
    return choose_scaling(extremes, plan_operations(vae.config, spec))


def choose_scaling(extremes: Mapping[str, Extremes], operations: Iterable[Operation]) -> PowerOfTwoScaling:
    """The exponents that leave each tensor `MARGIN` times the room that it needs.

    extremes: by the modules' names. steps: those of an FP16 plan for every direction, whose layers these are.
    """
    tensors: dict[str, float] = {}
    inputs: dict[str, float] = {}
    copied: dict[str, str] = {}
    reached: list[float] = []
    exponents: dict[str, int] = {}
    for operation in operations:
        layer = operation.layer
        if operation.kernel == "attention":
            q, k, v = (extremes[f"{layer}.{name}"].output for name in ("to_q", "to_k", "to_v"))
            tensors |= {f"{layer}.to_v": v, operation.target: v}
            projected = max(q, k)
            # Only products of the two count, so what the one loses the other gains.
            shift = round(log2(q / k) / 2) if smallest_exponent(projected) and min(q, k) > 0 else 0
            reached.append(projected)
            exponents |= {f"{layer}.to_q": shift, f"{layer}.to_k": -shift}
        elif operation.kernel == "norm" and not operation.norm:
            copied[layer] = operation.source
        elif operation.kernel == "norm":
            inputs[layer] = extremes[layer.replace("to_qkv", "to_q")].input
        elif operation.problem is not None and operation.problem.output != "fp32" and not layer.endswith(".to_qkv"):
            # A stream's last addition is the module's: `conv2` of a resnet, `to_out` of an attention.
            written = extremes[layer.removesuffix(".conv2").removesuffix(".to_out")].output
            tensors[operation.target] = max(written, tensors.get(operation.target, 0.0))
    exponents |= {name: smallest_exponent(value) for name, value in tensors.items()}
    read = {name: ceil(log2(value / _ENOUGH)) for name, value in inputs.items() if smallest_exponent(value)}
    read |= {layer: exponents[buffer] for layer, buffer in copied.items()}
    loud = [value for value in (*tensors.values(), *inputs.values(), *reached) if smallest_exponent(value)]
    return PowerOfTwoScaling(_not_0(exponents), _not_0(read), max(loud, default=0.0))


def smallest_exponent(largest: float) -> int:
    """The smallest one, not below 0, with largest * MARGIN * 2^-exponent within FP16; 0 for what is not finite."""
    share = largest * MARGIN / FP16_LARGEST
    return ceil(log2(share)) if 1 < share < inf else 0


@torch.no_grad()
def module_extremes(vae: VideoVAE, clips: Tensor) -> dict[str, Extremes]:
    """Module -> the largest magnitudes of its input and output while these clips are encoded and decoded."""
    found: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def record(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            pair = torch.stack([torch.stack(x.detach().aminmax()).abs().amax() for x in (inputs[0], output)]).float()
            found[name] = torch.maximum(pair, found.get(name, pair))

        return record

    measured = (Resnet, FrameAttention, Upsample, CausalConv3d, nn.Linear)
    handles = [
        module.register_forward_hook(recorder(name))
        for name, module in vae.named_modules()
        if isinstance(module, measured)
    ]
    try:
        vae.decode(vae.encode(clips))
    finally:
        for handle in handles:
            handle.remove()
    # One wait for the GPU instead of one for each module.
    values = torch.stack(list(found.values())).nan_to_num(nan=inf, posinf=inf).tolist()
    return {name: Extremes(*pair) for name, pair in zip(found, values, strict=True)}


def plan_operations(config: VAEConfig, spec: DeviceSpec) -> list[Operation]:
    """The operations of an FP16 plan for each direction."""
    parts: tuple[Part, ...] = ("decode", "encode")
    recipe = QuantRecipe("fp16")
    shapes = [VAEShape(part, _ANY_PX, _ANY_PX) for part in parts]
    return [
        operation
        for shape in shapes
        for operation in compile_vae_plan(config, recipe, spec, shape, 1 << 62).first.operations
    ]


def _not_0(exponents: Mapping[str, int]) -> dict[str, int]:
    return {name: exponent for name, exponent in exponents.items() if exponent}
