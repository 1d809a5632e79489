"""Interrupt real `seedvr2 upscale` runs at random moments; nothing that was there and no finished frame may be lost.

    python -m tests.cli.interrupting.interrupt --count 300 [--jobs 2] [--seed 0] [--only INDEX] [--real-models]

Runs are forks of a process that has loaded everything; a stand-in for the models takes some milliseconds a frame.
They are ended by signals, closed streams, a full disk or kill -9, at a random time or soon after they began to read,
compute, write or finish. What is in the folder then is judged by `judge`. Prints a table and every fault; exits with
1 if there are any.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import selectors
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.cli.interrupting import interrupted_run
from tests.cli.interrupting.interrupted_folder import Folder, judge
from tests.cli.interrupting.interrupted_run import COMPUTED, FINISHING, READ, WRITTEN
from tests.cli.interrupting.small_disk import fill, own_mounts, small_disk
from tests.conftest import GOLDEN
from tests.video.made.clips import ClipSpec, write_clip

FRAMES = 60
SECONDS_TO_BEGIN = {False: 40.0, True: 600.0}
"""What a run has until its moment comes, with a stand-in for the models and with real ones."""
SECONDS_TO_END = 20.0
"""What a run has, after it was interrupted, before it counts as hanging."""


class Output(NamedTuple):
    """A kind of output."""

    name: str
    options: tuple[str, ...] = ()


OUTPUTS = {
    "mp4": Output("out.mp4"),
    "mkv": Output("out.mkv", ("--codec", "ffv1")),
    "webm": Output("out.webm"),
    "mov": Output("out.mov", ("--codec", "prores")),
    "new folder": Output("out"),
    "old folder": Output("out", ("--overwrite",)),
    "picture": Output("out.png"),
}
ENDINGS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGINT twice", "no stderr", "no stdout", "terminal", "full disk", "SIGKILL")
"""A "terminal" that closes is a SIGHUP and streams that are gone."""
PHASES = {"any time": b"", "reading": READ, "computing": COMPUTED, "writing": WRITTEN, "finishing": FINISHING}


class Case(NamedTuple):
    """One run and its end."""

    index: int
    output: str
    ending: str
    phase: str
    event: int
    """After how many events of the phase it is ended."""
    delay_s: float
    overwrites: bool
    is_crowded: bool
    """Whether somebody has files whose names are like temporary ones."""


class Ended(NamedTuple):
    """What was seen of a run."""

    code: int
    """As a shell has it, but -N for a signal N that killed it."""
    stdout: str
    stderr: str
    written: int
    """Frames that the sink had taken."""
    at: str
    """What it was at when it was interrupted; "over" where it had ended."""
    hangs: bool


class Outcome(NamedTuple):
    """What came of a case."""

    case: Case
    ended: Ended
    faults: list[str]
    lost: int
    """Frames that were written and are in no file."""


def case_of(seed: int, index: int) -> Case:
    """Outputs and endings take turns, so that every pair comes up among 63; the moment is random."""
    rng = random.Random(f"{seed} {index}")
    output = list(OUTPUTS)[index % len(OUTPUTS)]
    ending = ENDINGS[index % len(ENDINGS)]
    phase = rng.choice([*PHASES, "finishing"])
    event = rng.randint(1, {"reading": FRAMES, "computing": FRAMES, "writing": FRAMES}.get(phase, 1))
    if output == "picture":
        event = 1
    # The end takes some milliseconds, and more where the disk is slow.
    delay_s = 0.04 * rng.random() ** 3 if phase == "finishing" else rng.uniform(0, 1.2 if phase == "any time" else 0.01)
    overwrites = output == "old folder" or (output != "new folder" and rng.random() < 0.5)
    return Case(index, output, ending, phase, event, delay_s, overwrites, is_crowded=rng.random() < 0.25)


class Sources(NamedTuple):
    """What all runs share."""

    clip: Path
    picture: Path
    dit: Path


def make_sources(folder: Path) -> Sources:
    text = torch.randn(7, 64, generator=torch.manual_seed(1))
    save_file(
        {**load_file(GOLDEN / "dit_tiny_3b.safetensors"), "positive_conditioning": text}, folder / "dit.safetensors"
    )
    spec = ClipSpec("ffv1", "bgr0", Fraction(25), audio="aac", audio_s=FRAMES / 25)
    rows, columns = np.mgrid[:24, :32]
    pictures = [
        np.stack([rows * 8, columns * 6, (rows + columns + 4 * i) % 256], -1).astype(np.uint8) for i in range(FRAMES)
    ]
    clip = write_clip(folder / "clip.mkv", pictures, spec)
    Image.fromarray(pictures[0]).save(folder / "picture.png")
    return Sources(clip, folder / "picture.png", folder / "dit.safetensors")


def run_case(case: Case, sources: Sources, place: Path, *, real_models: bool = False) -> Outcome:
    """Run one command in the folder `place`, which is made and removed, end it, and judge what is left."""
    place.mkdir()
    with small_disk(place) if case.ending == "full disk" else contextlib.nullcontext(True) as is_small:
        try:
            source = sources.picture if case.output == "picture" else sources.clip
            frames = 1 if case.output == "picture" else FRAMES
            name = OUTPUTS[case.output].name
            folder = Folder.make(place, source, name, frames, has_old=case.overwrites, is_crowded=case.is_crowded)
            arguments = ["upscale", str(folder.source), str(folder.target), "--dit", str(sources.dit)]
            arguments += ["--vae", str(GOLDEN / "vae_tiny.safetensors"), "--scale", "2", "--color", "none"]
            arguments += [*OUTPUTS[case.output].options, *(["--overwrite"] if case.overwrites else [])]
            limit = None if is_small else random.Random(case.index).randrange(1, 60_000)
            run = interrupted_run.start(arguments, real_models=real_models, file_bytes=limit)
            ended = watch(run, case, place, SECONDS_TO_BEGIN[real_models])
            faults, lost = judge(folder, case.ending, ended)
            return Outcome(case, ended, faults, lost)
        finally:
            shutil.rmtree(place / "work", ignore_errors=True)


def watch(run: interrupted_run.Run, case: Case, place: Path, seconds_to_begin: float) -> Ended:
    """Read what a run prints and tells, interrupt it at its moment, and wait for its end."""
    texts = {run.stdout: bytearray(), run.stderr: bytearray(), run.events: bytearray()}
    is_open = set(texts)
    began, due, interrupted_at = time.monotonic(), None, None
    if case.phase == "any time":
        due = began + case.delay_s
    status, at, hangs, second_due = None, "over", False, None
    with selectors.DefaultSelector() as selector:
        for descriptor in texts:
            selector.register(descriptor, selectors.EVENT_READ)

        def close(descriptor: int) -> None:
            if descriptor in is_open:
                selector.unregister(descriptor)
                os.close(descriptor)
                is_open.discard(descriptor)

        def interrupt() -> None:
            if case.ending in ("no stderr", "terminal"):
                close(run.stderr)
            if case.ending in ("no stdout", "terminal"):
                close(run.stdout)
            if case.ending == "full disk":
                fill(place)
            name = {"SIGINT twice": "SIGINT", "terminal": "SIGHUP"}.get(case.ending, case.ending)
            if name.startswith("SIG"):
                os.kill(run.process_id, getattr(signal, name))

        while status is None or is_open:
            for key, _ in selector.select(0.002):
                read = os.read(key.fd, 1 << 16)
                texts[key.fd] += read
                if not read:
                    close(key.fd)
            now = time.monotonic()
            if due is None and bytes(texts[run.events]).count(PHASES[case.phase]) >= case.event:
                due = now + case.delay_s
            if status is None:
                process, code = os.waitpid(run.process_id, os.WNOHANG)
                if process:
                    status = os.waitstatus_to_exitcode(code)
                    continue
                if due is not None and now >= due and interrupted_at is None:
                    interrupted_at, at = now, phase_of(bytes(texts[run.events]))
                    interrupt()
                    second_due = now + case.delay_s / 2 if case.ending == "SIGINT twice" else None
                if second_due is not None and now >= second_due:
                    second_due = None
                    os.kill(run.process_id, signal.SIGINT)
                if now - (interrupted_at or began + seconds_to_begin) > SECONDS_TO_END:
                    hangs = True
                    os.kill(run.process_id, signal.SIGKILL)
                    status = os.waitstatus_to_exitcode(os.waitpid(run.process_id, 0)[1])
    stdout, stderr = (texts[d].decode(errors="replace") for d in (run.stdout, run.stderr))
    return Ended(status, stdout, stderr, bytes(texts[run.events]).count(WRITTEN), at, hangs)


def phase_of(events: bytes) -> str:
    """What a run is at that has told these events."""
    if interrupted_run.FINISHED in events:
        return "finished"
    for name in ("finishing", "writing", "computing", "reading"):
        if PHASES[name] in events:
            return name
    return "starting"


def work(
    cases: Sequence[Case], sources: Sources, folder: Path, real_models: bool, send: Callable[[Outcome], None]
) -> None:
    own_mounts()
    for case in cases:
        send(run_case(case, sources, folder / f"case {case.index}", real_models=real_models))


def outcomes(cases: Sequence[Case], jobs: int = 1, *, real_models: bool = False) -> Iterator[Outcome]:
    """Run cases, side by side in `jobs` processes, as they end."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = make_sources(folder)
        interrupted_run.load_models_once(sources.dit, GOLDEN / "vae_tiny.safetensors")
        processes = [
            context.Process(target=work, args=(cases[k::jobs], sources, folder, real_models, queue.put), daemon=True)
            for k in range(jobs)
        ]
        for process in processes:
            process.start()
        try:
            for _ in cases:
                while queue.empty():
                    if any(process.exitcode for process in processes):
                        raise RuntimeError("a worker of the harness failed")
                    time.sleep(0.01)
                yield queue.get()
        finally:
            for process in processes:
                process.kill()
                process.join()


def table(found: Sequence[Outcome]) -> str:
    """Outputs down, endings across: runs, and of them those at fault."""
    lines = [" " * 12 + "".join(f"{ending:>14}" for ending in ENDINGS)]
    for row in (*OUTPUTS, *PHASES, "starting", "finished", "over"):
        cells: Counter[str] = Counter()
        faults: Counter[str] = Counter()
        for outcome in found:
            if row in (outcome.case.output, outcome.ended.at):
                cells[outcome.case.ending] += 1
                faults[outcome.case.ending] += bool(outcome.faults)
        if cells:
            lines.append(
                f"{row:12}"
                + "".join(f"{f'{cells[e]}' + (f', {faults[e]} bad' if faults[e] else ''):>14}" for e in ENDINGS)
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="INDEX")
    parser.add_argument("--real-models", action="store_true")
    options = parser.parse_args(arguments)
    indices = range(options.count) if options.only is None else [options.only]
    began, found = time.monotonic(), []
    for outcome in outcomes([case_of(options.seed, i) for i in indices], options.jobs, real_models=options.real_models):
        found.append(outcome)
        if outcome.faults or options.only is not None:
            print(f"{outcome.case}\n  {outcome.ended.at}, exit {outcome.ended.code}, {outcome.ended.written} written")
            for fault in outcome.faults:
                print(f"  - {fault}")
        if options.only is not None:
            print(outcome.ended.stdout, outcome.ended.stderr, sep="\n")
    print(table(found), end="\n\n")
    killed = [outcome.lost for outcome in found if outcome.case.ending == "SIGKILL"]
    bad = sum(bool(outcome.faults) for outcome in found)
    print(f"frames lost to kill -9, at most: {max(killed, default=0)} of {FRAMES}")
    print(f"{len(found)} interruptions in {time.monotonic() - began:.0f} s, seed {options.seed}: {bad} at fault")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
