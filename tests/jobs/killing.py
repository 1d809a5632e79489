"""Jobs killed with SIGKILL at random moments and continued, until they end: the same bytes as of one that was not.

`python -m tests.jobs.killing --count 20 --seed 1` takes stand-ins for the models in one process;
`--devices cpu,cpu` the small models, in two.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from seedvr2_engine.jobs.folder.job_folder import folder_for
from seedvr2_engine.jobs.run import run_job
from seedvr2_engine.jobs.running.events import Event, UnitAdvanced
from seedvr2_engine.jobs.running.executors import OneDevice

from .made import job, stand_in, write_clip

_SLOWER_S = 0.02
_MOST_RUNS = 30
_SMALL = {"options": {"resolution": 16, "scale": None}}


def run(source: Path, target: Path, devices: tuple[str, ...]) -> None:
    """Run the job in this process, not too fast, and say on standard output that it has begun."""

    def slowly(event: Event) -> None:
        if isinstance(event, UnitAdvanced):
            time.sleep(_SLOWER_S)
        print(type(event).__name__, flush=True)

    if len(devices) > 1:
        run_job(job(source, target, **_SMALL), devices=devices, on_event=slowly)
    else:
        run_job(job(source, target), devices=devices, on_event=slowly, executor=OneDevice("cpu", stand_in))


def killed(source: Path, target: Path, devices: str, chance: random.Random, kills: int) -> int:
    """Run the job in a process of its own, kill it, and again, then let it end; how often it was killed."""
    for done in range(_MOST_RUNS):
        command = [sys.executable, "-m", "tests.jobs.killing", "--run", str(source), str(target), devices]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            if done < kills:
                for _ in range(chance.randint(1, 60)):
                    process.stdout.readline()
                time.sleep(chance.random() * 0.1)
                process.send_signal(signal.SIGKILL)
            process.stdout.read()
            process.wait()
        if process.returncode == 0 or (target.exists() and not folder_for(target).exists()):
            return done
        if process.returncode != -signal.SIGKILL:
            raise AssertionError(f"{target}: ended with {process.returncode}")
    raise AssertionError(f"{target}: not finished after {_MOST_RUNS} runs")


def check(folder: Path, count: int, seed: int, devices: str, ending: str) -> tuple[int, list[str]]:
    """Kill so many jobs; how often all of them were killed, and what was wrong."""
    source, chance, faults, kills = write_clip(folder / "in.mkv"), random.Random(seed), [], 0
    once = folder / f"once{ending}"
    run_once = {"executor": OneDevice("cpu", stand_in)} if "," not in devices else {}
    run_job(job(source, once, **(_SMALL if "," in devices else {})), devices=("cpu",), **run_once)
    for number in range(count):
        target = folder / f"out{number}{ending}"
        kills += killed(source, target, devices, chance, chance.randint(1, 3))
        if target.read_bytes() != once.read_bytes():
            faults.append(f"{target.name}: other bytes")
        if folder_for(target).exists():
            faults.append(f"{target.name}: its folder was left")
    allowed = {source.name, once.name, *(f"out{number}{ending}" for number in range(count))}
    faults += [f"{path.name}: left behind" for path in sorted(folder.iterdir()) if path.name not in allowed]
    return kills, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--devices", default="cpu")
    parser.add_argument("--ending", default=".mp4")
    parser.add_argument("--run", nargs=3)
    asked = parser.parse_args()
    if asked.run:
        source, target, devices = asked.run
        run(Path(source), Path(target), tuple(devices.split(",")))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        kills, faults = check(Path(folder), asked.count, asked.seed, asked.devices, asked.ending)
    print(f"{asked.count} jobs, killed {kills} times, {len(faults)} faults", *faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
