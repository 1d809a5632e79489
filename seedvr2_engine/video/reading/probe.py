"""Describe a clip or a picture: what it is, how many frames it has, and what is odd about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Literal

import av

from ...errors import VideoError
from ..demuxing import packets_of
from ..info import Crop, SideStream, SourceInfo
from ..planes import bit_depth, family_of, has_alpha, orientation_of, source_tags
from ..ycbcr import resolve
from .container.choice import clips_of, codec_name, is_repeat, left_out_video, main_video
from .container.counted import PacketScan
from .container.damage import Structure
from .container.demuxers import RAW_STREAMS
from .container.matroska import video_tracks
from .container.one_file import Identity, opened, opened_file
from .container.scan import scan_packets
from .container.size_change import SizeChange
from .decoders import decoder_of
from .hdr_side_data import read_hdr

__all__ = ["Probed", "codec_name", "first_frame", "main_video", "opened", "probe"]

# Some of their packets hold no picture to show (VP8 alternate references, packed B-frames, repeats, sequence ends).
_DECODE_TO_COUNT = frozenset({"vp8", "mpeg4", "theora", "dirac"})
# Start code, coding type, two times of 16 bits at most (seconds that end come one bit each), and stuffing.
_LONGEST_HEADER_BYTES = 12
# Start codes of MPEG-4 (ISO/IEC 14496-2, 6.2): that of a video object is all of its header, and another one follows.
_HEADER_MPEG4 = re.compile(rb"\x00\x00\x01(?:[\x00-\x1f]\x00\x00\x01|[\x20-\x2f\xb0-\xb6])")
_STILL_FORMATS = frozenset({"image2", "ico", "jpegxl", "bmp", "tiff"})
_DEFAULT_RATE = Fraction(25)
# A recording may start in mid-group, and its first key frame come minutes later, but not hours.
_TRIED_PACKETS = 10_000


@dataclass(frozen=True)
class Probed:
    """A file, and what its reader has to know beside its description."""

    info: SourceInfo
    identity: Identity
    """The file that was described, to find out whether it is still the same."""
    faults: tuple[str, ...] = ()
    """What is missing or out of order, each as a clause; `missing` frames of it are known to be gone."""
    missing: int = 0
    leading: tuple[int, ...] = ()
    """Times, in ticks on the timeline, of pictures at the start and after joins that may not decode, because what they
    refer to lies before."""
    before_key: int = 0
    """Packets before the file's first key frame, which may not decode either."""
    is_counted: bool = False
    """Whether the file says how many pictures it has."""
    size_change: SizeChange | None = None
    has_field_packets: bool = False
    """Whether a frame's two fields come as packets of their own."""
    notes: tuple[str, ...] = ()
    """Sentences about what is done otherwise than the file says."""


def probe(path: Path, structure: Structure | None = None) -> Probed:
    """Find out everything about a clip or a single picture; reads all its packets once, decodes one frame.

    `structure` is what the file says of itself; faults are found by it too.
    Raises VideoError if nothing can be decoded.
    """
    with opened_file(path) as (container, file):
        identity = file.identity
        stream = main_video(container, path)
        frame = first_frame(container, stream, path)
        still = container.format.name.endswith("_pipe") or container.format.name in _STILL_FORMATS
        context = stream.codec_context
        tags = source_tags(frame, context)
        family = family_of(frame.format)
        orientation = orientation_of(frame)
        crop = crop_of(path, container, stream)
        shown = (frame.width - crop.left - crop.right, frame.height - crop.top - crop.bottom)
        size = (shown[1], shown[0]) if orientation.transpose else shown
        codec = codec_name(stream)
        try:
            hdr = read_hdr(frame, context.codec_tag)
            conversion = resolve(tags, family=family, size=(frame.width, frame.height), codec=codec)
        except VideoError as error:
            raise VideoError(f"{path}: {error}") from error
        aspect = stream.sample_aspect_ratio or Fraction(1)
        start = Fraction(container.start_time or 0, av.time_base)
        side = _side_streams(container)
        chapters = len(container.chapters())
        is_raw = container.format.name in RAW_STREAMS
        rate = context.framerate if is_raw else stream.average_rate
        guess = None if is_raw else stream.guessed_rate or stream.base_rate
        time_base = stream.time_base or 1 / _DEFAULT_RATE
        others = left_out_video(container, stream)
        index = stream.index
    scan, method = scan_packets(path, structure), "packets"
    if codec in _DECODE_TO_COUNT and not still:
        scan, method = _scan_decoded(path, codec, scan), "decoding"
    if scan.count == 0:
        raise VideoError(f"{path}: expected at least one frame, found none; the file holds no pictures.")
    notes = [others] if others else []
    rate = _checked_rate(rate, scan, time_base) if not is_raw else rate
    if scan.has_field_packets and not is_raw:
        rate, guess = _rate_of_steps(scan, time_base), None  # FFmpeg's are of the fields.
    rate = rate or guess
    if is_raw and not rate and not still:
        rate = _DEFAULT_RATE
        notes.append(f"The file does not say how many frames a second it has; {rate} are taken.")
    seconds = _span_s(scan, time_base, rate)
    rate = None if still else rate or Fraction(scan.count / seconds if seconds else 25).limit_denominator(1001)
    if scan.timeline.by_rate and rate:
        if not is_raw:
            notes.append(
                f"Its frames have no times that could be kept; they follow each other at {float(rate):.6g} a second."
            )
        time_base, seconds = 1 / rate, float(scan.count / rate)
    if joins := scan.timeline.joins_s:
        begin_s = float(start + scan.timeline.first_shift_s)
        notes.append(_joined_sentence(tuple(join_s - begin_s for join_s in joins)))
    info = SourceInfo(
        path=path,
        kind="image" if still else "video",
        width=size[0],
        height=size[1],
        frame_count=scan.count,
        count_method="decoding" if method == "decoding" else "packets",
        average_rate=rate,
        time_base=time_base,
        variable_rate=not scan.timeline.by_rate and scan.longest_step - scan.shortest_step > 1,
        bit_depth=bit_depth(frame.format),
        has_alpha=has_alpha(frame.format),
        codec=codec,
        pix_fmt=frame.format.name,
        color=tags,
        conversion=conversion,
        sample_aspect_ratio=1 / aspect if orientation.transpose else aspect,
        orientation=orientation,
        start_s=start + scan.timeline.first_shift_s,
        duration_s=0.0 if still else seconds,
        audio=side["audio"],
        subtitles=side["subtitle"],
        chapter_count=chapters,
        hdr=hdr,
        crop=crop,
        selected_frames=scan.count,
        stream_index=index,
        timeline=scan.timeline,
    )
    return Probed(
        info,
        identity,
        scan.faults,
        scan.missing,
        scan.leading,
        scan.before_key,
        scan.is_counted,
        scan.size_change,
        scan.has_field_packets,
        tuple(notes),
    )


def _rate_of_steps(scan: PacketScan, time_base: Fraction) -> Fraction | None:
    """Frames per second where their steps are even."""
    is_even = scan.shortest_step and scan.longest_step - scan.shortest_step <= 1
    return 1 / (scan.longest_step * time_base) if is_even else None


def _checked_rate(rate: Fraction | None, scan: PacketScan, time_base: Fraction) -> Fraction | None:
    """The average rate, unless the frames' even steps say something quite different."""
    by_steps = _rate_of_steps(scan, time_base)
    if by_steps is None:
        # FFmpeg guesses the rate of an only picture; how long that is shown may be known.
        first, end = scan.first_pts, scan.end_pts
        length_s = (end - first) * time_base if first is not None and end is not None else Fraction(0)
        is_odd = scan.count == 1 and length_s > 0 and not 2 / 3 < (rate or 0) * length_s < 1.5
        return 1 / length_s if is_odd else rate
    return by_steps if not rate or not by_steps / 10 < rate < by_steps * 10 else rate


def _joined_sentence(joins_s: tuple[float, ...]) -> str:
    places = ", ".join(f"{place:.2f}" for place in joins_s[:3]) + (", ..." if len(joins_s) > 3 else "")
    return (
        f"The clock of the file jumps {len(joins_s)} time{'s' if len(joins_s) > 1 else ''} (at {places} s), as where "
        "recordings were joined; what follows goes on after the last frame, sound and text alike."
    )


def crop_of(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> Crop:
    """What the container says to cut off every picture, as players do; nothing where that cannot be."""
    if "matroska" not in container.format.name:
        return Crop()
    videos = [video.index for video in clips_of(container)]
    tracks = video_tracks(path)
    if len(tracks) != len(videos):
        return Crop()
    track = tracks[videos.index(stream.index)]
    is_same = (track.width, track.height) == (stream.codec_context.width, stream.codec_context.height)
    is_sound = track.crop.left + track.crop.right < track.width and track.crop.top + track.crop.bottom < track.height
    return track.crop if is_same and is_sound else Crop()


def _scan_decoded(path: Path, codec: str, scan: PacketScan) -> PacketScan:
    """Count what is shown and what does not decode, of which reading says where."""
    shown, expected, undecoded = _decode_all(path, "AUTO")
    if shown < expected:
        # Threads that decode pictures side by side swallow errors near the end.
        shown, expected, undecoded = _decode_all(path, "SLICE")
    counted = min(shown + undecoded, max(shown, scan.count))
    return replace(scan, count=max(expected, counted) if codec in _SHOWS else counted)


def _is_shown_vp8(packet: bytes) -> bool:
    """The fifth bit of the first byte says so (RFC 6386, 9.1)."""
    return packet[0] & 0x10 != 0


def _is_coded_mpeg4(packet: bytes) -> bool:
    """Whether the last picture of a packet is more than a header, which alone stands for the one before, shown again.

    Decoders take a picture that says that it is not coded for such a header, whatever follows (ISO/IEC 14496-2, 6.2.5).
    What does not begin with a header was a picture before something was written over it, or lies where a wrong index or
    another file's beginning leads.
    """
    start = packet.rfind(b"\x00\x00\x01\xb6")
    if start < 0:
        return _HEADER_MPEG4.match(packet) is None and len(packet) > _LONGEST_HEADER_BYTES
    return len(packet) - start > _LONGEST_HEADER_BYTES


_SHOWS: Mapping[str, Callable[[bytes], bool]] = {"vp8": _is_shown_vp8, "mpeg4": _is_coded_mpeg4}
"""Whether a packet holds a picture to show; of other codecs in `_DECODE_TO_COUNT` only decoding tells."""


def _decode_all(path: Path, threads: Literal["AUTO", "SLICE"]) -> tuple[int, int, int]:
    """(pictures that come out, packets that hold one to show as far as is known, packets that do not decode)."""
    shown = expected = undecoded = 0
    with opened(path) as container:
        stream = main_video(container, path)
        stream.thread_type = threads
        shows = _SHOWS.get(codec_name(stream), bool)
        packets = packets_of(container, stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                if not is_repeat(packet):
                    expected += packet.size > 0 and shows(bytes(packet))
                    shown += len(packet.decode())
            except av.FFmpegError:
                undecoded += 1
    return shown, expected, undecoded


def first_frame(container: av.container.InputContainer, stream: av.VideoStream, path: Path) -> av.VideoFrame:
    """Decode until a picture appears; raises VideoError if none does. `path` is for the message."""
    decode = decoder_of(stream)
    try:
        for packet in islice(packets_of(container, stream), _TRIED_PACKETS):
            if is_repeat(packet):
                continue
            try:
                frames = decode(packet)
            except av.error.InvalidDataError:
                # A damaged start; reading decides whether that is an error.
                continue
            if frames:
                return frames[0]
    except av.FFmpegError as error:
        raise VideoError(f"{path}: its first frame cannot be read ({error.strerror}); copy the file again.") from error
    raise VideoError(
        f"{path}: expected at least one frame, found none that decodes; the file is empty, damaged or truncated."
    )


def _side_streams(container: av.container.InputContainer) -> dict[Literal["audio", "subtitle"], tuple[SideStream, ...]]:
    return {
        "audio": tuple(_audio_stream(stream) for stream in container.streams.audio),
        "subtitle": tuple(SideStream(codec_name(stream), stream.language) for stream in container.streams.subtitles),
    }


def _audio_stream(stream: av.AudioStream) -> SideStream:
    context = stream.codec_context
    if context is None:
        return SideStream("unknown", stream.language)
    return SideStream(codec_name(stream), stream.language, context.sample_rate, context.layout.nb_channels)


def _span_s(scan: PacketScan, time_base: Fraction, rate: Fraction | None) -> float:
    if scan.first_pts is not None and scan.end_pts is not None and scan.end_pts > scan.first_pts:
        return float((scan.end_pts - scan.first_pts) * time_base)
    return float(scan.count / rate) if rate else 0.0
