"""Hashes of what the engine and the fused transformer compute on the GPU at hand: do two versions give the same bits?

    python -m benchmarks.bits

Random weights of the public sizes, 21 frames of 1280x720. Run it in both versions on one machine and compare the lines.
"""

import hashlib
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from seedvr2_engine.bench.random_models import random_dit
from seedvr2_engine.engine.dit.fused import FusedDiT
from seedvr2_engine.engine.optimize import optimize_3d_vae_for_blackwell
from seedvr2_engine.models.dit.config import PUBLIC_3B
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.models.vae.model import VideoVAE

TEXT_TOKENS = 58


def digest(tensor: Tensor) -> str:
    """The first 16 digits of the SHA-256 of a tensor's bytes."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().view(torch.uint8).numpy()).hexdigest()[:16]


def median_ms(run: Callable[[], object]) -> float:
    """Median of five runs."""
    times = []
    for _ in range(5):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def main() -> None:
    """Print a line for each format of the VAE, and for two shapes of the transformer, three runs each."""
    device = torch.device("cuda")
    torch.manual_seed(0)
    vae = VideoVAE(VAEConfig()).requires_grad_(False).eval().to(device).half()
    generator = torch.Generator(device).manual_seed(1)
    latent = torch.randn(1, 16, 6, 90, 160, generator=generator, device=device)
    video = torch.rand(1, 3, 21, 720, 1280, generator=generator, device=device) * 2 - 1
    for precision in ("fp8", "int8", "fp16", "bf16"):
        served = optimize_3d_vae_for_blackwell(vae, device=device, precision=precision, min_psnr_db=None, verbose=False)
        decoded, encoded = digest(served.decode(latent)), digest(served.encode(video))
        ms = median_ms(lambda: served.decode(latent))  # noqa: B023
        print(f"{precision}: decoded {decoded}, encoded {encoded}; decode {ms:.1f} ms", flush=True)
    torch.manual_seed(0)
    dit = FusedDiT(random_dit(PUBLIC_3B, device, torch.bfloat16))
    for shape in ((6, 90, 160), (3, 30, 40)):
        x = torch.randn(*shape, PUBLIC_3B.in_channels, generator=generator, device=device)
        text = torch.randn(TEXT_TOKENS, PUBLIC_3B.text_width, generator=generator, device=device)
        print(f"transformer {shape}:", *(digest(dit(x, text, 1000.0)) for _ in range(3)), flush=True)


if __name__ == "__main__":
    main()
