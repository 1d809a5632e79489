"""What PyAV makes of streams that appear behind the beginning of a file."""

import pytest

from seedvr2_engine.video.demuxing import packets_of


class Container:
    """Gives three packets, and ends as PyAV does where it flushes a stream that it does not know."""

    def demux(self, *streams):
        yield from (1, 2, 3)
        raise error


error: Exception = IndexError("list index out of range")


def test_a_stream_that_appears_late_does_not_end_the_reading():
    assert list(packets_of(Container())) == [1, 2, 3]


def test_other_errors_are_told(monkeypatch):
    monkeypatch.setitem(globals(), "error", ValueError("damaged"))
    with pytest.raises(ValueError, match="damaged"):
        list(packets_of(Container()))
