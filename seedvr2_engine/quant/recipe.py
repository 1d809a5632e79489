"""What is quantised, to which format, and which layers are not, with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..errors import InvalidArgumentError

Precision = Literal["fp8", "mxfp8", "int8", "fp16", "bf16"]
EIGHT_BIT: tuple[Precision, ...] = ("fp8", "mxfp8", "int8")
PRECISIONS: tuple[Precision, ...] = (*EIGHT_BIT, "fp16", "bf16")

ALWAYS_16_BIT: Mapping[str, str] = {
    "encoder.conv_in": "three input channels: nothing to gain",
    "encoder.conv_out": "its output is the latent itself",
    "decoder.conv_in": "16 input channels: nothing to gain",
    "decoder.conv_out": "its output is the picture itself; in FP8 it costs 10 dB",
}
"""Convolutions that every recipe keeps in 16 bits, and why."""


@dataclass(frozen=True)
class QuantRecipe:
    """The number format of every convolution of a VAE."""

    precision: Precision
    """Format of the inputs and weights of the convolutions."""
    format_16_bit: Literal["fp16", "bf16"] = "fp16"
    """Format of the layers that are kept in 16 bits, and of the tensors between the layers."""
    kept_in_16_bits: Mapping[str, str] = field(default_factory=lambda: dict(ALWAYS_16_BIT))
    """Name of a convolution, or of a block with all its convolutions -> why it is kept in 16 bits."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InvalidArgumentError(f"precision: expected one of {', '.join(PRECISIONS)}, got {self.precision!r}.")

    @property
    def is_quantized(self) -> bool:
        """Whether any layer is computed in 8 bits."""
        return self.precision in EIGHT_BIT

    def layer_precision(self, name: str) -> tuple[Precision, str]:
        """The format of the convolution `name` (such as `decoder.up_blocks.3.resnets.0.conv1`), and the reason."""
        if not self.is_quantized:
            return self.precision, "nothing is quantised"
        for kept, reason in self.kept_in_16_bits.items():
            if name == kept or name.startswith(kept + "."):
                return self.format_16_bit, reason
        return self.precision, "the recipe's format"

    def keeping_in_16_bits(self, name: str, reason: str) -> "QuantRecipe":
        """The same recipe with one more layer or block kept in 16 bits."""
        return QuantRecipe(self.precision, self.format_16_bit, {**self.kept_in_16_bits, name: reason})
