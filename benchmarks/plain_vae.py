"""Time and memory of the plain PyTorch VAE at the public widths, after checking it against the public reference.

Random weights (the formula of the tests), one GPU. Run: python -m benchmarks.plain_vae [--width 1280 --height 720]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from safetensors.torch import load_file

from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.models.vae.model import VideoVAE
from tests.conftest import GOLDEN
from tests.models.vae.formula_weights import formula_state

TOLERANCE_FP32 = 5e-5


def build() -> VideoVAE:
    """The public widths with formula weights, in FP32 on the GPU."""
    with torch.device("meta"):
        vae = VideoVAE(VAEConfig())
    vae.load_state_dict({name: t.float() for name, t in formula_state("F", VAEConfig()).items()}, assign=True)
    return vae.requires_grad_(False).cuda()


def largest_error(vae: VideoVAE) -> float:
    """Against the reference's float32 outputs, over all whole-clip cases."""
    cases = load_file(GOLDEN / "vae_fullwidth_cases.safetensors")
    errors = []
    for key, source in cases.items():
        case, kind = key.rsplit(".", 1)
        if kind == "z":
            errors.append(vae.decode(source).float().cpu() - cases[f"{case}.out"])
        elif kind == "x":
            moments = torch.cat(vae.encode_distribution(source), dim=1)
            errors.append(moments.float().cpu() - cases[f"{case}.moments"])
    return max(error.abs().max().item() for error in errors)


def measure(run: Callable[[], torch.Tensor], repeats: int) -> tuple[float, float, float]:
    """Median and spread in milliseconds, and peak GB, after one run that is not counted."""
    run()
    torch.cuda.reset_peak_memory_stats()
    times_ms = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times_ms.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times_ms), max(times_ms) - min(times_ms), torch.cuda.max_memory_allocated() / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--frames", type=int, default=21)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    vae = build()
    error = largest_error(vae)
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}; FP32 against the reference: {error:.2e}")
    if error > TOLERANCE_FP32:
        raise SystemExit("the FP32 model does not match the reference; nothing is timed.")
    shape = (1, 3, options.frames, options.height, options.width)
    for dtype in (torch.float16, torch.bfloat16):
        vae.to(dtype)
        video = torch.rand(shape, device="cuda", dtype=dtype) * 2 - 1
        latent = torch.randn_like(vae.encode(video, slice_frames=4))
        runs = {
            "decode": lambda latent=latent: vae.decode(latent, slice_frames=4),
            "encode": lambda video=video: vae.encode(video, slice_frames=4),
        }
        for name, run in runs.items():
            median_ms, spread_ms, peak_gb = measure(run, options.repeats)
            print(
                f"{name} {options.width}x{options.height}, {options.frames} frames, {dtype}: "
                f"{median_ms:.0f} ms (spread {spread_ms:.0f}), peak {peak_gb:.1f} GB"
            )


if __name__ == "__main__":
    main()
