"""The transformer's 8-bit formats: single products in several cuts, and whole velocities, on the GPU at hand.

    python -m benchmarks.dit_formats --json formats.json

Weights are random and full size. Errors are against FP32 with four layers; times are medians of whole calls.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.dit import CHECK_LAYERS, CHECK_SHAPE, SHAPES, inputs, measure, profile, relative_rms, show
from benchmarks.dit_parts import Run, milliseconds
from seedvr2_engine.bench.random_models import random_dit
from seedvr2_engine.engine.dit.fused import FusedDiT
from seedvr2_engine.engine.dit.quantized import DATA_TYPES, BlockFormat
from seedvr2_engine.engine.dit.weights import quantized
from seedvr2_engine.kernels.configs import ProductConfig
from seedvr2_engine.kernels.tokens import product_ends, reference, rows
from seedvr2_engine.models.dit.config import PUBLIC_3B, PUBLIC_7B, DiTConfig
from seedvr2_engine.pipeline.forecast import matrix_rate
from seedvr2_engine.quant.block_scaled import BLOCKS
from seedvr2_engine.quant.quantize import QuantizedTensor, quantize_rows

ROWS = 21_658
ROW_SCALED = {name: number for name, number in DATA_TYPES.items() if name not in BLOCKS}
"""What an H200 computes in fewer than 16 bits."""
CUTS = (
    ProductConfig(128, 256, 128, 8, 3, True),
    ProductConfig(128, 256, 128, 8, 4, True),
    ProductConfig(128, 256, 64, 8, 4, True),
    ProductConfig(128, 128, 128, 4, 4, True),
    ProductConfig(128, 128, 128, 8, 4, True),
    ProductConfig(64, 256, 128, 4, 4, True),
    ProductConfig(256, 128, 128, 8, 3, True),
    ProductConfig(128, 256, 128, 8, 3, False),
)


def products(config: DiTConfig) -> Iterator[tuple[str, float, Run]]:
    """Name, operations and launch of every product of a layer in every way."""
    width, inner, mlp = config.width, config.attention_width, config.mlp_width
    shapes = {"qkv": (width, 3 * inner), "out": (inner, width), "gate and up": (width, 2 * mlp), "down": (mlp, width)}
    for name, (depth, columns) in shapes.items():
        x = torch.randn(ROWS, depth, device="cuda", dtype=torch.bfloat16)
        w = torch.randn(columns, depth, device="cuda", dtype=torch.bfloat16) * depth**-0.5
        out = x.new_empty(ROWS, columns)
        flop = 2.0 * ROWS * depth * columns
        yield f"{name}, bf16", flop, partial(torch.mm, x, w.t(), out=out)
        for label, dtype in ROW_SCALED.items():
            a = QuantizedTensor(torch.empty_like(x, dtype=dtype), x.new_empty(ROWS, dtype=torch.float32))
            rows.quantize_rows(x, "none", a)
            b = quantize_rows(w.float(), dtype)
            if label == "fp8":
                scales = a.scale[:, None], b.scale[None, :]
                yield (
                    f"{name}, fp8, PyTorch",
                    flop,
                    partial(
                        torch._scaled_mm, a.data, b.data.t(), *scales, out_dtype=out.dtype, use_fast_accum=True, out=out
                    ),
                )
            for cut in CUTS:
                yield (
                    f"{name}, {label}, {tuple(cut)}",
                    flop,
                    _Checked(partial(product_ends.multiply, a, b, None), out, cut),
                )


class _Checked:
    """A product whose first result must be right."""

    def __init__(self, run: Any, out: Tensor, cut: ProductConfig) -> None:
        self._run, self._out, self._cut = run, out, cut
        self._is_checked = False

    def __call__(self) -> None:
        self._run(self._out, self._cut)
        if not self._is_checked:
            self._is_checked = True
            a, b, _ = self._run.args
            few = QuantizedTensor(a.data[-300:], a.scale[-300:])
            expected = torch.empty_like(self._out[-300:])
            reference.multiply(few, b, None, expected, None)
            error = relative_rms(self._out[-300:], expected)
            if not error < 5e-3:
                raise ValueError(f"WRONG, error {error:.1e}")


def check(config: DiTConfig) -> dict[str, float]:
    """Error of each format against FP32, with few layers of full width; and whether runs are equal."""
    separate = CHECK_LAYERS // (2 if config.family == "3b" else 1)
    small = replace(config, layers=CHECK_LAYERS, separate_layers=separate)
    torch.manual_seed(0)
    plain = random_dit(small, torch.device("cuda"), torch.bfloat16)
    video, text = inputs(small, CHECK_SHAPE, torch.device("cuda"))
    with torch.no_grad():
        results = {"bf16": [FusedDiT(plain)(video, text, 1000.0)]}
        for label in ROW_SCALED:
            dit = FusedDiT(quantized(plain, [BlockFormat.all_in(label)] * small.layers))
            results[label] = [dit(video, text, 1000.0) for _ in range(3)]
        expected = plain.float()(video, text, 1000.0)
    found = {label: relative_rms(outs[0], expected) for label, outs in results.items()}
    same = all(torch.equal(outs[0], other) for outs in results.values() for other in outs)
    print(config.family, {k: f"{v:.2e}" for k, v in found.items()}, "runs equal" if same else "runs DIFFER", flush=True)
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--skip-products", action="store_true")
    parser.add_argument("--families", nargs="*", default=["3b", "7b"])
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    rate = matrix_rate(torch.device("cuda"), torch.bfloat16)
    for name, flop, run in () if arguments.skip_products else products(PUBLIC_3B):
        try:
            ms = milliseconds(run)
        except Exception as error:
            print(f"  {name}: {type(error).__name__} {str(error).splitlines()[0][:100]}", flush=True)
            continue
        results[name] = ms
        print(f"  {name:58} {ms:7.3f} ms {flop / ms / 1e9:6.0f} TFLOP/s", flush=True)
    for family in arguments.families:
        config = PUBLIC_3B if family == "3b" else PUBLIC_7B
        results[f"{family} errors"] = check(config)
        torch.manual_seed(0)
        plain = random_dit(config, torch.device("cuda"), torch.bfloat16)
        models = {"bf16": FusedDiT(plain)}
        for label in ROW_SCALED:
            models[label] = FusedDiT(quantized(plain, [BlockFormat.all_in(label)] * config.layers))
        for shape_name, shape in SHAPES.items():
            for label, dit in models.items():
                row = measure(dit, shape, rate, repeats=7)
                results[f"{family} {shape_name} {label}"] = row
                show(f"{family} {shape_name} {label}", row)
        profile(models["fp8"], SHAPES["720p, 21 frames"], 12)
        print(
            "weights",
            {
                k: f"{d.resident_bytes / 1e9 + sum(p.nbytes for p in d.parameters() if not p.is_meta) / 1e9:.2f} GB"
                for k, d in models.items()
            },
        )
        if family == "7b":
            for label in ROW_SCALED:
                del models[label]
                offloaded = FusedDiT(quantized(plain, [BlockFormat.all_in(label)] * config.layers, offload=True))
                row = measure(offloaded, SHAPES["720p, 21 frames"], rate, repeats=5)
                show(f"{family} 720p {label}, blocks on the host", row)
                results[f"{family} offloaded {label}"] = row
                del offloaded
        del plain, models
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
