"""Prove, before a file is begun, that FFmpeg takes a stream: headers are written into memory, never to the disk."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress

import av

from .sound.encoder import configure, resampler_for, silent_frame
from .sound.table import AudioTarget, usual_layout

_TRIAL_SAMPLES = 4096


def muxes(muxer: str, add: Callable[[av.container.OutputContainer], object]) -> bool:
    """Whether a header with the streams that `add` adds can be written."""
    output = av.open(io.BytesIO(), "w", format=muxer)
    try:
        add(output)
        output.start_encoding()
    except (av.FFmpegError, ValueError, OSError, RuntimeError):
        return False
    finally:
        with suppress(av.FFmpegError, ValueError, OSError):
            output.close()
    return True


def encodes(context: av.AudioCodecContext, target: AudioTarget) -> bool:
    """Whether sound like the decoder's becomes packets of this target."""
    try:
        encoder = av.CodecContext.create(target.encoder, "w")
        assert isinstance(encoder, av.AudioCodecContext)
        configure(encoder, target)
        encoder.open()
        layout = usual_layout(context.layout.name)
        frame = silent_frame(context.format.name, layout, context.sample_rate, _TRIAL_SAMPLES)
        resampler = resampler_for(target)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            if part is not None:
                part.pts = None
                encoder.encode(part)
        encoder.encode(None)
    except (av.FFmpegError, ValueError, OSError, RuntimeError):
        return False
    return True
