"""Mutate clips and pictures; each must be refused with a sentence or give all the frames that it promises.

    python -m tests.video.fuzz.fuzz_media --count 10000 --jobs 2 [--seed 0] [--only INDEX]

Every mutant is opened and read to its end twice: as it is by default, and with damaged frames kept. A worker process
reads many, one after another; one that crashes or works longer than ten seconds is replaced, and memory is limited.
Prints what came of each format and of each mutation, keeps the files that went wrong, and exits with 1 if any did.
`--only` makes one mutant again, reads it in this process, and shows the traceback.
"""

from __future__ import annotations

import argparse
import multiprocessing
import multiprocessing.connection
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from seedvr2_engine.errors import SeedVR2Error
from seedvr2_engine.video import open_source
from tests.video.fuzz.fuzz_seeds import SeedFile, promised_frames, seed_files
from tests.video.fuzz.mutations import MUTATIONS

SECONDS_PER_FILE = 10.0
"""Of work, as far as the system tells how long a process has had a core."""
WAITING = 6
"""How many times as long a file may take where others keep the cores busy."""
EXTRA_BYTES = 2 << 30
"""Address space of a worker beyond what it has after a warm-up: FFmpeg's threads have stacks and heaps of their own."""
GOOD = ("whole", "shorter", "kept", "refused")
"""Outcomes that are right. "shorter": all that the mutant itself promises; "kept": less, and said so."""


class Result(NamedTuple):
    """What came of one mutant."""

    index: int
    outcomes: dict[str, str]
    """"refuse" and "keep" -> one of `GOOD`, or "traceback", "silent", "sentence", "hang", "crash"."""
    detail: str
    """What went wrong; empty where nothing did."""


def mutant(seed: int, index: int, seeds: Sequence[SeedFile]) -> tuple[SeedFile, str, bytes]:
    """The intact file, the mutation's name and the mutated bytes; formats and mutations take turns."""
    rng = random.Random(f"{seed} {index}")
    intact = seeds[index % len(seeds)]
    name = list(MUTATIONS)[(index // len(seeds)) % len(MUTATIONS)]
    return intact, name, MUTATIONS[name](rng, intact.content, rng.choice(seeds).content) or b"\0"


class Wrong(Exception):  # noqa: N818
    """A mutant was read in a way that it must not be: the outcome and what was seen."""


def examine(path: Path, intact: SeedFile, damaged: Literal["refuse", "keep"]) -> str:
    """Return one of `GOOD`; anything else raises."""
    count = 0
    try:
        with open_source(path, damaged=damaged) as source:
            for frame in source:
                assert frame.rgb.shape[1:] == (source.info.height, source.info.width), "size of a frame"
                count += 1
    except SeedVR2Error as error:
        if "\n" in str(error) or path.name not in str(error):
            raise Wrong("sentence", f"several lines, or the file is not named: {error}") from error
        return "refused"
    if any("\n" in warning for warning in source.warnings):
        raise Wrong("sentence", f"a warning of several lines: {source.warnings}")
    if count >= intact.frames:
        return "whole"
    promised = promised_frames(path, intact)
    if damaged == "keep" and source.warnings and getattr(source, "is_incomplete", True):
        return "kept"
    if count < promised:
        raise Wrong("silent", f"{count} frames of {promised}, and nothing said; warnings: {source.warnings}")
    return "shorter"


def examine_both_ways(path: Path, intact: SeedFile, index: int) -> Result:
    outcomes, details = {}, []
    for damaged in ("refuse", "keep"):
        try:
            outcomes[damaged] = examine(path, intact, damaged)
        except Wrong as wrong:
            outcomes[damaged] = wrong.args[0]
            details.append(f"{damaged}: {wrong.args[1]}")
        except Exception as error:
            outcomes[damaged] = "traceback"
            at = traceback.extract_tb(error.__traceback__)[-1]
            details.append(f"{damaged}: {type(error).__name__}: {error} ({Path(at.filename).name}:{at.lineno})")
    return Result(index, outcomes, "; ".join(details))


def work(pipe: Any, seed: int, indices: Sequence[int], seeds: Sequence[SeedFile], folder: Path) -> None:
    """A worker: sends the index of a mutant before it is read, and its `Result` after."""
    torch.set_num_threads(1)
    for intact in seeds:
        path = folder / f"intact.{intact.ending}"
        path.write_bytes(intact.content)
        assert examine(path, intact, "refuse") == "whole", intact.ending
    limit_memory()
    for index in indices:
        intact, _, content = mutant(seed, index, seeds)
        path = folder / f"mutant.{intact.ending}"
        path.write_bytes(content)
        pipe.send(index)
        pipe.send(examine_both_ways(path, intact, index))
    pipe.close()


def limit_memory() -> None:
    """Of this process, where the system lets us."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + EXTRA_BYTES, used + EXTRA_BYTES))


class Worker:
    """A process that reads mutants, and what it is at."""

    def __init__(self, seed: int, indices: Sequence[int], seeds: Sequence[SeedFile], folder: Path) -> None:
        # A fork has PyTorch already; where there is none, a worker imports it again.
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
        folder.mkdir(exist_ok=True)
        self.indices, self.at = indices, -1
        self.since, self.worked_s = time.monotonic(), 0.0
        self.pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=work, args=(theirs, seed, indices, seeds, folder), daemon=True)
        self.process.start()
        theirs.close()

    def begin(self, index: int) -> None:
        """Note that it has begun with a mutant, or is between two (-1)."""
        self.at, self.since, self.worked_s = index, time.monotonic(), self._worked_s() or 0.0

    def is_late(self) -> bool:
        """Whether it takes too long for a mutant."""
        seconds = time.monotonic() - self.since
        if self.at < 0 or seconds <= SECONDS_PER_FILE:
            return False
        worked_s = self._worked_s()
        return worked_s is None or worked_s - self.worked_s > SECONDS_PER_FILE or seconds > WAITING * SECONDS_PER_FILE

    def _worked_s(self) -> float | None:
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError, AttributeError):
            return None

    def stop(self) -> str:
        """End the process; returns how it had ended before, as a sentence."""
        self.process.join(0.5)
        code = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.pipe.close()
        return "still running" if code is None else f"ended with {code}"


def fuzz(seed: int, count: int, jobs: int, report: Callable[[Result], None]) -> None:
    """Read `count` mutants in `jobs` processes; `report` is called with every result."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = seed_files(folder)
        workers = {k: Worker(seed, range(k, count, jobs), seeds, folder / str(k)) for k in range(jobs)}
        try:
            while workers:
                ready = multiprocessing.connection.wait([worker.pipe for worker in workers.values()], 1.0)
                for k, worker in list(workers.items()):
                    ended = False
                    if worker.pipe in ready:
                        try:
                            received = worker.pipe.recv()
                        except (EOFError, OSError):
                            ended = True
                        else:
                            if isinstance(received, Result):
                                report(received)
                            worker.begin(-1 if isinstance(received, Result) else received)
                    late = worker.is_late()
                    if not ended and not late:
                        continue
                    why = worker.stop()
                    del workers[k]
                    if worker.at < 0:
                        if why != "ended with 0":
                            raise RuntimeError(f"a worker {why} outside any mutant")
                        continue
                    kind = "hang" if late else "crash"
                    report(Result(worker.at, {"refuse": kind, "keep": kind}, f"{kind}: the worker {why}"))
                    rest = worker.indices[worker.indices.index(worker.at) + 1 :]
                    if rest:
                        workers[k] = Worker(seed, rest, seeds, folder / str(k))
        finally:
            for worker in workers.values():
                worker.stop()


def table(results: Sequence[Result], names: Sequence[str]) -> str:
    """Rows of counts: of every name its outcomes by default / with damaged frames kept."""
    rows: dict[str, Counter[str]] = {}
    for result, name in zip(results, names, strict=True):
        for outcome in result.outcomes.items():
            rows.setdefault(name, Counter())[" ".join(outcome)] += 1
    bad = sorted({o for r in results for o in r.outcomes.values()} - set(GOOD))
    shown = [*GOOD, *bad]
    lines = [" " * 8 + "".join(f"{outcome:>14}" for outcome in shown)]
    for name in [*rows, "all"]:
        counts = rows[name] if name in rows else sum(rows.values(), Counter[str]())
        cells = (f"{counts[f'refuse {outcome}']} / {counts[f'keep {outcome}']}" for outcome in shown)
        lines.append(f"{name:8}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="INDEX")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "fuzz_media", metavar="FOLDER")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        seeds = seed_files(Path(name))

    def keep(index: int) -> Path:
        intact, mutation, content = mutant(options.seed, index, seeds)
        options.keep.mkdir(parents=True, exist_ok=True)
        path: Path = options.keep / f"{options.seed}_{index:05}_{mutation}.{intact.ending}"
        path.write_bytes(content)
        return path

    if options.only is not None:
        path = keep(options.only)
        for damaged in ("refuse", "keep"):
            print(f"{path}, {damaged}: {examine(path, seeds[options.only % len(seeds)], damaged)}")
        return 0
    results: list[Result] = []

    def report(result: Result) -> None:
        results.append(result)
        if result.detail:
            print(f"{keep(result.index)}: {result.detail}", file=sys.stderr)
        if len(results) % 500 == 0:
            print(f"{len(results)} of {options.count}", file=sys.stderr)

    began = time.monotonic()
    fuzz(options.seed, options.count, options.jobs, report)
    seconds = time.monotonic() - began
    kinds = [mutant(options.seed, result.index, seeds)[:2] for result in results]
    print("by default / with damaged frames kept\n")
    print(table(results, [intact.ending for intact, _ in kinds]), end="\n\n")
    print(table(results, [mutation for _, mutation in kinds]), end="\n\n")
    wrong = sum(bool(result.detail) for result in results)
    print(f"{len(results)} mutants in {seconds:.0f} s, seed {options.seed}: {wrong} went wrong")
    return 1 if wrong or len(results) != options.count else 0


if __name__ == "__main__":
    sys.exit(main())
