"""Colour correction on the GPU at hand: the kernels against PyTorch there, then the clock.

python -m benchmarks.color

Milliseconds a frame, medians of seven slices of five frames: what measures the curves and what applies them, and what
makes a style of a source of half the size, which a slice does twice a frame. No times where pictures differ.
"""

import logging
import statistics
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor

from seedvr2_engine.color import backend
from seedvr2_engine.color.methods import ColorMethod, correct_frame, measure_curves
from seedvr2_engine.pipeline.resize import plan_resize, to_model_input

METHODS: tuple[ColorMethod, ...] = ("lab", "wavelet")
SIZES = ((720, 1280), (1080, 1920))
FRAMES, REPEATS = 5, 7
STEP = 2 / 255


def slices(height: int, width: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Sources of half the size, on the CPU; their styles; and contents in FP16, with a cast and noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(FRAMES, 3, height // 40, width // 40, generator=generator)
    sources = torch.nn.functional.interpolate(coarse, size=(height // 2, width // 2), mode="bilinear")
    plan = plan_resize(tuple(sources.shape[-2:]), scale=2)
    styles = to_model_input(sources.cuda(), plan)[..., :height, :width]
    noise = torch.randn(styles.shape, generator=generator).cuda()
    return list(sources), list(styles), list((0.8 * styles + 0.1 * styles.flip(1) + 0.05 * noise).half())


def corrected(contents: list[Tensor], styles: list[Tensor], method: ColorMethod) -> list[Tensor]:
    """What a slice goes through."""
    curves = measure_curves(zip(contents, styles, strict=True), method)
    return [correct_frame(content, style, method, curves) for content, style in zip(contents, styles, strict=True)]


def median_ms(run: Callable[[], object]) -> float:
    """Of a frame, after a slice that is not counted."""
    times = []
    for _ in range(1 + REPEATS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - began) * 1e3 / FRAMES)
    return statistics.median(times[1:])


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    for height, width in SIZES:
        sources, styles, contents = slices(height, width)
        if backend._kernels_for(contents[0], styles[0]) is None:
            raise SystemExit("the kernels cannot be had here; the log says why.")
        for method in METHODS:

            def run(method: ColorMethod = method) -> list[Tensor]:
                return corrected(contents, styles, method)  # noqa: B023

            with patch.object(backend, "_kernels_for", lambda *pictures: None):
                expected, plain_ms = run(), median_ms(run)
            error = max((x - y).abs().max().item() for x, y in zip(run(), expected, strict=True))
            if error > (STEP if method == "lab" else 0):
                raise SystemExit(f"{method} {width}x{height}: the kernels' pictures are off by {error:.1e}.")
            print(
                f"{method} {width}x{height}: kernels {median_ms(run):.2f} ms a frame, PyTorch {plain_ms:.2f}, ", end=""
            )
            print(f"largest difference {error:.1e}", flush=True)
        plan = plan_resize(tuple(sources[0].shape[-2:]), scale=2)
        style_ms = median_ms(lambda: [to_model_input(s[None].cuda(), plan) for s in sources])  # noqa: B023
        print(f"style {width}x{height}: upload and resampling {style_ms:.2f} ms a frame", flush=True)


if __name__ == "__main__":
    main()
