"""Sound that is copied is decoded beside it, only to say where it is damaged."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av


class SoundCheck:
    """Counts the damaged packets of one stream: marked so by the container, or refused by the decoder."""

    def __init__(self, stream: av.AudioStream) -> None:
        """Start with the stream of the source, which nobody else decodes."""
        self._index = stream.index
        self._decode = stream.codec_context.decode
        self._count = 0
        self._first_s: Fraction | None = None
        self._has_begun = False
        self._can_decode = True

    def is_sound(self, packet: av.Packet[Any], time_s: Fraction | None) -> bool:
        """Look at a packet as the source holds it, before it is moved or filtered."""
        decodes = self._decodes(packet)
        if packet.is_corrupt or not decodes:
            if self._count == 0:
                self._first_s = time_s
            self._count += 1
        return decodes

    def sentence(self, *, is_left_out: bool) -> str | None:
        """What was found; None if nothing was. `is_left_out`: whether what did not decode was not copied."""
        if self._count == 0:
            return None
        what = f"{self._count} packets of sound are" if self._count > 1 else "a packet of sound is"
        first = "the first " if self._count > 1 else ""
        place = f" ({first}at {float(self._first_s):.2f} s)" if self._first_s is not None else ""
        done = "left out, which this kind of file does not take" if is_left_out else "copied as in the source"
        them = "they are" if self._count > 1 else "it is"
        return f"Stream {self._index}: {what} damaged{place}; {them} {done}."

    def _decodes(self, packet: av.Packet[Any]) -> bool:
        if not self._can_decode:
            return True
        try:
            self._has_begun |= bool(self._decode(packet))
        except av.error.PatchWelcomeError:
            self._can_decode = False  # A kind of it that FFmpeg does not decode.
        except av.FFmpegError:
            # Sound that was cut may need some packets to begin with.
            return not self._has_begun
        return True
