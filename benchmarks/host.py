"""What the host and the GPU do with a frame outside models and codecs: code values to R'G'B', and back.

    python -m benchmarks.host --pix-fmt yuv420p --repeats 30

Prints medians in milliseconds a frame: those that pass, and in brackets those that all threads of this process compute,
be it that they wait for the GPU. Before any time, the GPU's numbers are compared with the CPU's.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch

from seedvr2_engine.pipeline.to_host import on_host
from seedvr2_engine.video import CodedFrame, Coding, ColorRange, ColorTags, Matrix
from seedvr2_engine.video.planes import as_direct, codes_of, coding_for, coding_of, encode_frame, frame_of_codes

SIZES = {"720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
AT_A_TIME = 8
"""Frames between two looks at the clock: they overlap on a GPU as in a clip."""


def _measured(run: Callable[[], int], repeats: int) -> tuple[float, float]:
    """Milliseconds a frame, that pass and that CPUs work: medians."""
    run()
    passed, worked = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        frames = run()
        passed.append((time.perf_counter() - wall) / frames * 1e3)
        worked.append((time.process_time() - cpu) / frames * 1e3)
    return statistics.median(passed), statistics.median(worked)


def _ways(coding: Coding, device: torch.device) -> Iterator[tuple[str, Callable[[], int]]]:
    """What is measured on one device: each runs AT_A_TIME frames."""
    picture = torch.rand(3, coding.height, coding.width)
    frame = encode_frame(picture, None, coding.layout.name, coding.tags)
    placed = picture.to(device)
    is_gpu = device.type == "cuda"

    def read() -> int:
        for _ in range(AT_A_TIME):
            direct = as_direct(frame)
            stored = coding_of(direct, coding.tags, "h264")
            CodedFrame(codes_of(direct, stored, pinned=is_gpu), stored, 0, 1).on(device)
        if is_gpu:
            torch.cuda.synchronize()
        return AT_A_TIME

    def write() -> int:
        for codes in on_host((coding.of_picture(placed) for _ in range(AT_A_TIME)), is_pinned=True):
            frame_of_codes(codes, coding)
        return AT_A_TIME

    yield "reading", read
    yield "writing", write


def _check(coding: Coding) -> None:
    picture = torch.rand(3, coding.height, coding.width)
    codes = coding.of_picture(picture)
    if not torch.equal(coding.of_picture(picture.cuda()).cpu(), codes):
        raise SystemExit("Code values of the GPU and the CPU differ.")
    if not torch.equal(coding.decoded(codes.cuda())[0].cpu(), coding.decoded(codes)[0]):
        raise SystemExit("R'G'B' of the GPU and the CPU differ.")


def main() -> None:
    """Measure every size on the CPU, and on the GPU where there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pix-fmt", default="yuv420p")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    for device in devices:
        title = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {arguments.threads} threads"
        print(f"{title}, {arguments.pix_fmt}: ms a frame, computed on CPUs in brackets")
        for name, size in SIZES.items():
            is_rgb = not arguments.pix_fmt.startswith("yuv")
            tags = ColorTags(ColorRange.FULL, Matrix.RGB) if is_rgb else ColorTags(ColorRange.LIMITED, Matrix.BT709)
            coding = coding_for(arguments.pix_fmt, size, tags)
            if device.type == "cuda":
                _check(coding)
            for what, run in _ways(coding, device):
                passed, worked = _measured(run, arguments.repeats)
                print(f"  {name:>5} {what}: {passed:7.2f} ({worked:.2f})")


if __name__ == "__main__":
    main()
