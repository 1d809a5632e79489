"""How many borders of made clips are found, kind by kind, and how many are made up: ours, and PySceneDetect's.

    python -m benchmarks.shots [--photographs FOLDER] [--each 4] [--seed 1] [KIND ...]

PySceneDetect (`pip install scenedetect-headless`) is left out where it is not installed. It gets the same frames, one
by one: its two detectors of cuts with their defaults, and what suits these clips best: AdaptiveDetector for shots of
two frames and more, with ThresholdDetector for fades.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.shots.clips import KINDS, MadeClip
from benchmarks.shots.scenes import Scenes
from seedvr2_engine.jobs.shots.find import ShotFinder
from seedvr2_engine.jobs.shots.small import made_small
from seedvr2_engine.video import Frame

Finder = Callable[[MadeClip], list[int]]
SAME_FRAMES = 1
"""Two detectors' borders so close to each other are one."""


@dataclass
class Score:
    """Borders of several clips."""

    found: int = 0
    missed: int = 0
    made_up: int = 0

    def count(self, borders: Sequence[tuple[int, int]], got: list[int]) -> None:
        """Match what was found in a clip with what is true of it, each once."""
        left = list(got)
        for first, last in borders:
            hit = next((frame for frame in left if first <= frame <= last), None)
            if hit is None:
                self.missed += 1
            else:
                self.found += 1
                left.remove(hit)
        self.made_up += len(left)

    def describe(self) -> str:
        """As a cell of a table."""
        return f"{self.found}, {self.made_up}"


def ours(clip: MadeClip) -> list[int]:
    """Borders that this package finds."""
    finder = ShotFinder()
    for index, frame in enumerate(clip.frames):
        finder.add(made_small(Frame(frame.float() / 255, None, index, 1)))
    return [shot.start for shot in finder.finish()[1:]]


def others() -> dict[str, Finder]:
    """PySceneDetect's finders; none where it is missing."""
    try:
        from scenedetect import FrameTimecode, detectors
    except ImportError:
        return {}

    def finder(*makers: Callable[[], Any]) -> Finder:
        def find(clip: MadeClip) -> list[int]:
            found: list[int] = []
            made = [maker() for maker in makers]
            pictures = np.ascontiguousarray(clip.frames.permute(0, 2, 3, 1).flip(3).numpy())
            for detector in made:
                for index, picture in enumerate(pictures):
                    found += [at.frame_num for at in detector.process_frame(FrameTimecode(index, 25.0), picture)]
                found += [at.frame_num for at in detector.post_process(FrameTimecode(len(pictures) - 1, 25.0))]
            kept: list[int] = []
            for frame in sorted(found):
                if not kept or frame - kept[-1] > SAME_FRAMES:
                    kept.append(frame)
            return kept

        return find

    return {
        "ContentDetector": finder(detectors.ContentDetector),
        "AdaptiveDetector": finder(detectors.AdaptiveDetector),
        "Adaptive and Threshold, from 2 frames": finder(
            lambda: detectors.AdaptiveDetector(min_scene_len=2),
            lambda: detectors.ThresholdDetector(min_scene_len=2, add_final_scene=False),
        ),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", help="Kinds of clips, in words; all if not given.")
    parser.add_argument("--photographs", type=Path, help="A folder of .jpg files that scenes are also cut from.")
    parser.add_argument("--each", type=int, default=4, help="Clips of a kind and a set of scenes.")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sets = [Scenes(asked.seed)]
    if asked.photographs:
        sets.append(Scenes(asked.seed, asked.photographs))
    finders: dict[str, Finder] = {"ours": ours, **others()}
    totals = {name: Score() for name in finders}
    seconds, frames = dict.fromkeys(finders, 0.0), 0
    print("| kind | clips | borders |", " | ".join(f"{name}: found, made up" for name in finders), "|")
    print("|---|---|---|" + "---|" * len(finders))
    for index, kind in enumerate(asked.kinds or KINDS):
        scores, borders = {name: Score() for name in finders}, 0
        for scenes in sets:
            scenes.rng.manual_seed(1000 * asked.seed + index)
            for _ in range(asked.each):
                clip = KINDS[kind](scenes)
                borders += len(clip.borders)
                frames += len(clip.frames)
                for name, find in finders.items():
                    began = time.process_time()
                    got = find(clip)
                    seconds[name] += time.process_time() - began
                    for score in (scores[name], totals[name]):
                        score.count(clip.borders, got)
        cells = " | ".join(score.describe() for score in scores.values())
        print(f"| {kind} | {asked.each * len(sets)} | {borders} | {cells} |", flush=True)
    for name, score in totals.items():
        precision = score.found / max(1, score.found + score.made_up)
        recall = score.found / max(1, score.found + score.missed)
        cost = seconds[name] / max(1, frames) * 1000
        print(f"{name}: precision {precision:.3f}, recall {recall:.3f}; {cost:.2f} ms of one core a frame")


if __name__ == "__main__":
    main()
