"""How long things last in a file that is written: fragments, clusters, and the last picture."""

from fractions import Fraction

import av
import pytest
import torch

from seedvr2_engine.video import SinkOptions, open_sink, open_source
from seedvr2_engine.video.writing.containers import CONTAINERS

from ..made.clips import ClipSpec, ramp, write_clip


@pytest.mark.parametrize(("rate", "unit_us"), [(Fraction(25), 160_000), (Fraction(30000, 1001), 133_467)])
def test_a_fragment_is_of_four_frames(rate, unit_us):
    assert CONTAINERS[".mp4"].unit_options(rate) == {
        "max_interleave_delta": str(unit_us),
        "frag_duration": str(unit_us),
    }
    assert CONTAINERS[".mkv"].unit_options(rate) == {
        "max_interleave_delta": str(unit_us),
        "cluster_time_limit": str(round(unit_us / 1000)),
    }


@pytest.mark.parametrize("start", [0, 2])
def test_the_last_picture_of_a_cut_clip_lasts_as_long_as_it_is_told_to(tmp_path, start):
    path = write_clip(tmp_path / "a.mp4", [ramp(index) for index in range(5)], ClipSpec("libx264", "yuv420p"))
    with open_source(path, start=start) as source:
        step = round(1 / (25 * source.info.time_base))
        options = SinkOptions(preset="ultrafast")
        with open_sink(tmp_path / "b.mp4", width=64, height=48, source=source.info, options=options) as sink:
            for index, frame in enumerate(source, start=start):
                sink.write(torch.rand(3, 48, 64), pts=frame.pts, duration=step * (10 if index == 4 else 1))
    with av.open(str(tmp_path / "b.mp4")) as container:
        video = container.streams.video[0]
        assert float(video.duration * video.time_base) == pytest.approx((4 - start + 10) / 25)
