"""Attention of 512 dimensions on the GPU at hand: errors against FP32, then the clock.

    python benchmarks/attention.py --seconds 55

A configuration whose result is wrong, or differs from run to run, gets no time; nor does one that overlaps and has
other bits than the same blocks in turn, anywhere. Errors are of 256 queries of each length: against FP32, and against
the reference, which multiplies the same 8-bit numbers.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seedvr2_engine.device import DeviceSpec
from seedvr2_engine.kernels import reference
from seedvr2_engine.kernels.attention import eight_bit, flash, quantize
from seedvr2_engine.kernels.configs import AttentionConfig, Format, Refusal
from seedvr2_engine.kernels.conv.operands import AttentionOperands
from seedvr2_engine.kernels.dispatch import choose_attention_config, choose_attention_format
from seedvr2_engine.kernels.layout import attention_bytes, attention_operands
from seedvr2_engine.plan.gpus import device_spec

DIM = 512
LENGTHS = (14_400, 32_640, 129_600)
LIMIT = 3e-2
"""Largest relative RMS error against the reference. Hopper adds FP8 products up with about 14 bits."""


@dataclass(frozen=True)
class Variant:
    """One way to compute it in 8 bits."""

    format: Format
    config: AttentionConfig

    @property
    def name(self) -> str:
        """For the table."""
        return describe(self.format, self.config)


def describe(format: Format, config: AttentionConfig) -> str:
    tile = f"{config.block_m}x{config.block_n}x{config.block_v}"
    return f"{format} {tile}, {config.warps} warps, {config.stages} stages{', overlapping' if config.overlaps else ''}"


def variants(spec: DeviceSpec) -> list[Variant]:
    """What the heuristics choose, its neighbours, and scores in the other format."""
    format = choose_attention_format("fp8", DIM, spec)
    if isinstance(format, Refusal):
        return []
    chosen = choose_attention_config(DIM, spec, format)
    assert not isinstance(chosen, Refusal)
    in_turn: dict[str, Any] = {"overlaps": False}
    changes: list[dict[str, Any]] = [
        {},
        in_turn,
        {"stages": chosen.stages - 1},
        {"block_n": 32, "stages": chosen.stages + 2},
        {"block_m": 64, "block_n": 32, "warps": 4, "stages": 3},
        {"block_m": 64, "block_v": 512} | in_turn,
        {"block_n": 128, "stages": 1} | in_turn,
    ]
    found = [Variant(format, replace(chosen, **change)) for change in changes]
    return list(dict.fromkeys([*found, Variant("fp8", chosen)]))


def make_qkv(length: int, gain: float) -> Tensor:
    """Logits of standard deviation `gain`; keys and values have offsets that all tokens share."""
    generator = torch.Generator("cuda").manual_seed(length)
    qkv = torch.randn(1, length, 3 * DIM, generator=generator, device="cuda")
    offset = torch.randn(2, DIM, generator=generator, device="cuda") * 2
    qkv[..., : 2 * DIM] *= gain**0.5
    qkv[..., DIM : 2 * DIM] += offset[0]
    # More would only show how coarse the output's FP16 is.
    qkv[..., 2 * DIM :] += 0.005 * offset[1]
    return qkv.half()


class Case:
    """Tensors of one length."""

    def __init__(self, length: int, gain: float = 1.0) -> None:
        self.length = length
        self.qkv = make_qkv(length, gain)
        self.rows = torch.arange(0, length, max(1, length // 256), device="cuda")[:256]
        q, k, v = self.qkv.float().chunk(3, dim=-1)
        self.exact = (q[0, self.rows] @ k[0].T * DIM**-0.5).softmax(-1) @ v[0]
        self.made: dict[tuple[Format, bool], AttentionOperands] = {}

    def operands(self, variant: Variant) -> AttentionOperands:
        kind = variant.format, variant.config.overlaps
        if kind not in self.made:
            self.made[kind] = self.empty(variant.format)
            quantize.quantize_attention(self.qkv, self.made[kind], variant.config)
        return self.made[kind]

    def empty(self, format: Format) -> AttentionOperands:
        memory = torch.full((attention_bytes(self.length, DIM),), 0xFF, dtype=torch.uint8, device="cuda")
        return attention_operands(memory, self.length, DIM, format)

    def output(self) -> Tensor:
        return torch.full((1, self.length, DIM), float("nan"), dtype=torch.float16, device="cuda")

    def check(self, variant: Variant) -> tuple[float, float, bool]:
        """Error against FP32, error against the reference, and whether two runs and both ways have the same bits."""
        operands, ys = self.operands(variant), [self.output() for _ in "ab"]
        for y in ys:
            eight_bit.attend_8bit(operands, y, variant.config)
        same = torch.equal(*ys)
        if variant.config.overlaps:
            in_turn = replace(variant, config=replace(variant.config, overlaps=False))
            eight_bit.attend_8bit(self.operands(in_turn), ys[1], in_turn.config)
            same = same and torch.equal(*ys)
        some = operands._replace(q=operands.q[:, self.rows], q_scale=operands.q_scale[:, self.rows])
        expected = torch.empty(1, len(self.rows), DIM, device="cuda")
        reference.attend_8bit(some, expected, variant.config)
        actual = ys[0][0, self.rows].float()
        return relative(actual, self.exact), relative(actual, expected[0]), same


def relative(actual: Tensor, expected: Tensor) -> float:
    centred = expected - expected.mean(0)
    return ((actual - expected).norm() / centred.norm()).item()


def milliseconds(run: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for i in range(repeats + 1):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        if i:
            times.append(begin.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def show(name: str, length: int, ms: float, note: str = "") -> None:
    print(f"{length:7} {name:56} {ms:8.3f} ms {4 * DIM * length**2 / ms / 1e9:6.0f} TFLOP/s  {note}", flush=True)


def check_prepared(case: Case, variant: Variant) -> None:
    """The preparation against its reference, and its time."""
    actual, again, expected = (case.empty(variant.format) for _ in range(3))
    quantize.quantize_attention(case.qkv, actual, variant.config)
    quantize.quantize_attention(case.qkv, again, variant.config)
    reference.quantize_attention(case.qkv, expected, variant.config)
    names = AttentionOperands._fields[:-1]
    pairs = {name: (getattr(actual, name).float(), getattr(expected, name).float()) for name in names}
    errors = ", ".join(f"{name} {((a - b).norm() / b.norm()).item():.0e}" for name, (a, b) in pairs.items())
    same = all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(actual, again, strict=True))
    ms = milliseconds(lambda: quantize.quantize_attention(case.qkv, actual, variant.config))
    print(
        f"{case.length:7} prepared in {ms:.3f} ms; reference: {errors}; two runs {'equal' if same else 'DIFFER'}",
        flush=True,
    )


def measure_16_bit(case: Case, spec: DeviceSpec) -> None:
    """The exact kernel, and PyTorch's, which has no flash kernel for 512 dimensions."""
    chosen = choose_attention_config(DIM, spec)
    assert not isinstance(chosen, Refusal)
    y = case.output()
    q, k, v = (part[:, None] for part in case.qkv.chunk(3, dim=-1))
    try:
        show("PyTorch", case.length, milliseconds(partial(F.scaled_dot_product_attention, q, k, v), 2))
    except torch.cuda.OutOfMemoryError as error:
        print(f"{case.length:7} PyTorch: {str(error).splitlines()[0]}")
    for config in (chosen, replace(chosen, stages=1, block_n=2 * chosen.block_n)):
        flash.attend(case.qkv, y, config)
        error = relative(y[0, case.rows].float(), case.exact)
        ms = milliseconds(partial(flash.attend, case.qkv, y, config), 2)
        show(describe("fp16", config), case.length, ms, f"FP32 {error:.1e}")


def compile_in_parallel(count: int) -> dict[int, str]:
    """Compile all variants at once, for the cache's sake; what is wrong with those that do not run."""
    command = [sys.executable, __file__, "--only"]
    workers = [subprocess.Popen([*command, str(i)], stderr=subprocess.PIPE, text=True) for i in range(count)]
    logs = [worker.communicate()[1] for worker in workers]
    return {i: (logs[i].strip().splitlines() or ["?"])[-1][:150] for i in range(count) if workers[i].returncode}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=55.0, help="begin nothing new after this long")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    begin = time.monotonic()
    torch.backends.cuda.matmul.allow_tf32 = False
    spec = device_spec(torch.device("cuda"))
    found = variants(spec)
    if arguments.only is not None:
        Case(1000).check(found[arguments.only])
        return
    print(f"{spec.name}, {spec.sm}, PyTorch {torch.__version__}")
    broken = compile_in_parallel(len(found))
    for i, why in broken.items():
        print(f"{found[i].name} does not run: {why}")
    right = [variant for i, variant in enumerate(found) if i not in broken]
    for length in LENGTHS:
        case = Case(length)
        measure_16_bit(case, spec)
        if right:
            check_prepared(case, right[0])
        y = case.output()
        for variant in right:
            if time.monotonic() - begin > arguments.seconds:
                break
            error, off, same = case.check(variant)
            note = f"FP32 {error:.1e}, reference {off:.1e}, bits {'equal' if same else 'DIFFER'}"
            if not same or not off < LIMIT:
                print(f"{length:7} {variant.name:56} WRONG: {note}", flush=True)
                continue
            operands = case.operands(variant)
            run = partial(eight_bit.attend_8bit, operands, y, variant.config)
            show(variant.name, length, milliseconds(run), note)
    for gain in (4.0, 10.0):
        case = Case(LENGTHS[0], gain)
        for variant in {variant.format: variant for variant in reversed(right)}.values():
            error, off, _ = case.check(variant)
            print(f"logits of deviation {gain}: {variant.name}: FP32 {error:.1e}, reference {off:.1e}", flush=True)


if __name__ == "__main__":
    main()
