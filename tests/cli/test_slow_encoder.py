"""What is said where computing has waited for the encoder."""

from types import SimpleNamespace

import pytest

from seedvr2_engine.cli.upscaling.outputs import slow_encoder
from seedvr2_engine.video import SinkOptions

CLIP, PICTURES = SimpleNamespace(coding=object()), SimpleNamespace(coding=None)


@pytest.mark.parametrize(("waited_s", "seconds"), [(0.0, 0.0), (1.0, 10.0), (0.0, 10.0)])
def test_a_tenth_is_not_worth_a_word(waited_s, seconds):
    assert slow_encoder(waited_s, seconds, CLIP, SinkOptions()) is None


@pytest.mark.parametrize(
    ("sink", "options", "named", "not_named"),
    [
        (CLIP, SinkOptions(), ["--preset veryfast", "hevc_nvenc"], ["disk"]),
        (CLIP, SinkOptions(preset="superfast"), ["hevc_nvenc"], ["veryfast"]),
        (CLIP, SinkOptions(codec="av1_nvenc"), ["--preset veryfast"], ["hevc_nvenc"]),
        (CLIP, SinkOptions(codec="av1_nvenc", preset="ultrafast"), ["disk"], ["--preset"]),
        (PICTURES, SinkOptions(), ["disk"], ["--preset"]),
    ],
)
def test_the_advice_fits_what_is_written(sink, options, named, not_named):
    sentence = slow_encoder(1.1, 10.0, sink, options)
    assert sentence.startswith("Computing waited 1.1 of 10.0 s for the ")
    assert all(word in sentence for word in named)
    assert not any(word in sentence for word in not_named)
