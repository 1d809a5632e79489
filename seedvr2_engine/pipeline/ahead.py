"""Work done ahead of its use, in a thread: reading, computing and writing a clip overlap."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_POLL_S = 0.1


class _End:
    """The last thing in the queue: what the thread ended with."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def made_ahead(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """Yield `items`, which a thread of its own makes up to `depth` ahead; an error there is raised here, in its turn.

    When the generator is closed, the thread stops at its next item and is waited for; `items` is closed in the
    thread if it can be.
    """
    slots: queue.Queue[Item | _End] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def offer(item: Item | _End) -> bool:
        while not stopped.is_set():
            try:
                slots.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not offer(item):
                    break
            close = getattr(items, "close", None)
            if close is not None:
                close()
        except BaseException as caught:  # Whatever it is, it belongs to whoever asked for the items.
            error = caught
        offer(_End(error))

    thread = threading.Thread(target=work, name="made ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = slots.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stopped.set()
        thread.join()
