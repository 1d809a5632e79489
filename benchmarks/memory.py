"""Peak memory of `seedvr2 reconstruct` or `upscale` against the length of the clip: it must not grow.

Run: python benchmarks/memory.py [--job upscale --dit FILE] [--size 160x96] [--frames 60 600]
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from seedvr2_engine.video import SinkOptions, open_sink


def write_clip(path: Path, width: int, height: int, frames: int) -> None:
    """A drifting pattern."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    with open_sink(path, width=width, height=height, options=SinkOptions(codec="h264")) as sink:
        for index in range(frames):
            waves = [((rows + step * columns + 3 * index) / 17).sin() for step in (1, 2, 3)]
            sink.write(torch.stack(waves) * 0.5 + 0.5)


def peak_bytes(job: list[str], source: Path, target: Path) -> int:
    """Run the command in a process of its own and return its largest resident size."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    command = [sys.executable, "-m", "seedvr2_engine", job[0], str(source), str(target), *job[1:]]
    subprocess.run(command, check=True, capture_output=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # Linux keeps the largest of all children: a later run that stays below an earlier one cannot be told apart.
    return max(before, peak) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", choices=("reconstruct", "upscale"), default="reconstruct")
    parser.add_argument("--dit", default="nano")
    parser.add_argument("--span", choices=("clip", "chunk"), default="clip")
    parser.add_argument("--size", default="160x96")
    parser.add_argument("--frames", type=int, nargs="+", default=[60, 600])
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    job = [options.job, "--vae", "nano"]
    if options.job == "upscale":
        job += ["--dit", options.dit, "--scale", "1", "--chunk-frames", "25", "--vae-span", options.span]
    with tempfile.TemporaryDirectory() as folder:
        first: int | None = None
        for frames in sorted(options.frames):
            source, target = Path(folder) / f"{frames}.mp4", Path(folder) / f"{frames}-out.mp4"
            write_clip(source, width, height, frames)
            peak = peak_bytes(job, source, target)
            first = first or peak
            print(f"{options.size}, {frames:4d} frames: {peak / 2**20:7.1f} MiB, {peak / first:.3f} of the shortest")


if __name__ == "__main__":
    main()
