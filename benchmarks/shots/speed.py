"""What looking for shots costs a frame, beside decoding alone.

    python -m benchmarks.shots.speed CLIP [--frames 200]

CPU time of one thread for what is ours; decoding has as many threads as FFmpeg takes.
"""

from __future__ import annotations

import argparse
import time

import torch

from seedvr2_engine.jobs.shots.find import ShotFinder
from seedvr2_engine.jobs.shots.small import made_small
from seedvr2_engine.video import open_source


def main() -> None:
    """Print milliseconds a frame."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("--frames", type=int, default=None)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    finder, small_s, rule_s = ShotFinder(), 0.0, 0.0
    with open_source(asked.clip, frames=asked.frames) as source:
        info, began = source.info, time.process_time()
        for frame in source.coded():
            start = time.thread_time()
            small = made_small(frame)
            middle = time.thread_time()
            finder.add(small)
            small_s, rule_s = small_s + middle - start, rule_s + time.thread_time() - middle
        whole_s = time.process_time() - began
    count = info.selected_frames
    decoding_s = whole_s - small_s - rule_s
    print(f"{info.width}x{info.height}, {count} frames, {len(finder.finish())} shots, ms of CPU a frame:")
    for name, seconds in (("decoding", decoding_s), ("small frames", small_s), ("the rule", rule_s)):
        print(f"{name}: {seconds / count * 1000:.2f}")


if __name__ == "__main__":
    main()
