"""A few hundred mutated clips and pictures; run `fuzz_media` itself for many thousands."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from . import fuzz_media
from .fuzz_seeds import ENDINGS, promised_frames, seed_files

ROOT = Path(__file__).parents[3]
COUNT = 2 * len(ENDINGS) * len(fuzz_media.MUTATIONS)
needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="what is planted here is seen by forks alone"
)


def test_mutated_files_are_refused_or_whole(tmp_path: Path) -> None:
    # A process of its own, because its workers are forks of it.
    command = [sys.executable, "-m", "tests.video.fuzz.fuzz_media", "--count", str(COUNT), "--seed", "1"]
    result = subprocess.run([*command, "--keep", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr + result.stdout
    assert f"{COUNT} mutants" in result.stdout


def test_mutants_are_the_same_every_time(tmp_path: Path) -> None:
    seeds = seed_files(tmp_path)
    assert [seed.ending for seed in seeds] == list(ENDINGS)
    for index in range(0, COUNT, 7):
        assert fuzz_media.mutant(3, index, seeds) == fuzz_media.mutant(3, index, seeds)


def test_a_reader_that_stops_early_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = seed_files(tmp_path)
    real = fuzz_media.open_source
    monkeypatch.setattr(fuzz_media, "open_source", lambda path, damaged: real(path, damaged=damaged, frames=7))
    for seed in seeds:
        if seed.frames == 1:
            continue
        path = tmp_path / f"intact.{seed.ending}"
        path.write_bytes(seed.content)
        assert promised_frames(path, seed) == 10
        result = fuzz_media.examine_both_ways(path, seed, 0)
        assert set(result.outcomes.values()) == {"silent"}, seed.ending


@needs_fork
def test_crashes_and_tracebacks_are_noticed_and_the_rest_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def examine(path: Path, intact: object, damaged: str) -> str:
        if path.name == "mutant.mkv":
            os._exit(11)
        if path.name == "mutant.webm":
            raise MemoryError
        return "whole"

    outcomes = outcomes_of(monkeypatch, examine, 8)
    assert outcomes == {2: "crash", 3: "traceback"} | dict.fromkeys((0, 1, 4, 5, 6, 7), "whole")


@needs_fork
def test_a_hang_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def examine(path: Path, intact: object, damaged: str) -> str:
        if path.stem == "mutant":
            signal.pause()
        return "whole"

    monkeypatch.setattr(fuzz_media, "SECONDS_PER_FILE", 0.1)
    assert outcomes_of(monkeypatch, examine, 2) == {0: "hang", 1: "hang"}


def outcomes_of(monkeypatch: pytest.MonkeyPatch, examine: Callable[..., str], count: int) -> dict[int, str]:
    """Of mutants that are read by another function, by index."""
    results: list[fuzz_media.Result] = []
    monkeypatch.setattr(fuzz_media, "examine", examine)
    fuzz_media.fuzz(0, count, 2, results.append)
    return {result.index: result.outcomes["keep"] for result in results}
