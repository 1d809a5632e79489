"""The transformer's kernels in 8 and 4 bits against their FP32 references, with the widths of the public models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ..engine.dit.backend import TokenBackend, reference_tokens
from ..engine.dit.quantized import DATA_TYPES, Quantized, dequantize, quantize
from ..kernels.configs import MatrixFormat, ProductConfig
from ..kernels.dispatch import choose_product_config
from ..kernels.tokens.operands import Activation, StreamVectors, TokenStep
from ..models.dit.config import PUBLIC_3B, PUBLIC_7B
from ..models.precision import exact_float32
from ..quant.block_scaled import BLOCKS
from ..quant.quantize import BlockScaledTensor, QuantizedTensor
from .kernel_checks import PRODUCT_TOLERANCES, TOLERANCES, Check, Outcome, relative_rms, verdict

ROWS = 77
"""No multiple of a tile."""
COLUMNS = 272
"""Of a product: no multiple of a tile either, and of 16, as PyTorch's own products want it."""
WIDTHS = ((PUBLIC_3B.width, PUBLIC_3B.mlp_width), (PUBLIC_7B.width, PUBLIC_7B.mlp_width))
"""Of tokens, and inside the MLP."""
ROUNDING = {"fp8": 1e-2, "int8": 1e-2, "mxfp8": 1e-2, "nvfp4": 5e-2}
"""Largest relative RMS error of rows: values near the middle of a step fall to either side, and a step of NVFP4 is up
to a third of a value."""


@dataclass(frozen=True)
class TokenCheck:
    """One kernel in one configuration."""

    name: str
    """Which."""
    format: MatrixFormat
    """Number format."""
    width: int
    """Channels of a row that goes in."""
    config: str
    """How it cuts its work."""
    limit: float
    """Largest relative RMS error."""
    run: Callable[[TokenBackend], Tensor] = field(repr=False)
    """Computes it from numbers that are always the same -> float32."""

    def check(self, backend: TokenBackend) -> Check:
        """Whatever goes wrong becomes a sentence of the result."""
        error, wrong = None, ""
        try:
            with exact_float32(), torch.no_grad():
                first, second = self.run(backend), self.run(backend)
                outcome = Outcome(first, self.run(reference_tokens()), self.limit)
                error = relative_rms(outcome.actual, outcome.expected)
                wrong = verdict(outcome, error) or ("" if torch.equal(first, second) else "two runs differ")
        except Exception as failure:  # Whatever a compiler or a driver raises is a finding here, not an end.
            wrong = f"does not run: {type(failure).__name__}: {(str(failure).splitlines() or [''])[0][:200]}"
        return Check(f"transformer, {self.width} wide", self.name, self.format, self.config, error, wrong)


def check_tokens(
    sm: str, formats: Sequence[MatrixFormat], backend: TokenBackend, device: torch.device
) -> Iterator[Check]:
    """Check rows and products in each of these formats: compile all, then run one by one."""
    checks = list(token_checks(sm, formats, device))
    backend.compile([partial(_quietly, check, backend) for check in checks])
    for check in checks:
        yield check.check(backend)


def token_checks(
    sm: str,
    formats: Sequence[MatrixFormat],
    device: torch.device,
    widths: Sequence[tuple[int, int]] = WIDTHS,
) -> Iterator[TokenCheck]:
    """What is checked; widths: of tokens, and inside the MLP."""
    for format in formats:
        limit = ROUNDING[format]
        activations: tuple[Activation, ...] = ("none", "gated silu", "gelu")
        for width, mlp_width in widths:
            yield TokenCheck("step", format, width, "", limit, partial(_step, format, width, device))
            for activation in activations:
                inside = width if activation == "none" else mlp_width
                run = partial(_rows, format, activation, inside, device)
                yield TokenCheck(f"rows, {activation}", format, inside, "", limit, run)
            for depth in (width, mlp_width):
                for has_bias in (False, True):
                    yield TokenCheck(
                        "product, bias" if has_bias else "product",
                        format,
                        depth,
                        _described(choose_product_config(format, sm)),
                        PRODUCT_TOLERANCES.get(format, TOLERANCES[torch.bfloat16]),
                        partial(_product, format, depth, has_bias, device),
                    )


def _described(config: object) -> str:
    if not isinstance(config, ProductConfig):
        return "PyTorch's"
    return f"{config.block_m}x{config.block_n}x{config.block_k}"


def _quietly(check: TokenCheck, backend: TokenBackend) -> None:
    try:
        check.run(backend)
    except Exception:
        return  # The check says it.


def _room(rows: int, width: int, format: MatrixFormat, device: torch.device) -> Quantized:
    """Poisoned, so that what is not written shows."""
    number = DATA_TYPES[format]
    data = torch.full((rows, width // (2 if format == "nvfp4" else 1)), 0x7F, dtype=torch.uint8, device=device)
    scale = torch.full((rows,), float("nan"), device=device)
    if format not in BLOCKS:
        return QuantizedTensor(data.view(number), scale)
    blocks = torch.full((rows, width // BLOCKS[format]), 0xFF, dtype=torch.uint8, device=device)
    return BlockScaledTensor(data.view(number), scale, blocks)


def _random(*shape: int, seed: int, device: torch.device) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator(device).manual_seed(seed), device=device)


def _rows(
    format: MatrixFormat, activation: Activation, width: int, device: torch.device, backend: TokenBackend
) -> Tensor:
    x = 4 * _random(ROWS, width * (2 if activation == "gated silu" else 1), seed=0, device=device).bfloat16()
    out = _room(ROWS, width, format, device)
    backend.quantize_rows(x, activation, out)
    return dequantize(out)


def _step(format: MatrixFormat, width: int, device: torch.device, backend: TokenBackend) -> Tensor:
    """A gated change, a norm and a modulation, then rounding; the last eleven rows are text."""
    x, change = (_random(ROWS, width, seed=seed, device=device).bfloat16() for seed in (1, 2))
    gate, scale, shift = (StreamVectors(*_random(2, width, seed=seed, device=device)) for seed in (3, 4, 5))
    out = _room(ROWS, width, format, device)
    backend.step_tokens(x, TokenStep(ROWS - 11, change, gate, scale, shift), kept=torch.empty_like(x), out=out)
    return dequantize(out)


def _product(format: MatrixFormat, depth: int, has_bias: bool, device: torch.device, backend: TokenBackend) -> Tensor:
    x = quantize(_random(ROWS, depth, seed=6, device=device), format)
    weight = quantize(_random(COLUMNS, depth, seed=7, device=device) * depth**-0.5, format)
    bias = _random(COLUMNS, seed=8, device=device).bfloat16() if has_bias else None
    out = torch.full((ROWS, COLUMNS), float("nan"), dtype=torch.bfloat16, device=device)
    backend.multiply(x, weight, bias, out)
    return out.float()
