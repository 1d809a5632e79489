"""Attention of 512 dimensions on the GPU at hand: errors against FP32, then the clock.

    python benchmarks/attention.py --seconds 55

A configuration whose result is wrong, or differs from run to run, gets no time. Errors are of 256 queries of
each length: against FP32, and against the twin, which multiplies the same 8-bit numbers.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from seedvr2_engine.device import device_spec
from seedvr2_engine.kernels import attention, attention_8bit, reference
from seedvr2_engine.kernels.dispatch import AttentionConfig, Refusal, choose_attention_config
from seedvr2_engine.kernels.operands import AttentionOperands

DIM = 512
LENGTHS = (14_400, 32_640, 129_600)


@dataclass(frozen=True)
class Variant:
    """One way to compute it."""

    name: str
    keys: torch.dtype
    values_8bit: bool
    config: AttentionConfig | None = None
    products: tuple[tuple[int, ...], tuple[int, ...]] | None = None


def fused(m: int, n: int, v: int, warps: int, stages: int, *, fp8: bool = False, values: bool = True) -> Variant:
    keys = torch.float8_e4m3fn if fp8 else torch.int8
    name = f"{'fp8' if fp8 else 'int8'} scores, {'fp8' if values else 'fp16'} values, {m}x{n}x{v}, {warps}w {stages}s"
    return Variant(name, keys, values, AttentionConfig(m, n, v, warps, stages, True))


def in_two(first: tuple[int, ...], second: tuple[int, ...]) -> Variant:
    return Variant(f"in two: {first} {second}", torch.int8, True, None, (first, second))


VARIANTS = [
    fused(128, 64, 256, 8, 3),
    fused(128, 64, 256, 8, 2),
    fused(128, 128, 256, 8, 1),
    fused(128, 32, 256, 8, 4),
    fused(64, 64, 512, 8, 3),
    fused(64, 64, 512, 8, 2),
    fused(64, 64, 256, 4, 1),
    fused(64, 32, 256, 4, 3),
    fused(128, 64, 256, 8, 3, fp8=True),
    fused(128, 64, 256, 8, 2, values=False),
    fused(64, 64, 512, 8, 2, values=False),
    in_two((128, 128, 128, 8, 3), (128, 128, 128, 8, 3)),
    in_two((128, 128, 128, 4, 3), (128, 128, 128, 8, 2)),
    in_two((128, 256, 128, 8, 3), (128, 256, 128, 8, 2)),
    in_two((128, 128, 128, 8, 2), (128, 128, 64, 4, 3)),
]


def make_qkv(length: int, gain: float) -> Tensor:
    """Logits of standard deviation `gain`; keys and values have offsets that all tokens share."""
    generator = torch.Generator("cuda").manual_seed(length)
    qkv = torch.randn(1, length, 3 * DIM, generator=generator, device="cuda")
    offset = torch.randn(2, DIM, generator=generator, device="cuda") * 2
    qkv[..., : 2 * DIM] *= gain**0.5
    qkv[..., DIM : 2 * DIM] += offset[0]
    qkv[..., 2 * DIM :] += offset[1]
    return qkv.half()


class Case:
    """Tensors of one length."""

    def __init__(self, length: int, gain: float = 1.0) -> None:
        self.length = length
        self.qkv = make_qkv(length, gain)
        self.rows = torch.arange(0, length, max(1, length // 256), device="cuda")[:256]
        q, k, v = self.qkv.float().chunk(3, dim=-1)
        self.exact = ((q[0, self.rows] @ k[0].T * DIM**-0.5).softmax(-1) @ v[0]).float()
        self.parts = torch.empty(1, attention_8bit.SURVEYS, 4, DIM, device="cuda")
        self.made: dict[tuple[torch.dtype, bool], AttentionOperands] = {}

    def operands(self, variant: Variant) -> AttentionOperands:
        key = variant.keys, variant.values_8bit
        if key not in self.made:
            self.made[key] = self.empty(*key)
            attention_8bit.quantize(self.qkv, self.made[key], self.parts)
        return self.made[key]

    def empty(self, keys: torch.dtype, values_8bit: bool) -> AttentionOperands:
        q, k = (torch.zeros(1, self.length, DIM, dtype=keys, device="cuda") for _ in "qk")
        padded = -(-self.length // 16) * 16
        v = torch.zeros(1, DIM, padded, dtype=torch.float8_e4m3fn, device="cuda") if values_8bit else None
        scales = [torch.full((1, self.length), float("nan"), device="cuda") for _ in "qk"]
        return AttentionOperands(q, k, v, *scales, torch.full((1, 3, DIM), float("nan"), device="cuda"))

    def run(self, variant: Variant, y: Tensor, only: int = 0) -> Callable[[], None]:
        operands = self.operands(variant)
        if variant.config is not None:
            config = variant.config
            return lambda: attention_8bit.attend(self.qkv, operands, y, config)
        assert variant.products is not None
        first, second = variant.products
        waves = 2 if self.length > 100_000 else 4
        rows = min(-(-self.length // 128) * 128, waves * 132 * 128 * second[2] // DIM)
        tiles = -(-self.length // first[1])
        p = torch.empty(rows, tiles * first[1], dtype=torch.float8_e4m3fn, device="cuda")
        peaks, sums = (torch.empty(tiles, rows, device="cuda") for _ in "ps")
        return lambda: attention_8bit.attend_in_two(operands, y, p, peaks, sums, first, second, only)

    def check(self, variant: Variant) -> tuple[float, float, bool]:
        """Error against FP32, error against the twin, and whether two runs are equal."""
        ys = [torch.full((1, self.length, DIM), float("nan"), dtype=torch.float16, device="cuda") for _ in "ab"]
        for y in ys:
            self.run(variant, y)()
        operands = self.operands(variant)
        some = operands._replace(q=operands.q[:, self.rows], q_scale=operands.q_scale[:, self.rows])
        twin = torch.empty(1, len(self.rows), DIM, device="cuda")
        reference.attend_8bit(self.qkv, some, twin, AttentionConfig(16, 16, 16, 4, 2, False))
        actual = ys[0][0, self.rows].float()
        return relative(actual, self.exact), relative(actual, twin[0]), torch.equal(*ys)


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
    print(f"{length:7} {name:62} {ms:8.3f} ms {4 * DIM * length**2 / ms / 1e9:6.0f} TFLOP/s  {note}", flush=True)


def check_prepared(case: Case, keys: torch.dtype) -> None:
    """The preparation against its twin, and its time."""
    actual, again, expected = (case.empty(keys, True) for _ in range(3))
    attention_8bit.quantize(case.qkv, actual, case.parts)
    attention_8bit.quantize(case.qkv, again, case.parts)
    reference.quantize_attention(case.qkv, expected, case.parts)
    worst = {
        name: relative(
            getattr(actual, name).float().flatten()[:, None], getattr(expected, name).float().flatten()[:, None]
        )
        for name in AttentionOperands._fields
    }
    same = all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(actual, again, strict=True))
    ms = milliseconds(lambda: attention_8bit.quantize(case.qkv, actual, case.parts))
    errors = ", ".join(f"{name} {error:.1e}" for name, error in worst.items())
    print(
        f"{case.length:7} prepared in {ms:.3f} ms; against the twin: {errors}; {'equal' if same else 'DIFFER'}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=55.0, help="begin nothing new after this long")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    begin = time.monotonic()
    torch.backends.cuda.matmul.allow_tf32 = False
    if arguments.only is not None:
        Case(1000).check(VARIANTS[arguments.only])
        return
    spec = device_spec(torch.device("cuda"))
    print(f"{spec.name}, {spec.sm}, PyTorch {torch.__version__}")
    workers = [subprocess.Popen([sys.executable, __file__, "--only", str(i)], stderr=subprocess.PIPE, text=True)
               for i in range(len(VARIANTS))]  # fmt: skip
    broken = {}
    for variant, worker in zip(VARIANTS, workers, strict=True):
        _, log = worker.communicate()
        if worker.returncode:
            broken[variant.name] = (log.strip().splitlines() or ["?"])[-1][:150]
    print(f"compiled after {time.monotonic() - begin:.0f} s", flush=True)
    for name, why in broken.items():
        print(f"does not run: {name}: {why}")
    plain = choose_attention_config(DIM, spec)
    for length in LENGTHS:
        case = Case(length)
        check_prepared(case, torch.int8)
        if isinstance(plain, Refusal):
            raise SystemExit(plain.reason)
        y = torch.empty(1, length, DIM, dtype=torch.float16, device="cuda")
        if length < 100_000:
            q, k, v = (part[:, None] for part in case.qkv.chunk(3, dim=-1))
            show("PyTorch", length, milliseconds(lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v), 1))
        for config in (plain, replace(plain, stages=1, block_n=64)):
            name = f"fp16 {config.block_m}x{config.block_n}x{config.block_v}, {config.stages}s"
            show(name, length, milliseconds(lambda y=y, c=config, case=case: attention.attend(case.qkv, y, c), 2))
        for variant in VARIANTS:
            if variant.name in broken or time.monotonic() - begin > arguments.seconds:
                continue
            error, off, same = case.check(variant)
            note = f"FP32 {error:.2e}, twin {off:.2e}, {'equal' if same else 'TWO RUNS DIFFER'}"
            if same and off < 0.1:
                show(variant.name, length, milliseconds(case.run(variant, y), 2), note)
                if variant.products:
                    first, second = (milliseconds(case.run(variant, y, only), 2) for only in (1, 2))
                    print(f"        first product {first:.3f} ms, second {second:.3f} ms", flush=True)
            else:
                print(f"{length:7} {variant.name:62} WRONG: {note}", flush=True)
    for gain in (4.0, 10.0):
        case = Case(14_400, gain)
        for variant in (VARIANTS[0], VARIANTS[8], VARIANTS[9], VARIANTS[11]):
            if variant.name not in broken and time.monotonic() - begin < arguments.seconds + 5:
                error, off, _ = case.check(variant)
                print(f"logits of {gain}: {variant.name}: FP32 {error:.2e}, twin {off:.2e}")


if __name__ == "__main__":
    main()
