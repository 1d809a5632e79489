"""What an NVIDIA GPU's decoder and encoders do here: found or not, equal to software or not, and how fast.

    python -m benchmarks.hardware_codecs --frames 60

Decoded frames are compared code value for code value with the software decoder's, and downloaded: they are in the
host's memory in both columns. Times are the best of three, in frames a second. Where hardware is missing the row says
why.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path

import av
import torch
from av.codec.hwaccel import HWAccel

from seedvr2_engine.errors import OutputError
from seedvr2_engine.video import Coding, ColorTags, SinkOptions, open_sink
from seedvr2_engine.video.planes import coding_for

SIZES = {"720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
DECODED = {"h264": "a.mp4", "h265": "a.mp4", "vp9": "a.webm", "av1": "a.mkv"}
ENCODED = ("h264", "h265", "av1", "h264_nvenc", "hevc_nvenc", "av1_nvenc")


def _best(run: Callable[[], int]) -> float:
    """Frames a second."""
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        frames = run()
        rates.append(frames / (time.perf_counter() - began))
    return max(rates)


def _pictures(coding: Coding, frames: int) -> Iterator[torch.Tensor]:
    """A smooth picture that moves, with some noise, as the encoder takes it."""
    torch.manual_seed(0)
    small = torch.rand(1, 3, coding.height // 40 + 2, coding.width // 40 + 2)
    picture = torch.nn.functional.interpolate(small, (coding.height, coding.width), mode="bicubic")[0].clamp(0, 1)
    noisy = (picture + 0.01 * torch.randn_like(picture)).clamp(0, 1)
    for index in range(frames):
        yield coding.encoded(noisy.roll(4 * index, 2), None)


def _encode(path: Path, size: tuple[int, int], codec: str, pictures: list[torch.Tensor]) -> int:
    options = SinkOptions(codec=codec, preset="veryfast", overwrite=True)  # type: ignore[arg-type]
    with open_sink(path, width=size[0], height=size[1], options=options) as sink:
        for codes in pictures:
            sink.write_coded(codes)
    return len(pictures)


def _frames(path: Path, accelerator: HWAccel | None) -> Iterator[av.VideoFrame]:
    with av.open(str(path), hwaccel=accelerator) as container:
        container.streams.video[0].thread_type = "AUTO"
        yield from container.decode(video=0)


def _nvdec() -> HWAccel:
    return HWAccel("cuda", allow_software_fallback=False)


def _is_equal(path: Path) -> bool:
    for one, two in zip_longest(_frames(path, None), _frames(path, _nvdec())):
        if one is None or two is None:
            return False
        two = two.reformat(format=one.format.name, threads=1)
        if (one.to_ndarray() != two.to_ndarray()).any():
            return False
    return True


def _decoding(path: Path) -> str:
    software = _best(lambda: sum(1 for _ in _frames(path, None)))
    try:
        equal = "equal" if _is_equal(path) else "DIFFERENT"
        hardware = f"{_best(lambda: sum(1 for _ in _frames(path, _nvdec()))):8.1f} {equal}"
    except (av.FFmpegError, RuntimeError, NotImplementedError) as error:
        hardware = f"none: {error}"
    return f"software {software:8.1f}, NVDEC {hardware}"


def main() -> None:
    """Print a row for each codec and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.sizes:
            size = SIZES[name]
            coding = coding_for("yuv420p", size, _tags(Path(folder), size))
            pictures = list(_pictures(coding, arguments.frames))
            for codec in ENCODED:
                path = Path(folder) / "encoded.mkv"
                try:
                    rate = f"{_best(partial(_encode, path, size, codec, pictures)):8.1f}"
                except OutputError as error:
                    rate = f"none: {error}"
                print(f"encode {name:>5} {codec:>10} {rate}", flush=True)
            for codec, file in DECODED.items():
                path = Path(folder) / file
                _encode(path, size, codec, pictures)
                print(f"decode {name:>5} {codec:>10} {_decoding(path)}", flush=True)


def _tags(folder: Path, size: tuple[int, int]) -> ColorTags:
    """Those that a sink without a source takes."""
    sink = open_sink(folder / "tags.mkv", width=size[0], height=size[1])
    try:
        assert sink.coding is not None
        return sink.coding.tags
    finally:
        sink.abort(keep_partial=False)


if __name__ == "__main__":
    main()
