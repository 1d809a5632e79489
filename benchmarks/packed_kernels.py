"""A small clip with an empty cache of Triton, with compiled kernels that travelled and without: what is compiled?

    python -m benchmarks.packed_kernels                     (builds the folder first, without the GPU)
    python -m benchmarks.packed_kernels --folder FOLDER     (one that `seedvr2 kernels build` made elsewhere)

Every run is a process of its own: VAE and 3B with random weights in FP8, 9 frames, and colours. The outputs have to be
equal bit for bit. The last run finds the second one's cache, as a second process does.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from seedvr2_engine.doctor.packing import PackRequest, build_folder

FRAMES = 9


def clip(size: tuple[int, int], layers: int, precision: str) -> dict[str, Any]:
    """The child: the clip twice, with seconds, kernels compiled and found, and a digest of the pictures."""
    import triton

    from seedvr2_engine.bench.cases import random_vae
    from seedvr2_engine.bench.random_models import random_dit
    from seedvr2_engine.color.backend import wavelet
    from seedvr2_engine.engine.dit.fused import FusedDiT
    from seedvr2_engine.engine.dit.quantized import BlockFormat
    from seedvr2_engine.engine.dit.weights import quantized
    from seedvr2_engine.engine.vae.backend import triton_backend
    from seedvr2_engine.engine.vae.engine import VAEEngine
    from seedvr2_engine.kernels.architectures import ARCHITECTURES
    from seedvr2_engine.models.dit.config import DiTConfig
    from seedvr2_engine.models.vae.config import VAEConfig
    from seedvr2_engine.plan.gpus import device_spec
    from seedvr2_engine.quant import QuantRecipe

    device = torch.device("cuda")
    names: Counter[str] = Counter()

    counts: Counter[str] = Counter()

    def listen(*, src: Any, cache_hit: bool, **_: Any) -> None:
        counts["found" if cache_hit else "compiled"] += 1
        if not cache_hit:
            names[src.name] += 1

    triton.knobs.compilation.listener = listen
    spec = device_spec(device)
    torch.manual_seed(0)
    engine = VAEEngine(random_vae(VAEConfig(), device), QuantRecipe(precision), spec, triton_backend(), device=device)  # type: ignore[arg-type]
    config = DiTConfig(layers=layers, separate_layers=1)
    dit = random_dit(config, device, torch.bfloat16)
    if precision in ARCHITECTURES[spec.sm].matrices:
        dit = quantized(dit, [BlockFormat.all_in(precision)] * layers)
    fused = FusedDiT(dit)
    generator = torch.Generator(device).manual_seed(1)
    video = torch.rand(1, 3, FRAMES, *size, generator=generator, device=device) * 2 - 1
    text = torch.randn(58, config.text_width, generator=generator, device=device)
    seconds, digests = [], []
    for _ in range(2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        latents = engine.encode(video)[0].permute(1, 2, 3, 0)
        frames = torch.cat([latents, latents, torch.ones_like(latents[..., :1])], dim=-1)
        velocity = fused(frames, text, 1000.0)
        decoded = engine.decode((latents - velocity.float()).permute(3, 0, 1, 2)[None])[0]
        pictures = torch.stack([wavelet(decoded[:, i], video[0, :, i]) for i in range(FRAMES)])
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        digests.append(hashlib.sha256(pictures.cpu().numpy().tobytes()).hexdigest())
    return {"seconds": seconds, "digests": digests, "counts": counts, "names": names, "gpu": spec.name, "sm": spec.sm}


def in_a_process(cache: Path, folder: Path | None, options: list[str]) -> dict[str, Any]:
    """The child's findings, and how long the whole process took."""
    environment = {name: value for name, value in os.environ.items() if name != "SEEDVR2_KERNELS"}
    environment["TRITON_CACHE_DIR"] = str(cache)
    if folder is not None:
        environment["SEEDVR2_KERNELS"] = str(folder)
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.packed_kernels", "--child", *options]
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return {**found, "process": time.perf_counter() - began}


def build_elsewhere(target: Path, sm: str, precision: str) -> None:
    """A folder for this generation, made in a process that sees no GPU."""
    command = [sys.executable, "-m", "benchmarks.packed_kernels", "--build", str(target), "--arch", sm]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([*command, "--precision", precision], env=environment, check=True)


def build(target: Path, sm: str, precision: str) -> None:
    """The kernels that the clip needs, in every size."""
    began = time.perf_counter()
    manifest = build_folder(PackRequest(sm, ("color", "vae", "3b"), (precision,)), target)
    size = sum(file.stat().st_size for file in target.iterdir())
    seconds = time.perf_counter() - began
    print(f"{target}: {len(manifest.kernels)} kernels, {size / 1e6:.1f} MB, {seconds:.0f} s", flush=True)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="compiled kernels; built here if not given")
    parser.add_argument("--size", default="1280x720", help="width and height of the pictures, multiples of 16")
    parser.add_argument("--layers", type=int, default=8, help="of the transformer")
    parser.add_argument("--precision", default="fp8")
    parser.add_argument("--build", type=Path, metavar="FOLDER", help="build the folder and end; needs no GPU")
    parser.add_argument("--arch", default="sm_90", help="of --build")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    columns, rows = map(int, asked.size.split("x"))
    if asked.child:
        print(json.dumps(clip((rows, columns), asked.layers, asked.precision)))
        return
    if asked.build is not None:
        build(asked.build, asked.arch, asked.precision)
        return
    options = ["--size", asked.size, "--layers", str(asked.layers), "--precision", asked.precision]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        folder = asked.folder
        if folder is None:
            folder = place / "kernels"
            major, minor = torch.cuda.get_device_capability()
            build_elsewhere(folder, f"sm_{major}{minor}", asked.precision)
        runs = {
            "compiled": in_a_process(place / "a", None, options),
            "packed": in_a_process(place / "b", folder.resolve(), options),
            "second process": in_a_process(place / "b", folder.resolve(), options),
        }
    first = runs["compiled"]
    print(f"{first['gpu']}, {first['sm']}, {asked.size}, {FRAMES} frames, {asked.precision}, {asked.layers} layers")
    print(f"{'':16}{'compiled':>10}{'found':>8}{'first s':>10}{'next s':>9}{'process s':>11}  bits")
    for name, run in runs.items():
        same = "equal" if run["digests"] == first["digests"] else "DIFFERENT"
        counts = run["counts"]
        print(
            f"{name:16}{counts.get('compiled', 0):>10}{counts.get('found', 0):>8}{run['seconds'][0]:>10.2f}"
            f"{run['seconds'][1]:>9.3f}{run['process']:>11.1f}  {same}"
        )
    for kernel, count in runs["packed"]["names"].items():
        print(f"compiled in spite of the folder: {kernel} {count}")


if __name__ == "__main__":
    main()
