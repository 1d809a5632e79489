"""What computes between a transformer's matrix products: the Triton kernels, or their FP32 references anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InvalidArgumentError
from ...kernels.configs import ProductConfig, ProductEnd, Refusal, WindowConfig
from ...kernels.dispatch import choose_end_config, choose_product_config
from ...kernels.tokens import reference
from ...kernels.tokens.operands import Activation, EightBitQKV, GatedSum, JoinStep, Operand, Placement, TokenStep
from ...quant.quantize import BlockScaledTensor, QuantizedTensor
from .quantized import Quantized, format_of

QKV = tuple[Tensor, Tensor, Tensor]
Parts = tuple[Tensor | None, Tensor | None, Tensor | None]


class StepTokens(Protocol):
    """A gated change is added to tokens, which are then normalised."""

    def __call__(self, x: Tensor, step: TokenStep, *, kept: Tensor | None, out: Operand | None) -> None: ...


class TokenBackend(NamedTuple):
    """The passes of the fused transformer; `kernels.tokens.reference` says what each computes."""

    name: str
    step_tokens: StepTokens
    join_parts: Callable[[Tensor, JoinStep, Parts], None]
    collect_rows: Callable[[Tensor, Placement, Tensor], None]
    gate_silu: Callable[[Tensor, Tensor], None]
    attend_windows: Callable[[QKV, Tensor, Tensor, Tensor, WindowConfig], None]
    join_parts_8bit: Callable[[Tensor, JoinStep, EightBitQKV], None]
    attend_windows_8bit: Callable[[EightBitQKV, Tensor, Tensor, Tensor, WindowConfig], None]
    project_gelu: Callable[[Tensor, Tensor, Tensor, Tensor], None]
    """x, weight, bias -> out: a linear layer and GELU in its tanh form."""
    quantize_rows: Callable[[Tensor, Activation, Quantized], None]
    multiply: Callable[[Quantized, Quantized, Tensor | None, Tensor], None]
    """x, weight, bias -> out: a linear layer in 8 or 4 bits."""
    adds: Callable[[str, torch.device], bool]
    """Whether products in a format take the gated sum after them along, on a device."""
    add_product: Callable[[Quantized, Quantized, Tensor | None, GatedSum, Tensor], None]
    """x, weight, bias, end -> out, which may be the tokens that are added to."""
    gates: Callable[[str, torch.device], bool]
    """Whether products in a format take the gate's SiLU after them along, on a device."""
    multiply_gated: Callable[[Quantized, Quantized, Tensor], None]
    """x, weight of gate and up -> out."""
    compile: Callable[[Iterable[Callable[[], object]]], None]
    """Compiles what calls of the functions above need, side by side, and runs none of it but `project_gelu`."""


def reference_tokens() -> TokenBackend:
    """The FP32 references: slow, and independent of any GPU."""
    return TokenBackend(
        "reference",
        reference.step_tokens,
        reference.join_parts,
        reference.collect_rows,
        reference.gate_silu,
        reference.attend_windows,
        reference.join_parts_8bit,
        reference.attend_windows_8bit,
        _project_gelu,
        reference.quantize_rows,
        lambda x, weight, bias, out: reference.multiply(x, weight, bias, out, None),
        lambda format, device: False,
        lambda x, weight, bias, end, out: reference.add_product(x, weight, bias, end, out, None),
        lambda format, device: False,
        lambda x, weight, out: reference.multiply_gated(x, weight, out, None),
        lambda calls: None,
    )


def triton_tokens(sm: str | None = None) -> TokenBackend:
    """The kernels; raises ImportError where Triton is missing. sm: of the GPU; None asks the one at hand."""
    from ...kernels import launch
    from ...kernels.attention import windows, windows_8bit
    from ...kernels.packed.using import use_packed_kernels
    from ...kernels.tokens import gates, joint, rows

    use_packed_kernels()

    return TokenBackend(
        "Triton",
        gates.step_tokens,
        joint.join_parts,
        joint.collect_rows,
        gates.gate_silu,
        windows.attend_windows,
        windows_8bit.join_parts_8bit,
        windows_8bit.attend_windows_8bit,
        _project_gelu_in_epilogue if torch.cuda.is_available() else _project_gelu,
        rows.quantize_rows,
        partial(_multiply, sm=sm),
        lambda format, device: _end(format, device, "sum", sm) is not None,
        partial(_add_product, sm=sm),
        lambda format, device: _end(format, device, "gate", sm) is not None,
        partial(_multiply_gated, sm=sm),
        launch.compile_ahead,
    )


def _project_gelu(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    out.copy_(F.gelu(F.linear(x, weight, bias), approximate="tanh"))


def _project_gelu_in_epilogue(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    # On a GPU this is cuBLAS's epilogue, which has the tanh form; on the CPU it would be the exact one.
    torch._addmm_activation(bias, x, weight.t(), use_gelu=True, out=out)


def _here(device: torch.device) -> str:
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device)) if device.type == "cuda" else "sm_89"


def _end(format: str, device: torch.device, end: ProductEnd, sm: str | None) -> ProductConfig | None:
    return choose_end_config(format, end, sm or _here(device))


def _add_product(
    x: Quantized, weight: Quantized, bias: Tensor | None, end: GatedSum, out: Tensor, sm: str | None = None
) -> None:
    from ...kernels.tokens import product_ends

    config = _end(format_of(x), x.data.device, "sum", sm)
    assert isinstance(x, QuantizedTensor)
    assert isinstance(weight, QuantizedTensor)
    assert config is not None
    product_ends.add_product(x, weight, bias, end, out, config)


def _multiply_gated(x: Quantized, weight: Quantized, out: Tensor, sm: str | None = None) -> None:
    from ...kernels.tokens import product_ends

    config = _end(format_of(x), x.data.device, "gate", sm)
    assert isinstance(x, QuantizedTensor)
    assert isinstance(weight, QuantizedTensor)
    assert config is not None
    product_ends.multiply_gated(x, weight, out, config)


def _multiply(x: Quantized, weight: Quantized, bias: Tensor | None, out: Tensor, sm: str | None = None) -> None:
    from ...kernels.tokens import product_blocks, product_ends

    config = choose_product_config(format_of(x), sm or _here(x.data.device))
    if isinstance(config, Refusal):
        raise InvalidArgumentError(f"{config.reason}; choose another precision.")
    if isinstance(x, BlockScaledTensor) and isinstance(weight, BlockScaledTensor) and config is not None:
        product_blocks.multiply(x, weight, bias, out, config)
        return
    assert isinstance(x, QuantizedTensor)
    assert isinstance(weight, QuantizedTensor)
    if config is not None:
        product_ends.multiply(x, weight, bias, out, config)
        return
    if out.is_meta:  # What is only compiled for: PyTorch has no such product there.
        return
    # cuBLASLt takes scales from a multiple of 16 bytes on, where a part of a tensor need not begin, and gives BF16.
    scale = x.scale if x.scale.data_ptr() % 16 == 0 else x.scale.clone()
    result = out if out.dtype == torch.bfloat16 else torch.empty_like(out, dtype=torch.bfloat16)
    torch._scaled_mm(
        x.data, weight.data.t(), scale[:, None], weight.scale[None, :], bias=bias, out_dtype=result.dtype,
        use_fast_accum=True, out=result,
    )  # fmt: skip
    if result is not out:
        out.copy_(result)
