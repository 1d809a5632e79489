"""The transformer with random weights: is the fused one right, how long does it take, and where does the time go?

    python -m benchmarks.dit --family 3b --shape 6x90x160 --json dit.json

Shapes are latents (frames x height x width); without `--shape` they are those of 1280x720 and 1920x1080 with 21 frames
and of one 3840x2160 picture. Rates count the products of the video's tokens with weights, as shares of the rate of a
large product in the same process. What fails its check gets no time.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import dit_parts
from seedvr2_engine.bench.random_models import random_dit
from seedvr2_engine.engine.dit.fused import FusedDiT, reason_for_plain
from seedvr2_engine.engine.dit.weights import streamed
from seedvr2_engine.kernels.configs import Refusal
from seedvr2_engine.models.dit.config import PUBLIC_3B, PUBLIC_7B, DiTConfig
from seedvr2_engine.models.dit.flop import velocity_flop
from seedvr2_engine.models.dit.model import NaDiT
from seedvr2_engine.pipeline.forecast import matrix_rate

SHAPES = {"720p, 21 frames": (6, 90, 160), "1080p, 21 frames": (6, 136, 240), "4K picture": (1, 270, 480)}
TEXT_TOKENS = 58
CHECK_SHAPE = (3, 60, 80)
CHECK_LAYERS = 4
ERROR_FACTOR = 1.2
"""How much further from FP32 the fused model may be than the plain model in the same 16 bits."""

PYTORCH = Refusal("PyTorch's attention was asked for")

Clock = Callable[[], float]


def relative_rms(actual: Tensor, expected: Tensor) -> float:
    """RMS of the difference, relative to the RMS of what was expected."""
    return ((actual.float() - expected.float()).norm() / expected.float().norm()).item()


def attention_name(windows: Refusal | None) -> str:
    """Whose attention the fused model uses."""
    return "attention as chosen" if windows is None else "PyTorch's attention"


def inputs(config: DiTConfig, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """A random video and text."""
    generator = torch.Generator(device).manual_seed(1)
    video = torch.randn(*shape, config.in_channels, generator=generator, device=device)
    return video, torch.randn(TEXT_TOKENS, config.text_width, generator=generator, device=device)


def check(config: DiTConfig, device: torch.device, windows: Refusal | None) -> dict[str, Any]:
    """Errors of the plain and of the fused model in BF16 against FP32, with few layers of full width."""
    small = replace(config, layers=CHECK_LAYERS, separate_layers=min(config.separate_layers, CHECK_LAYERS // 2))
    if config.family == "7b":
        small = replace(small, separate_layers=CHECK_LAYERS)
    torch.manual_seed(0)
    plain = random_dit(small, device, torch.bfloat16)
    video, text = inputs(small, CHECK_SHAPE, device)
    with torch.no_grad():
        own = plain(video, text, 1000.0)
        fused = FusedDiT(plain, windows=windows)
        geometry, conditioning = fused.geometry(CHECK_SHAPE, TEXT_TOKENS), fused.conditioning(text, 1000.0)
        # From the second run on this is a CUDA graph.
        first, *others = (fused.velocity(video, geometry, conditioning) for _ in range(3))
        graphs = fused.graphs.reason or "recorded"
        expected = plain.float()(video, text, 1000.0)
    plain_error, fused_error = relative_rms(own, expected), relative_rms(first, expected)
    same = all(torch.equal(first, other) for other in others)
    ok = same and fused_error <= ERROR_FACTOR * plain_error
    print(
        f"{config.family} check, {CHECK_LAYERS} layers, {attention_name(windows)}: error against FP32 "
        f"{plain_error:.2e} plain, {fused_error:.2e} fused, {relative_rms(first, own):.2e} between them; "
        f"runs {'equal' if same else 'DIFFER'}; graphs: {graphs}; {'right' if ok else 'WRONG'}",
        flush=True,
    )
    return {"plain_error": plain_error, "fused_error": fused_error, "runs_equal": same, "right": ok}


def measure(dit: NaDiT, shape: tuple[int, ...], rate: float, *, repeats: int, warm_ups: int = 2) -> dict[str, Any]:
    """Median and spread in milliseconds, rates and peak memory of one velocity."""
    device = dit.device
    video, text = inputs(dit.config, shape, device)
    geometry, conditioning = dit.geometry(shape, TEXT_TOKENS), dit.conditioning(text, 1000.0)
    flop = velocity_flop(dit.config, geometry)
    times = []
    with torch.no_grad():
        for index in range(warm_ups + repeats):
            if index == warm_ups:
                torch.cuda.reset_peak_memory_stats(device)
            torch.cuda.synchronize(device)
            began = time.perf_counter()
            dit.velocity(video, geometry, conditioning)
            torch.cuda.synchronize(device)
            times.append((time.perf_counter() - began) * 1e3)
    times = times[warm_ups:]
    ms = statistics.median(times)
    return {
        "ms": ms,
        "spread_ms": max(times) - min(times),
        "tflop_per_s": flop.products / ms / 1e9,
        "share": flop.products / (ms / 1e3) / rate,
        "peak_bytes": torch.cuda.max_memory_allocated(device),
        "tokens": len(geometry.restore),
    }


def show(name: str, row: dict[str, Any]) -> None:
    """One line of the table."""
    print(
        f"{name:52} {row['ms']:8.1f} ms +-{row['spread_ms'] / 2:5.1f} {row['tflop_per_s']:6.0f} TFLOP/s "
        f"{100 * row['share']:4.0f} % {row['peak_bytes'] / 1e9:6.2f} GB",
        flush=True,
    )


def profile(dit: NaDiT, shape: tuple[int, ...], lines: int) -> list[tuple[str, int, float]]:
    """The kernels of one velocity that take longest: name, launches, milliseconds."""
    video, text = inputs(dit.config, shape, dit.device)
    geometry, conditioning = dit.geometry(shape, TEXT_TOKENS), dit.conditioning(text, 1000.0)
    with torch.no_grad(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        dit.velocity(video, geometry, conditioning)
        torch.cuda.synchronize()
    kernels = sorted(seen.key_averages(), key=lambda event: -event.self_device_time_total)
    rows = [(event.key, event.count, event.self_device_time_total / 1e3) for event in kernels]
    print(f"  all kernels {sum(ms for _, _, ms in rows):.1f} ms in {sum(n for _, n, _ in rows)} launches")
    for name, count, ms in rows[:lines]:
        print(f"  {ms:8.2f} ms {count:5} x {name[:100]}", flush=True)
    return rows[:lines]


def measure_family(family: str, arguments: argparse.Namespace, left: Clock, rate: float) -> dict[str, Any]:
    """Check, then measure plain, fused and offloaded."""
    device = torch.device("cuda")
    config = PUBLIC_3B if family == "3b" else PUBLIC_7B
    shapes = {text: tuple(map(int, text.split("x"))) for text in arguments.shape} or SHAPES
    results: dict[str, Any] = {}
    right = []
    for windows in (None, PYTORCH):
        found = results[f"check, {attention_name(windows)}"] = check(config, device, windows)
        right += [windows] if found["right"] else []
        torch.cuda.empty_cache()
    if not right:
        return results
    plain = random_dit(config, device, torch.bfloat16)
    print(f"{family}: {reason_for_plain(plain) or 'fused kernels'}")
    first = next(iter(shapes))
    if not arguments.fused_only:
        for name, shape in shapes.items():
            if name == first or left() > 0.6 * arguments.seconds:
                row = results[f"plain {name}"] = measure(plain, shape, rate, repeats=2, warm_ups=1)
                show(f"{family} plain, {name}", row)
        results["plain kernels"] = profile(plain, shapes[first], 10)
    for windows in right:
        fused = FusedDiT(plain, windows=windows)
        for name, shape in shapes.items():
            if left() > 5 and (windows is right[0] or name == first):
                title = f"fused, {name}, {attention_name(windows)}"
                row = results[title] = measure(fused, shape, rate, repeats=arguments.repeats)
                show(f"{family} {title}", row)
                torch.cuda.empty_cache()
        if windows is right[0]:
            results["fused kernels"] = profile(fused, shapes[first], 14)
    if arguments.offload and left() > 15:
        del fused
        moved = FusedDiT(streamed(plain), windows=right[0])
        del plain
        torch.cuda.empty_cache()
        for name, shape in shapes.items():
            if left() > 5:
                row = results[f"offloaded {name}"] = measure(moved, shape, rate, repeats=3, warm_ups=1)
                show(f"{family} fused, offloaded, {name}", row)
    return results


def main() -> None:
    """Run what was asked for, within the time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="*", choices=["3b", "7b"], default=["3b", "7b"])
    parser.add_argument("--shape", action="append", default=[], help="latent frames x height x width, such as 6x90x160")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=100, help="when to leave out what is left")
    parser.add_argument("--offload", action="store_true", help="measure with the blocks' matrices on the host, too")
    parser.add_argument("--fused-only", action="store_true")
    parser.add_argument("--parts", action="store_true", help="measure attention, products and passes by themselves")
    parser.add_argument("--compile", metavar="I/N", help="only compile what the I-th of N processes is to compile")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()

    def left() -> float:
        return arguments.seconds - (time.monotonic() - began)

    device = torch.device("cuda")
    if arguments.compile:
        for family in arguments.family:
            for windows in (None, PYTORCH):
                check(PUBLIC_3B if family == "3b" else PUBLIC_7B, device, windows)
        if arguments.parts:
            index, count = map(int, arguments.compile.split("/"))
            dit_parts.compile_share(PUBLIC_3B, SHAPES["720p, 21 frames"], index, count)
        return
    rate = matrix_rate(device, torch.bfloat16)
    name = torch.cuda.get_device_name(device)
    print(f"{name}, PyTorch {torch.__version__}: BF16 product of 8192 cubed {rate / 1e12:.0f} TFLOP/s", flush=True)
    results: dict[str, Any] = {"gpu": name, "torch": torch.__version__, "matrix_tflop_per_s": rate / 1e12}
    for family in arguments.family:
        results[family] = measure_family(family, arguments, left, rate)
        torch.cuda.empty_cache()
    if arguments.parts:
        results["parts"] = dit_parts.measure(PUBLIC_3B, SHAPES["720p, 21 frames"], left)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
