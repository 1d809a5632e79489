"""What begins or ends exactly where something else does."""

import io
from fractions import Fraction
from types import SimpleNamespace

import av
import pytest

from seedvr2_engine.video.streams.side_streams import SideStreams
from seedvr2_engine.video.streams.text.mov_text import CODEC, LineEnds


@pytest.mark.parametrize(("time_s", "is_passed"), [(Fraction(99, 100), False), (Fraction(1), True), (None, True)])
def test_a_line_that_begins_with_the_first_picture_is_shown(time_s, is_passed, monkeypatch):
    streams = SideStreams.__new__(SideStreams)
    streams._tracks, streams._begin_s = {3: SimpleNamespace()}, Fraction(1)
    passed = []
    monkeypatch.setattr(streams, "_guarded", lambda index, *_: passed.append(index))
    streams._pass(SimpleNamespace(packet=SimpleNamespace(stream=SimpleNamespace(index=3)), time_s=time_s))
    assert passed == ([3] if is_passed else [])


def test_a_line_that_is_followed_at_once_needs_no_end():
    with av.open(io.BytesIO(), "w", format="mp4") as output:
        stream = output.add_stream(CODEC)
        stream.time_base = Fraction(1, 1000)
        ends = LineEnds(stream)
        ends.note(SimpleNamespace(pts=500, duration=500, time_base=Fraction(1, 1000)))
        assert ends.until(Fraction(1)) is None
        packet = ends.until(Fraction(1001, 1000))
        assert (packet.pts, packet.dts, packet.duration, bytes(packet)) == (1000, 1000, 0, b"\0\0")
        assert ends.until(None) is None
