"""What the accuracy check adds to the time until a VAE's first frames are decoded, on the GPU at hand.

python -m benchmarks.accuracy_check_cost --vae FILE

Three ways, each in processes of their own, whose kernels were compiled before: without a check, with one that measures,
and with one whose choice is known. Medians; the check costs what the second takes beyond the third, whose engine is the
same.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from seedvr2_engine.bench.cases import random_vae
from seedvr2_engine.engine.optimize import optimize_3d_vae_for_blackwell
from seedvr2_engine.loading import load_vae
from seedvr2_engine.models.vae.config import VAEConfig

MODES = ("off", "anew", "known")
LATENT = (1, 16, 2, 90, 160)
"""Five frames of 1280x720."""


def first_decode(name: str, mode: str, precision: str, device: torch.device) -> None:
    """Print the seconds from a loaded model to decoded frames, and how many layers were kept."""
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    if name == "public":
        vae = random_vae(VAEConfig(), device).to(dtype)
    else:
        vae = load_vae(name, device=device, dtype=dtype)
    latent = torch.randn(LATENT, generator=torch.Generator().manual_seed(0)).to(device)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    began = time.perf_counter()
    limit = {} if mode != "off" else {"min_psnr_db": None}
    served = optimize_3d_vae_for_blackwell(vae, device=device, precision=precision, verbose=False, **limit)
    served.decode(latent)
    wait()
    seconds, found = time.perf_counter() - began, served.report.accuracy
    assert found is None or found.from_cache == (mode == "known")
    print(seconds, 0 if found is None else len(found.kept))


def timed(options: argparse.Namespace, mode: str, cache: Path) -> tuple[float, int]:
    """One process of its own, whose check keeps its choices in `cache`."""
    command = [sys.executable, "-m", "benchmarks.accuracy_check_cost", "--only", mode, "--vae", options.vae]
    command += ["--precision", options.precision, "--device", options.device]
    # PyTorch keeps compiled kernels there too, and warns where it finds no folder for them.
    (cache / "torch" / "kernels").mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "LOCALAPPDATA": str(cache)}
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    seconds, kept = result.stdout.split()[-2:]
    return float(seconds), int(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", default="public", help="a VAE file, nano, or public: its widths with random weights")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=MODES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        first_decode(options.vae, options.only, options.precision, torch.device(options.device))
        return
    found: dict[str, list[tuple[float, int]]] = {mode: [] for mode in MODES}
    for turn in range(options.repeats + 1):
        # A folder for each turn: what measures finds nothing there, what comes after it finds its choice.
        with TemporaryDirectory() as folder:
            for mode in MODES:
                figures = timed(options, mode, Path(folder))
                if turn:
                    found[mode].append(figures)
    for mode, rows in found.items():
        seconds = [row[0] for row in rows]
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        print(f"{mode:6} {statistics.median(seconds):6.2f} s ({spread}), {rows[0][1]} layers kept")
    check = statistics.median(a[0] - b[0] for a, b in zip(found["anew"], found["known"], strict=True))
    print(f"the check costs {check:.2f} s")


if __name__ == "__main__":
    main()
