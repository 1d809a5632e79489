"""Threads beside the main one: loading, reading, computing and writing overlap."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

READ_AHEAD_FRAMES = 4
_WRITE_BEHIND_FRAMES = 4
_WRITE_BEHIND_BYTES = 256 << 20
_POLL_S = 0.1


def write_behind(frame_bytes: int, device: torch.device) -> int:
    """How many results may wait for whoever writes them.

    A GPU gives a chunk's frames all at once, and is not to wait while they are encoded.
    """
    if device.type != "cuda":
        return _WRITE_BEHIND_FRAMES
    return max(_WRITE_BEHIND_FRAMES, _WRITE_BEHIND_BYTES // frame_bytes)


class _End:
    """The last thing in the queue: what the thread ended with."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class prefetched(Iterator[Item], Generic[Item]):  # noqa: N801  (it is used like a function)
    """Yields `items`, which a thread of its own makes up to `depth` ahead; an error there is raised here, in its turn.

    The thread starts with `start`, or else with the first item that is asked for. `close` has it stop at its next item
    and waits for it; `items` is closed in the thread if it can be. Once `is_cancelled` says so, what has been made is
    still yielded, and then KeyboardInterrupt is raised without waiting for the thread, which may be in the midst of a
    long step.
    """

    def __init__(
        self,
        items: Iterable[Item],
        depth: int,
        is_cancelled: Callable[[], bool] = lambda: False,
        name: str = "prefetch",
    ) -> None:
        """name: the thread's."""
        self._items = items
        self._slots: queue.Queue[Item | _End] = queue.Queue(maxsize=depth)
        self._is_cancelled = is_cancelled
        self._name = name
        self._stopped = threading.Event()
        self._waits: list[float] = []
        self._thread: threading.Thread | None = None
        self._is_over = False

    def __iter__(self) -> prefetched[Item]:
        return self

    def __next__(self) -> Item:
        if self._is_over:
            raise StopIteration
        self.start()
        item = self._take()
        if isinstance(item, _End):
            self.close()
            if item.error is not None:
                raise item.error
            raise StopIteration
        return item

    def start(self) -> None:
        """Start the thread, unless it has been."""
        if self._thread is None:
            # It refers to the parts and not to this object, so that one which is forgotten can end its thread.
            work = (self._items, self._slots, self._stopped, self._waits)
            self._thread = threading.Thread(target=_work, args=work, name=self._name, daemon=True)
            self._thread.start()

    @property
    def waited_s(self) -> float:
        """Seconds that the thread has waited for room, because whoever takes the items was slower."""
        return sum(self._waits)

    def close(self) -> None:
        """Stop the thread and wait until it has ended."""
        self._is_over = True
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def __del__(self) -> None:
        self._stopped.set()

    def _take(self) -> Item | _End:
        while True:
            try:
                return self._slots.get(timeout=_POLL_S)
            except queue.Empty:
                if self._is_cancelled():
                    raise KeyboardInterrupt from None


def _work(items: Iterable[Item], slots: queue.Queue[Item | _End], stopped: threading.Event, waits: list[float]) -> None:
    def offer(item: Item | _End) -> bool:
        while not stopped.is_set():
            try:
                slots.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    error: BaseException | None = None
    try:
        for item in items:
            began = time.perf_counter()
            is_taken = offer(item)
            waits.append(time.perf_counter() - began)
            if not is_taken:
                break
        close = getattr(items, "close", None)
        if close is not None:
            close()
    except BaseException as caught:  # Whatever it is, it belongs to whoever asked for the items.
        error = caught
    offer(_End(error))


class _StoppedError(Exception):
    """Ends the thread of work that nobody waits for any more."""


class Begun(Generic[Result]):
    """Runs `work` in a thread from now on; leaving the `with` block stops it and waits for it.

    work: is given what it calls before every step; that raises where the work is to stop.
    """

    def __init__(self, work: Callable[[Callable[[], None]], Result], name: str) -> None:
        self._results: list[Result] = []
        self._error: BaseException | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until it has ended, however it did."""
        self._thread.join()

    def take(self) -> Result:
        """Wait for the result and give it away, once; raises what the work raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._results.pop()

    def __enter__(self) -> Begun[Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self, work: Callable[[Callable[[], None]], Result]) -> None:
        try:
            self._results.append(work(self._step))
        except BaseException as error:  # It belongs to whoever takes the result.
            self._error = error

    def _step(self) -> None:
        if self._stopping.is_set():
            raise _StoppedError
