"""ComfyUI's own SeedVR2 VAE against the same object behind Engine VAE.

`python -m benchmarks.comfy_native --core FOLDER`, a checkout of ComfyUI with SeedVR2 of its own; nothing is fetched.
What it needs beside PyTorch, safetensors and this package is printed by `--wheels`. Weights are random ones at the
public widths unless `--vae` names a file. Accuracy is PSNR against ComfyUI's own class in FP32, in the same process;
none where the two are equal. Without a GPU it runs on the CPU, for trying at a small size, and prints no memory.
"""

import argparse
import json
import math
import runpy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

WHEELS = (
    *("einops", "torchsde", "trampoline", "comfy-kitchen", "comfy-aimdo", "psutil", "pyyaml", "scipy", "tqdm"),
    *("transformers", "tokenizers", "sentencepiece", "torchvision", "torchaudio", "av", "pillow", "aiohttp"),
)
"""What ComfyUI imports on the way to its VAE; what its page and its database need is not among it."""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", type=Path, help="a checkout of ComfyUI")
    parser.add_argument("--before", type=Path, help="a Python file that is run first, for a checkout that needs help")
    parser.add_argument("--vae", type=Path, help="a VAE in safetensors; random weights if not given")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--frames", type=int, default=21)
    parser.add_argument("--tile", default="512/128", help="pixels and overlap of the tiled nodes")
    parser.add_argument("--precisions", default="fp16,fp8")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--reloads", type=int, default=10)
    parser.add_argument("--out", type=Path, help="a file for the results as JSON")
    parser.add_argument("--wheels", action="store_true", help="print the packages that are needed, and end")
    return parser.parse_args()


def weights_of(path: Path | None) -> dict[str, Tensor]:
    """The tensors of a file, or the tests' formula at the public widths."""
    if path is not None:
        return load_file(path)
    from seedvr2_engine.models.vae.config import VAEConfig
    from tests.models.vae.formula_weights import formula_state

    return {name: tensor.half() for name, tensor in formula_state("F", VAEConfig()).items()}


def clip(frames: int, height: int, width: int) -> Tensor:
    """Smooth random frames that move, (T, H, W, 3) in [0, 1]."""
    noise = torch.rand(1, 3, 4 + frames // 4, height // 16 + 2, width // 16 + 2, generator=torch.manual_seed(7))
    video = torch.nn.functional.interpolate(noise, size=(frames, height, width), mode="trilinear")
    return video[0].movedim(0, -1).contiguous()


def psnr(found: Tensor, expected: Tensor) -> float | None:
    """In dB; the peak is 1 for pictures, the largest magnitude for latents. None if they are equal."""
    peak = max(1.0, expected.abs().max().item())
    error = (found.float() - expected.float()).square().mean().item()
    return None if error == 0 else round(10 * math.log10(peak**2 / error), 2)


def measured(work: Callable[[], Tensor], runs: int) -> tuple[Tensor, dict[str, Any]]:
    """The result, the first run's time, the median of the later ones, and the peak of GPU memory among those."""
    on_gpu = torch.cuda.is_available()
    times = []
    for run in range(runs + 1):
        if on_gpu:
            torch.cuda.synchronize()
            if run == 1:
                torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        result = work()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - began))
    facts: dict[str, Any] = {"first_ms": round(times[0], 1), "ms": round(statistics.median(times[1:]), 1)}
    if on_gpu:
        facts["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
    return result, facts


def jobs_of(vae: Any, frames: Tensor, latent: Tensor, tile: int, overlap: int) -> dict[str, Callable[[], Tensor]]:
    """What ComfyUI's four nodes call."""
    cells = {"tile_x": tile // 8, "tile_y": tile // 8, "overlap": overlap // 8}
    return {
        "encode": lambda: vae.encode(frames),
        "decode": lambda: vae.decode(latent),
        "encode_tiled": lambda: vae.encode_tiled(frames, tile_x=tile, tile_y=tile, overlap=overlap),
        "decode_tiled": lambda: vae.decode_tiled(latent, **cells),
    }


def reloads(vae: Any, latent: Tensor, times: int, unload: Callable[[], None]) -> dict[str, Any]:
    """Memory that is left after unloading, each time, and whether the pictures are the same."""
    first = vae.decode(latent)
    left, same = [], True
    for _ in range(times):
        unload()
        left.append(torch.cuda.memory_allocated() if torch.cuda.is_available() else 0)
        same &= torch.equal(vae.decode(latent), first)
    unload()
    return {"left_mb": [round(one / 1e6, 1) for one in left], "same_pictures": same}


@torch.inference_mode()
def main() -> None:
    """Measure and print, a line of JSON for each model and call."""
    arguments = parse()
    if arguments.wheels:
        print("\n".join(WHEELS))
        return
    sys.path.insert(0, str(arguments.core))
    sys.argv = sys.argv[:1]
    import comfy.cli_args

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    if arguments.before is not None:
        runpy.run_path(str(arguments.before))
    import comfy.model_management as management
    import comfy.sd

    from seedvr2_engine.comfy.native.vae_object import Choices, accelerate

    width, height = map(int, arguments.size.split("x"))
    tile, overlap = map(int, arguments.tile.split("/"))
    state = weights_of(arguments.vae)
    frames = clip(arguments.frames, height, width)
    # FP32 means FP32 here; what is measured afterwards runs with ComfyUI's own switches.
    switches = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    exact = comfy.sd.VAE(sd=dict(state), dtype=torch.float32)
    latent = exact.encode(frames)
    expected = {name: job() for name, job in jobs_of(exact, frames, latent, tile, overlap).items()}
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = switches
    del exact
    management.unload_all_models()
    native = comfy.sd.VAE(sd=dict(state))
    models = {f"ComfyUI {str(native.vae_dtype).removeprefix('torch.')}": lambda: native}
    for precision in filter(None, arguments.precisions.split(",")):
        models[f"engine {precision}"] = lambda choice=precision: accelerate(native, Choices(choice))
    results = []
    for label, make in models.items():
        management.unload_all_models()
        vae = make()
        for name, job in jobs_of(vae, frames, latent, tile, overlap).items():
            result, facts = measured(job, arguments.runs)
            facts = {"model": label, "call": name, "psnr_db": psnr(result, expected[name]), **facts}
            print(json.dumps(facts), flush=True)
            results.append(facts)
        facts = {
            "model": label,
            "call": "reload",
            **reloads(vae, latent, arguments.reloads, management.unload_all_models),
        }
        print(json.dumps(facts), flush=True)
        results.append(facts)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
