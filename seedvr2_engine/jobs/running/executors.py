"""What takes units and yields events: one device in this process; `processes.py` has several.

Another kind, on other machines say, is another `Executor`: it gives every device an `Order`, lets `UnitRunner` compute
there what `UnitQueue` hands out, and yields the events of both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import Protocol

from ...pipeline.options import UpscaleOptions
from ...pipeline.upscaler import Upscaler
from .events import Event
from .queue import UnitQueue
from .unit_runner import Order, UnitRunner


class Executor(Protocol):
    """Computes units somewhere."""

    @property
    def devices(self) -> tuple[str, ...]:
        """Their names, as events have them."""

    def run(self, order: Order, queue: UnitQueue, is_stopped: Callable[[], bool]) -> Generator[Event, None, None]:
        """Take units from the queue until it is done, and yield what becomes of them.

        Raises JobError where one cannot be finished, KeyboardInterrupt once `is_stopped` says so. All that it has
        started has ended when it ends, or when the iterator is closed.
        """


class OneDevice:
    """Units one after the other, in this process: there is nobody to give a unit to another time."""

    def __init__(self, device: str, load: Callable[[UpscaleOptions], Upscaler]) -> None:
        """load: gives the models, when the first unit needs them."""
        self._device, self._load = device, load

    @property
    def devices(self) -> tuple[str, ...]:
        """The one."""
        return (self._device,)

    def run(self, order: Order, queue: UnitQueue, is_stopped: Callable[[], bool]) -> Generator[Event, None, None]:
        """As `Executor.run`; errors are raised as they are."""
        told: SimpleQueue[Event | None] = SimpleQueue()
        is_closed = False
        errors: list[BaseException] = []

        def work() -> None:
            runner = UnitRunner(order, self._load, self._device, told.put, lambda: is_closed or is_stopped())
            unit = None
            try:
                while (unit := queue.take(unit)) is not None:
                    runner.run(unit)
                    queue.finish(unit.number)
            except BaseException as error:  # It belongs to whoever takes the events.
                errors.append(error)
            finally:
                runner.close()
                told.put(None)

        thread = threading.Thread(target=work, name="units", daemon=True)
        thread.start()
        try:
            while (event := told.get()) is not None:
                yield event
        finally:
            is_closed = True
            thread.join()
        if errors:
            raise errors[0]
