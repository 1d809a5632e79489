"""VAE Decode as the ComfyUI node runs it, against the engine's own `decode`: `python -m benchmarks.comfy_decode`.

Needs a GPU; ComfyUI is stood in for by the tests' stub, so what is timed is the node itself.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tests.comfy import stub


def milliseconds(work: Callable[[], object], runs: int = 7) -> float:
    """Median of several runs after two others."""
    times = []
    for _ in range(runs + 2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times[2:])


def main() -> None:
    """Print both times, and whether the pictures are the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, help="a VAE file; the small one of the package if not given")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--frames", type=int, default=21)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        stub.install(models, models)
        (models / "SEEDVR2").mkdir()
        name = "nano"
        if arguments.vae is not None:
            name = arguments.vae.name
            (models / "SEEDVR2" / name).symlink_to(arguments.vae.resolve())
        from seedvr2_engine.comfy.latent_nodes import decode_latent
        from seedvr2_engine.comfy.loader_nodes import LoadVAE

        config = LoadVAE.execute(model=name, device="cuda:0").args[0]
        print(config["engine_report"].text())
        samples = torch.randn(1, 16, (arguments.frames - 1) // 4 + 1, height // 8, width // 8)
        vae, on_gpu = config["model"], samples.cuda()
        node_ms = milliseconds(lambda: decode_latent({"samples": samples}, vae, "unscaled"))
        own_ms = milliseconds(lambda: vae.decode(on_gpu))
        expected = vae.decode(on_gpu)[0].permute(1, 2, 3, 0).float().mul(0.5).add(0.5).clamp(0, 1).cpu()
        same = torch.equal(decode_latent({"samples": samples}, vae, "unscaled"), expected)
    print(f"is_optimized {config['is_optimized']}, frames equal: {same}")
    print(f"node {node_ms:.1f} ms, engine {own_ms:.1f} ms, {100 * (node_ms / own_ms - 1):+.1f} %")


if __name__ == "__main__":
    main()
