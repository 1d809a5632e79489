"""From file to file: one clip, picture or sequence, or a folder of clips, one after the other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DeviceMemoryError, InvalidArgumentError
from ...spans import each, span
from ..arguments import check_count
from ..terminal.console import err, readable_size, warn
from ..terminal.interruption import waiting
from ..terminal.progress import UpscaleBar
from .asked import Job, Request, Result
from .hdr import hdr_sentence
from .in_units import run_in_units, work_for
from .outputs import keep, kept_output, slow_encoder
from .told import Told

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ...output.signals import HeldSignals
    from ...pipeline.clip_stages import SourceFrame
    from ...pipeline.memory import ClipPlan
    from ...pipeline.upscaler import Progress, Upscaler
    from ...video import CodedFrame, Frame, FrameSink, FrameSource, PictureMetadata

    _Passed = tuple[int, int, PictureMetadata | None]

__all__ = ["Job", "Request", "Result", "jobs_for", "run_job"]


def jobs_for(source: str, target: Path, *, each: bool = False) -> list[Job]:
    """The clips of a folder, each to a file of its name in the folder `target`; anything else is one job.

    A folder or pattern that means pictures alone is one sequence, or, if `each`, as many jobs as pictures. Raises
    InvalidArgumentError for a target that is a file, or for two inputs that would get one name.
    """
    from ...video.reading.folder import clips_in
    from ...video.reading.pictures.selection import list_pictures
    from ...video.writing.containers import CONTAINERS
    from ...video.writing.pictures.kinds import PICTURES

    folder = Path(source)
    if each:
        inputs, known, other = list_pictures(folder), frozenset(PICTURES), ".png"
        if inputs is None:
            raise InvalidArgumentError(f"each: expected a folder or pattern of pictures, got {source}; leave it out.")
    else:
        found = clips_in(folder) if folder.is_dir() else None
        inputs = found.clips if found is not None else []
        known, other = frozenset(CONTAINERS), ".mkv"
        if found is not None and (skipped := found.skipped(folder)):
            warn(skipped)
    if not inputs:
        return [Job(source, target)]
    what = "pictures" if each else "clips"
    if target.suffix or target.is_file():
        raise InvalidArgumentError(f"{target}: expected a folder for the {len(inputs)} {what} of {source}, got a file.")
    names = [path.name if path.suffix.lower() in known else f"{path.stem}{other}" for path in inputs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidArgumentError(f"{source}: expected {what} of different names, found two for {twice}; rename one.")
    return [Job(str(path), target / name, makes_folder=True) for path, name in zip(inputs, names, strict=True)]


def run_job(job: Job, request: Request) -> Result:
    """Upscale one input into one output; whatever it ends with, what was finished is kept and named."""
    from ...pipeline.memory import limit_engine
    from ...video import open_sink

    with request.cut.open(job.source) as clip:
        check_count(len(clip), job.target)
        info = clip.info
        for sentence in info.remarks:
            err.print(sentence, markup=False)
        if hdr := hdr_sentence(info, request.options.hdr):
            err.print(f"HDR: {hdr}", markup=False)
        work = work_for(job, request, info)
        if work is not None:
            return run_in_units(job, request, info, work)
        resize = request.options.resize((info.height, info.width))
        height, width = resize.output
        told = Told(clip)

        def open_output() -> FrameSink:
            with span("opening"):
                return open_sink(job.target, width=width, height=height, source=info, options=request.sink)

        with kept_output(open_output) as (sink, signals):
            told.also(sink)
            told.tell()  # What is known now is said before the work, not after.
            with closing(_Reading(clip, pinned=request.setup.formats.device.type == "cuda")) as reading:
                with signals.let_through():
                    upscaler = request.upscaler
                    plan = upscaler.plan((info.height, info.width), info.selected_frames)
                    limit_engine(upscaler.vae, plan)
                began = time.perf_counter()
                try:
                    with _memory_errors(job, plan, upscaler.vae.device):
                        waited_s = _pass_frames(reading, upscaler, sink, signals, job)
                finally:
                    seconds = time.perf_counter() - began
                    told.tell()
        told.tell()
        if slow := slow_encoder(waited_s, seconds, sink, request.sink):
            err.print(slow, markup=False)
    return Result(
        output=job.target,
        frames=sink.frames_written,
        source_size=(info.width, info.height),
        size=(width, height),
        chunk_frames=plan.division.chunks.chunk_frames,
        overlap=plan.division.chunks.overlap,
        seconds=seconds,
        encoder_wait_seconds=round(waited_s, 3),
        missing_frames=clip.missing_frames,
        is_incomplete=clip.is_incomplete,
    )


@contextmanager
def _memory_errors(job: Job, plan: ClipPlan, device: torch.device) -> Iterator[None]:
    """Say what was missing, with the estimate."""
    from ...device import is_out_of_memory

    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        chunk, needed = plan.division.chunks.chunk_frames, readable_size(plan.memory.peak_bytes)
        where = "this machine" if device.type == "cpu" else str(device)
        raise DeviceMemoryError(
            f"{job.source}: expected {where} to have about {needed} of memory free for chunks of up to {chunk} "
            "frames, found too little; try fewer --chunk-frames, --offload blocks, a smaller size, or --tile 512."
        ) from error


class _Reading:
    """A source that is read ahead in a thread, from now on: its first frames are there when the models are."""

    def __init__(self, clip: FrameSource, *, pinned: bool) -> None:
        """pinned: whether its frames are wanted in page-locked memory, for a GPU."""
        from ...pipeline.prefetch import READ_AHEAD_FRAMES, prefetched

        self.clip = clip
        self.times: deque[_Passed] = deque()
        """What `pictures` leaves out."""
        # Code values cross the bus, and the device makes R'G'B' of them.
        pictures = _pictures(clip.coded(pinned=pinned), self.times)
        self.pictures = prefetched(each("reading", pictures), READ_AHEAD_FRAMES, name="reading")
        self.pictures.start()

    def close(self) -> None:
        """Stop reading, after the frame at hand."""
        self.pictures.close()


def _pass_frames(reading: _Reading, upscaler: Upscaler, sink: FrameSink, signals: HeldSignals, job: Job) -> float:
    """Read, upscale and write every frame; returns the seconds that computing waited for the encoder.

    Signals are held back and looked for: an interruption anywhere would tear a frame that is being written, and lose
    those that are finished and wait for it.
    """
    from ...pipeline.prefetch import prefetched, write_behind

    is_over = False
    clip, pictures = reading.clip, reading.pictures
    with UpscaleBar(Path(job.source).name, len(clip)) as bar:

        def step(progress: Progress) -> None:
            if is_over or signals.is_pending:
                raise KeyboardInterrupt
            bar.step(progress)

        # The device makes code values of results, and those cross the bus.
        encoded = None if sink.coding is None else sink.coding.of_picture
        frames = upscaler.upscale(pictures, step, transfer=clip.info.color.transfer, encoded=encoded)
        frame_bytes = sink.width * sink.height * 12 if sink.coding is None else sink.coding.size_bytes
        behind = write_behind(frame_bytes, upscaler.vae.device)
        upscaled = prefetched(frames, behind, lambda: signals.is_pending, "computing")
        # The source is closed when nobody reads any more, or what went wrong would be hidden behind that.
        with closing(pictures), closing(upscaled):
            try:
                _write(upscaled, reading.times, sink, bar)
            except BaseException as error:
                is_over = True
                bar.stop()
                # Kept before the step at hand is waited for, which can take minutes; nothing is lost from here on.
                if isinstance(error, KeyboardInterrupt):
                    keep(sink, signals)
                else:
                    sink.abort(keep_partial=True)
                with waiting(), signals.let_through():
                    upscaled.close()
                raise
            return upscaled.waited_s


def _pictures(clip: Iterable[Frame | CodedFrame], times: deque[_Passed]) -> Iterator[SourceFrame]:
    """The clip's frames with their alpha, (3 or 4, H, W); their times and metadata go to `times`."""
    import torch

    from ...video import CodedFrame

    for frame in clip:
        times.append((frame.pts, frame.duration, frame.metadata))
        if isinstance(frame, CodedFrame):
            yield frame
            continue
        yield frame.rgb if frame.alpha is None else torch.cat([frame.rgb, frame.alpha])


def _write(pictures: Iterable[Tensor], times: deque[_Passed], sink: FrameSink, bar: UpscaleBar) -> None:
    for picture in each("waiting", pictures):
        pts, duration, metadata = times.popleft()
        with span("writing"):
            if sink.coding is not None:
                sink.write_coded(picture, pts=pts, duration=duration)
            else:
                alpha = picture[3:] if picture.shape[0] == 4 else None
                sink.write(picture[:3], pts=pts, duration=duration, alpha=alpha, metadata=metadata)
        bar.written(sink.frames_written)
