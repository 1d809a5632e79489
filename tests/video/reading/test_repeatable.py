"""The same frames and settings give the same bytes, whatever the process did before."""

import ctypes
import hashlib
import sys
from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch

from seedvr2_engine.video import SinkOptions, open_sink, open_source

from ..made.clips import ClipSpec, noise, write_clip

# glibc fills what it hands out with the complement of this byte, and what it takes back with the byte.
_M_PERTURB = -6
_POISONS = (0, 1, 128, 255)
KINDS = [
    ("a.mp4", {}),
    ("a.mov", {"codec": "h264", "bit_depth": 10}),
    ("a.mkv", {"chroma": "444"}),
    ("a.mp4", {"codec": "h265"}),
    ("one.mp4", {"codec": "h265"}),
    ("two.mkv", {"codec": "h265"}),
    ("a.mkv", {"codec": "h265", "bit_depth": 12}),
    ("a.mkv", {"codec": "ffv1"}),
    ("a.mov", {"codec": "prores"}),
    ("a.webm", {}),
    ("a.png", {}),
    ("a.jpg", {}),
    ("a.webp", {}),
    ("a.tiff", {}),
]


@pytest.fixture
def poisons() -> Iterator[Iterator[int]]:
    """Values that fresh memory is filled with, each set when it is yielded."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        pytest.skip("this C library has no mallopt")
    yield (poison for poison in _POISONS if mallopt(_M_PERTURB, poison))
    mallopt(_M_PERTURB, 0)


# Nine by ten macroblocks: x264's AVX-512 code takes eight at a time, and one byte pattern moves the seven that lie
# beyond a row back into the picture.
@pytest.mark.parametrize(("name", "options"), KINDS)
def test_no_byte_depends_on_what_memory_held(name, options, poisons, tmp_path):
    is_picture = name.endswith((".png", ".jpg", ".webp", ".tiff"))
    count = 1 if is_picture or name.startswith("one") else 2 if name.startswith("two") else 7
    frames = torch.rand(count, 3, 160, 144, generator=torch.Generator().manual_seed(1))
    written = []
    for _ in poisons:
        with open_sink(tmp_path / name, width=144, height=160, options=SinkOptions(**options, overwrite=True)) as sink:
            for frame in frames:
                sink.write(frame)
        written.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(written) == len(_POISONS)
    assert len(set(written)) == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_nor_do_sound_and_metadata(name, poisons, tmp_path):
    spec = ClipSpec(rate=Fraction(10), audio="pcm_s16le", metadata={"title": "T"})
    source_path = write_clip(tmp_path / "source.mkv", noise(12), spec)
    written = []
    for _ in poisons:
        with (
            open_source(source_path) as source,
            open_sink(
                tmp_path / name, width=64, height=48, source=source.info, options=SinkOptions(overwrite=True)
            ) as sink,
        ):
            assert len(source.info.audio) == 1
            for frame in source:
                sink.write(frame.rgb, pts=frame.pts, duration=frame.duration)
        written.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(written) == len(_POISONS)
    assert len(set(written)) == 1
