"""Peak memory of `seedvr2 reconstruct` against the length of the clip: it must not grow.

Run: python benchmarks/memory.py [WIDTH HEIGHT FRAMES ...]     (default: 160 96 60 600)
"""

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


def peak_bytes(source: Path, target: Path) -> int:
    """Run the command in a process of its own and return its largest resident size."""
    command = [sys.executable, "-m", "seedvr2_engine", "reconstruct", str(source), str(target), "--vae", "nano"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    subprocess.run(command, check=True, capture_output=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # Linux keeps the largest of all children: a later run that stays below an earlier one cannot be told apart.
    return max(before, peak) * 1024


def main(width: int, height: int, lengths: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first: int | None = None
        for frames in sorted(lengths):
            source, target = Path(folder) / f"{frames}.mp4", Path(folder) / f"{frames}-out.mp4"
            write_clip(source, width, height, frames)
            peak = peak_bytes(source, target)
            first = first or peak
            print(f"{width}x{height}, {frames:4d} frames: {peak / 2**20:7.1f} MiB, {peak / first:.3f} of the shortest")


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]] or [160, 96, 60, 600]
    main(numbers[0], numbers[1], numbers[2:])
