"""Several devices of one machine: a process for each, which loads the models once and takes units from this one."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from ...device import is_out_of_memory, resolve_device
from ...errors import JobError, SeedVR2Error
from ..units.unit import Unit
from .events import Event, UnitFailed, UnitFinished
from .queue import MOST_ATTEMPTS, UnitQueue
from .unit_runner import Order, UnitRunner

HANG_S = 900.0
"""A process on a GPU that tells nothing for so long is replaced; loading and compiling take minutes at most."""
_POLL_S = 0.2
_END_S = 5.0
_PROGRESS_S = 0.1


@dataclass
class _Worker:
    """A process and what it is at."""

    name: str
    device: str
    process: BaseProcess
    pipe: Connection
    unit: Unit | None = None
    last: Unit | None = None
    """What it has just finished."""
    heard_s: float = 0.0
    """When it told something."""

    def end(self) -> None:
        """End the process, whatever it is at."""
        self.process.terminate()
        self.process.join(_END_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


class Processes:
    """An `Executor` on devices of this machine, one process each. A process that dies or hangs is replaced."""

    def __init__(self, devices: Sequence[str], *, hang_s: float | None = None) -> None:
        """devices: cuda:0, cpu, ...; the CPU several times makes as many processes of it.

        hang_s: seconds without a word after which a process is replaced; None: HANG_S on GPUs, never on a CPU, where a
        chunk can take hours.
        """
        self._places = tuple(devices)
        self._hang_s = hang_s
        self._failed_starts: dict[str, int] = {}

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices' names, those named several times with numbers."""
        names: list[str] = []
        for index, place in enumerate(self._places):
            before = self._places[:index].count(place)
            names.append(f"{place} ({before + 1})" if self._places.count(place) > 1 else place)
        return tuple(names)

    def run(self, order: Order, queue: UnitQueue, is_stopped: Callable[[], bool]) -> Generator[Event, None, None]:
        """As `Executor.run`."""
        workers: list[_Worker] = []
        try:
            for name, place in zip(self.devices, self._places, strict=True):
                workers.append(_start(name, place, order))
            while not queue.is_done:
                if is_stopped():
                    raise KeyboardInterrupt
                self._hand_out(workers, queue)
                ready = wait([thing for w in workers for thing in (w.pipe, w.process.sentinel)], _POLL_S)
                for index, worker in enumerate(workers):
                    if worker.pipe in ready:
                        yield from self._heard(worker, queue)
                    reason = self._failure(worker)
                    if reason is not None:
                        yield from self._replaced(worker, queue, reason)
                        workers[index] = _start(worker.name, worker.device, order)
        finally:
            for worker in workers:
                worker.process.terminate()
            for worker in workers:
                worker.end()

    def _hand_out(self, workers: list[_Worker], queue: UnitQueue) -> None:
        # Who goes on comes first, or another would take its unit.
        for worker in sorted((w for w in workers if w.unit is None), key=lambda w: not queue.goes_on(w.last)):
            idle = sum(other.unit is None for other in workers)
            unit = queue.take(worker.last, idle)
            if unit is not None:
                worker.unit, worker.heard_s = unit, time.monotonic()
                with contextlib.suppress(OSError):  # It has died, which is seen to next.
                    worker.pipe.send(unit)

    def _heard(self, worker: _Worker, queue: UnitQueue) -> Iterator[Event]:
        """What a process has told until now."""
        try:
            while worker.pipe.poll():
                event: Event = worker.pipe.recv()
                worker.heard_s = time.monotonic()
                if isinstance(event, UnitFinished):
                    queue.finish(event.unit)
                    worker.last, worker.unit = worker.unit, None
                    self._failed_starts.pop(worker.name, None)
                if isinstance(event, UnitFailed) and event.is_final:
                    yield event
                    raise JobError(event.reason)
                if isinstance(event, UnitFailed):
                    yield from self._given_back(worker, queue, event.reason)
                    continue
                yield event
        except (EOFError, OSError):
            return

    def _failure(self, worker: _Worker) -> str | None:
        """Why a process is to be replaced."""
        if not worker.process.is_alive():
            code = worker.process.exitcode
            ended = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
            return f"the process of {worker.name} ended {ended}."
        limit = self._hang_s or (None if worker.device == "cpu" else HANG_S)
        if limit is not None and worker.unit is not None and time.monotonic() - worker.heard_s > limit:
            return f"the process of {worker.name} told nothing for {limit:.0f} seconds."
        return None

    def _replaced(self, worker: _Worker, queue: UnitQueue, reason: str) -> Iterator[Event]:
        worker.end()
        if worker.unit is not None:
            yield from self._given_back(worker, queue, reason)
            return
        starts = self._failed_starts[worker.name] = self._failed_starts.get(worker.name, 0) + 1
        yield UnitFailed(worker.name, None, reason, starts)
        if starts >= MOST_ATTEMPTS:
            raise JobError(f"{worker.name}: expected its process to begin, found that {starts} ended: {reason}")

    def _given_back(self, worker: _Worker, queue: UnitQueue, reason: str) -> Iterator[Event]:
        if worker.unit is None:
            return
        unit, worker.unit, worker.last = worker.unit, None, None
        yield UnitFailed(worker.name, unit.number, reason, queue.give_back(unit.number, reason))


def _start(name: str, device: str, order: Order) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(name, device, order, theirs), name=f"seedvr2 {name}", daemon=True)
    process.start()
    theirs.close()
    return _Worker(name, device, process, ours, heard_s=time.monotonic())


def _work(name: str, device: str, order: Order, pipe: Connection) -> None:
    """What the process of a device does: units, until there is nobody left who gives any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The process that started this one decides when it ends.
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), name="parent", daemon=True).start()
    torch.set_num_threads(order.threads)
    said_s = 0.0
    lock = threading.Lock()

    def tell(event: Event) -> None:
        nonlocal said_s
        with lock:
            if type(event).__name__ == "UnitAdvanced":
                if time.monotonic() - said_s < _PROGRESS_S:
                    return
                said_s = time.monotonic()
            pipe.send(event)

    runner: UnitRunner | None = None
    while True:
        try:
            unit: Unit = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            if runner is None:
                place = resolve_device(device)
                if place.type == "cuda":
                    torch.cuda.set_device(place)
                runner = UnitRunner(order, order.precisions.setup(order.models, place).load, name, tell)
            runner.run(unit)
        except Exception as error:
            tell(UnitFailed(name, unit.number, _sentence(error), 0, is_final=isinstance(error, SeedVR2Error)))
            pipe.close()
            # What failed may have left a GPU's context in pieces; a new process begins with a new one.
            os._exit(1)


def _sentence(error: Exception) -> str:
    if isinstance(error, SeedVR2Error):
        return str(error)
    if is_out_of_memory(error):
        return "the device has too little memory free; try fewer --chunk-frames, a smaller size, or --tile 512."
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}."


def _end_with(sentinel: int) -> None:
    """End this process when the one that started it has ended, also by a signal that it cannot catch."""
    wait([sentinel])
    os._exit(1)
