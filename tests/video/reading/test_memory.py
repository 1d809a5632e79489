"""Reading and writing keep a handful of frames, however long the clip is."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from seedvr2_engine.video import SinkOptions, open_sink, open_source
torch.set_num_threads(1)
count, path = int(sys.argv[1]), sys.argv[2]
options = SinkOptions(preset="ultrafast", overwrite=True)
picture = torch.rand(3, 240, 320)
with open_sink(path + ".mp4", width=320, height=240, options=options) as sink:
    for index in range(count):
        sink.write(picture.roll(index, 2))
with open_source(path + ".mp4") as source:
    with open_sink(path + "2.mp4", width=320, height=240, source=source.info, options=options) as sink:
        for frame in source:
            sink.write(frame.rgb, pts=frame.pts)
    assert sink.frames_written == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(count: int, path: str) -> int:
    run = subprocess.run([sys.executable, "-c", SCRIPT, str(count), path], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage")
def test_six_hundred_frames_take_no_more_memory_than_sixty(tmp_path):
    short, long = peak(60, str(tmp_path / "short")), peak(600, str(tmp_path / "long"))
    assert long < short * 1.1, (short, long)
