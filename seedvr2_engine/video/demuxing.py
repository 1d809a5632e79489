"""The packets of a file, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av


def packets_of(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet[Any]]:
    """Every packet of these streams, or of all, in the order of the file, and an empty one at the end of each.

    A stream that appears behind the beginning, as in broadcasts, has none: PyAV lists what it found when it opened the
    file. At the end it would flush such a stream all the same, and break off with an IndexError.
    """
    try:
        yield from container.demux(*streams)
    except IndexError:
        return
