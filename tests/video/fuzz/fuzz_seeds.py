"""The intact clips and pictures that `fuzz_media` mutates, made with PyAV and Pillow, and what a file promises."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

FRAMES = 10
RATE = Fraction(25)
WIDTH, HEIGHT = 32, 24


class SeedFile(NamedTuple):
    """An intact file."""

    ending: str
    content: bytes
    frames: int
    """Pictures in it."""
    seconds: float | None
    """Its length by its own account, where it has one."""


class Clip(NamedTuple):
    """How an intact clip is encoded."""

    ending: str
    video: str
    audio: str | None
    pix_fmt: str = "yuv420p"
    size: tuple[int, int] = (WIDTH, HEIGHT)
    format: str | None = None
    options: tuple[tuple[str, str], ...] = ()


FAST_H264 = (("preset", "ultrafast"), ("g", "4"))
CLIPS = (
    Clip("mp4", "libx264", "aac", options=FAST_H264),
    Clip("mov", "prores_ks", "pcm_s16le", "yuv422p10le"),
    Clip("mkv", "libx264", "flac", options=(*FAST_H264, ("bf", "2"))),
    Clip("webm", "libvpx-vp9", "libopus", options=(("cpu-used", "8"), ("deadline", "realtime"), ("g", "4"))),
    Clip("avi", "mpeg4", "libmp3lame", options=(("g", "4"),)),
    Clip("flv", "flv", "libmp3lame", options=(("g", "4"),)),
    Clip("wmv", "wmv2", "wmav2", format="asf", options=(("g", "4"),)),
    Clip("ts", "libx264", "mp2", format="mpegts", options=FAST_H264),
    Clip("mpg", "mpeg1video", "mp2", format="mpeg", options=(("g", "4"),)),
    Clip("mxf", "mpeg2video", "pcm_s16le", format="mxf", options=(("g", "4"),)),
    Clip("3gp", "libx264", "aac", format="3gp", options=FAST_H264),
    Clip("ogv", "libvpx", "libopus", format="ogg", options=(("cpu-used", "8"), ("deadline", "realtime"), ("g", "4"))),
    Clip("y4m", "wrapped_avframe", None, format="yuv4mpegpipe"),
)
STILLS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "tif": "TIFF", "bmp": "BMP"}
ENDINGS = (*(clip.ending for clip in CLIPS), "gif", *STILLS)


def seed_files(folder: Path) -> list[SeedFile]:
    """All intact files, in the order of `ENDINGS`; `folder` is for the encoders."""
    seeds = []
    for ending in ENDINGS:
        path = folder / f"intact.{ending}"
        clip = next((clip for clip in CLIPS if clip.ending == ending), None)
        if clip is not None:
            _encode(path, clip)
        elif ending == "gif":
            first, *rest = (Image.fromarray(_picture(index)) for index in range(FRAMES))
            first.save(path, save_all=True, append_images=rest, duration=40)
        else:
            buffer = io.BytesIO()
            Image.fromarray(_picture(0)).save(buffer, STILLS[ending])
            path.write_bytes(buffer.getvalue())
        content = path.read_bytes()
        seeds.append(SeedFile(ending, content, 1 if ending in STILLS else FRAMES, _account(path).seconds))
    return seeds


def promised_frames(path: Path, intact: SeedFile) -> int:
    """The least number of pictures that a mutated file promises; that of the intact file where it is visibly damaged.

    A count in the file counts; else its length, if that is still the intact clip's; where it says neither, the coded
    pictures in it.
    """
    content = path.read_bytes()
    if intact.ending in _COUNTERS:
        found = _COUNTERS[intact.ending](content)
        return intact.frames if found is None else min(found, intact.frames)
    try:
        account = _account(path)
    except (av.FFmpegError, OSError, ValueError, IndexError):
        return intact.frames
    if account.frames:
        return min(account.frames, intact.frames)
    if account.seconds and intact.seconds and account.seconds > 0.999 * intact.seconds:
        # A recording that begins in mid-group has pictures that nobody can decode before its first key frame.
        promised = intact.frames
        if intact.ending == "mpg":
            # Its length is that of the sound: only the first picture has a time there. Its pictures' numbers count.
            promised = min(promised, max(account.packets, _mpeg_frames(content)))
        if intact.ending in ("ts", "mpg") and account.before_key:
            return min(promised, account.packets - account.before_key)
        return promised
    if intact.ending == "wmv" and _asf_is_cut(content):
        return intact.frames
    return min(account.packets, intact.frames)


class _Account(NamedTuple):
    frames: int
    seconds: float | None
    packets: int
    before_key: int
    """Coded pictures before the first key frame."""


def _account(path: Path) -> _Account:
    """What FFmpeg's demuxer reads of a file's own numbers."""
    with av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace") as container:
        stream = container.streams.video[0]
        seconds = container.duration / av.time_base if container.duration and container.duration > 0 else None
        frames = stream.frames
        packets, first_key = 0, None
        try:
            for packet in container.demux(stream):
                if packet.size:
                    first_key = packets if packet.is_keyframe and first_key is None else first_key
                    packets += 1
        except av.FFmpegError:
            packets = 1 << 30
    return _Account(frames, seconds, packets, first_key or 0)


def _y4m_frames(content: bytes) -> int | None:
    """Frames of a Y4M file; None if it is not made of its header and whole frames."""
    end = content.find(b"\n")
    fields = {part[:1]: part[1:] for part in content[:end].split(b" ")[1:]}
    if not content.startswith(b"YUV4MPEG2 ") or not fields.get(b"W", b"").isdigit() or not fields[b"H"].isdigit():
        return None
    width, height = int(fields[b"W"]), int(fields[b"H"])
    size = width * height + 2 * (-(-width // 2) * -(-height // 2))
    at, count = end + 1, 0
    while at < len(content):
        end = content.find(b"\n", at)
        if end < 0 or not content.startswith(b"FRAME", at) or end + 1 + size > len(content):
            return None
        at, count = end + 1 + size, count + 1
    return count


def _gif_frames(content: bytes) -> int | None:
    """Pictures of a GIF; None where its blocks do not lead to its end mark."""

    def table_bytes(packed: int) -> int:
        return 3 << ((packed & 7) + 1) if packed & 0x80 else 0

    try:
        at, count = 13 + table_bytes(content[10]), 0
        while (kind := content[at]) != 0x3B:
            if kind == 0x2C:
                count += 1
                at += 10 + table_bytes(content[at + 9]) + 1
            elif kind == 0x21:
                at += 2
            else:
                return None
            while content[at]:
                at += 1 + content[at]
            at += 1
    except IndexError:
        return None
    return count


def _mpeg_frames(content: bytes) -> int:
    """The highest count that the time codes and numbers in the picture headers of an MPEG-1 video come to."""
    groups, most = re.split(rb"\x00\x00\x01\xb8", content)[1:], 0
    for group in groups:
        bits = int.from_bytes(group[:4], "big")
        seconds = ((bits >> 26 & 31) * 60 + (bits >> 20 & 63)) * 60 + (bits >> 13 & 63)
        begin = seconds * int(RATE) + (bits >> 7 & 63)
        numbers = [
            int.from_bytes(group[match.end() : match.end() + 2], "big") >> 6
            for match in re.finditer(rb"\x00\x00\x01\x00", group)
        ]
        # Damaged numbers may be any.
        most = max([most, *(begin + number + 1 for number in numbers if begin + number < FRAMES)])
    return most


_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def _asf_is_cut(content: bytes) -> bool:
    """Whether an ASF file ends before the packets that its header counts (FFmpeg reads it as a shorter one)."""
    file, data = content.find(_ASF_FILE), content.find(_ASF_DATA)
    if file < 0 or data < 0:
        return False
    packets, size = (int.from_bytes(content[file + at : file + at + n], "little") for at, n in ((56, 8), (92, 4)))
    return data + 50 + packets * size > len(content)


_COUNTERS: dict[str, Callable[[bytes], int | None]] = {"y4m": _y4m_frames, "gif": _gif_frames}


def _picture(index: int) -> npt.NDArray[np.uint8]:
    """(HEIGHT, WIDTH, 3): a gradient and noise, so that a frame has some hundred bytes."""
    rng = np.random.default_rng(index)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    picture = np.stack([rows * 8, columns * 6, np.full_like(rows, index * 20)], -1)
    return (picture + rng.integers(0, 16, picture.shape)).clip(0, 255).astype(np.uint8)


def _encode(path: Path, clip: Clip) -> None:
    seconds = float(FRAMES / RATE)
    with av.open(str(path), "w", format=clip.format) as output:
        video = output.add_stream(clip.video, rate=RATE, options=dict(clip.options))
        assert isinstance(video, av.VideoStream)
        video.width, video.height = clip.size
        video.pix_fmt = clip.pix_fmt
        audio = None
        if clip.audio is not None:
            audio = output.add_stream(clip.audio, rate=48000)
            assert isinstance(audio, av.AudioStream)
            audio.bit_rate = 64000
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(_picture(index), "rgb24").reformat(
                *clip.size, format=clip.pix_fmt, threads=1
            )
            frame.pts, frame.time_base = index, 1 / RATE
            output.mux(video.encode(frame))
        if audio is not None:
            context = audio.codec_context
            tone = (np.sin(np.arange(int(48000 * seconds)) / 20) * 0.3).astype(np.float32)
            sound = av.AudioFrame.from_ndarray(np.stack([tone, tone]), "fltp", "stereo")
            sound.sample_rate, sound.pts, sound.time_base = 48000, 0, Fraction(1, 48000)
            resampler = av.AudioResampler(context.format, "stereo", 48000, context.frame_size or 960)
            for part in [*resampler.resample(sound), *resampler.resample(None)]:
                output.mux(audio.encode(part))
            output.mux(audio.encode(None))
        output.mux(video.encode(None))
