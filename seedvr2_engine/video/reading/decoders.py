"""The decoder for a stream's packets: libvpx where VP8 or VP9 carry alpha, FFmpeg's choice otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import av

Decoder = Callable[["av.Packet[Any]"], list[av.VideoFrame]]

# FFmpeg's own decoders of these skip the alpha, which travels as a second picture beside each packet.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def has_hidden_alpha(stream: av.VideoStream) -> bool:
    """Whether the stream is VP8 or VP9 whose container promises alpha beside its packets, and libvpx is here."""
    name = _WITH_ALPHA.get(stream.codec_context.codec.canonical_name)
    # The track's own field comes in small letters, a tag of that name, as some tools write it, in capitals.
    promised = any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())
    return name is not None and promised and name in av.codecs_available


def decoder_of(stream: av.VideoStream) -> Decoder:
    """Return what turns a packet of `stream` into frames; an empty packet, as the demuxer ends with, drains it.

    Times are the packets', in ticks of the stream. Raises FFmpegError for packets that do not decode.
    """
    if not has_hidden_alpha(stream):
        return lambda packet: packet.decode()
    context = av.CodecContext.create(_WITH_ALPHA[stream.codec_context.codec.canonical_name], "r")
    assert isinstance(context, av.VideoCodecContext)
    context.thread_count = 0
    stored = stream.codec_context
    context.width, context.height, context.pix_fmt = stored.width, stored.height, stored.pix_fmt
    context.extradata = stored.extradata
    context.color_range, context.colorspace = stored.color_range, stored.colorspace
    context.color_primaries, context.color_trc = stored.color_primaries, stored.color_trc

    def decode(packet: av.Packet[Any]) -> list[av.VideoFrame]:
        return context.decode(packet if packet.size else None)

    return decode
