"""From a clip to a larger one: frames in, frames out, in memory that depends on a chunk and not on the clip.

Frames are resized, encoded, restored by one step of the transformer in chunks of latents, decoded, and given their
source's colours. The VAE streams through the whole clip, and neighbouring chunks of the transformer share latents and
are cross-faded; or, in less memory and as the public reference does it, every chunk passes all stages on its own and
the pictures are cross-faded. Source of the order of work: the reference's `src/core/generation_phases.py`, whose
phases each go over the whole clip.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice

import torch
from torch import Tensor

from ..color.hdr import HdrPassage, passage_for
from ..color.methods import SLICE_METHODS
from ..device import queue_clock, total_memory_bytes
from ..errors import InvalidArgumentError
from ..models.dit.model import NaDiT
from ..models.dit.sampler import LAST_TIMESTEP
from ..spans import each
from .chunks import STEP_FRAMES, Chunk, ChunkPlan, Entry, chunked, filled_up, joined, prepend_mirrored
from .clip_stages import ClipStages, Models, Progress, ProgressCallback, SourceFrame, whole
from .memory import ClipMemory, ClipPlan, Division, Sizes, asked_division, plan_clip, sizes_of
from .options import UpscaleOptions
from .reconstruct import VideoCodec, defined
from .to_host import on_host

__all__ = ["Progress", "ProgressCallback", "Upscaler"]


class Upscaler:
    """Upscales clips and pictures with one pair of models; keeps nothing of one clip for the next."""

    def __init__(
        self,
        dit: NaDiT,
        vae: VideoCodec,
        options: UpscaleOptions | None = None,
        *,
        text: Tensor,
        sizes: Sizes | None = None,
    ) -> None:
        """Compute what follows from the text alone. text: the embedding (tokens, text width) that the model runs with.

        dit, vae: models that belong together, each on its device and in its number format; InvalidArgumentError where
        they are the wrong way round. sizes: those that a run was planned with; by default the models' own.
        """
        if not hasattr(dit, "velocity") or not hasattr(vae, "stream_decode"):
            raise InvalidArgumentError(
                f"models: expected a transformer and then a VAE, got {type(dit).__name__} and {type(vae).__name__}; "
                "call Upscaler(load_dit(...), load_vae(...), text=...)."
            )
        self.dit = dit
        self.vae = vae
        self.options = options or UpscaleOptions()
        self._sizes = sizes
        self._models = Models(dit, vae, dit.conditioning(text, LAST_TIMESTEP), len(text))

    def with_options(self, options: UpscaleOptions) -> "Upscaler":
        """The same models, for clips that are to be upscaled otherwise."""
        other = copy.copy(self)
        other.options = options
        return other

    def plan(self, source: tuple[int, int], frames: int | None = None) -> ClipPlan:
        """How clips of (height, width) in pixels are cut, and with which memory.

        frames: how many a clip has, where that may be fewer than a chunk.
        """
        sizes = self._sizes or sizes_of(self.dit, self.vae)
        return plan_clip(sizes, self.options, source, total_memory_bytes(self.vae.device), frames)

    def division(self, source: tuple[int, int]) -> Division:
        """How clips of (height, width) in pixels are cut: as asked for, or in the longest chunks that fit."""
        return asked_division(self.options) or self.plan(source).division

    def memory(self, source: tuple[int, int], frames: int | None = None) -> ClipMemory:
        """What upscaling clips of (height, width) in pixels is expected to take on the VAE's device."""
        return self.plan(source, frames).memory

    @torch.no_grad()
    def upscale(
        self,
        frames: Iterable[SourceFrame],
        on_progress: ProgressCallback | None = None,
        *,
        transfer: int = 2,
        encoded: Callable[[Tensor], Tensor] | None = None,
        entry: Entry | None = None,
        opening: Sequence[SourceFrame] = (),
    ) -> Iterator[Tensor]:
        """Upscale frames (3, H, W), or (4, H, W) with alpha, in [0, 1]; yields as many, clamped, FP32 on the CPU.

        frames: tensors, or code values such as `FrameSource.coded` gives, which become R'G'B' on the VAE's device.
        encoded: makes of a result, on the device where it is, what is given out instead, such as `Coding.of_picture`;
        that comes in page-locked memory from a GPU, so do not keep many.
        Frames are taken as they are needed. All must have one shape (InvalidArgumentError). Whether alpha is a mask is
        decided on the first chunk. transfer: what the frames' values mean, an H.273 code point such as
        `SourceInfo.color.transfer`; PQ (16) takes the way that `UpscaleOptions.hdr` says, all others are taken for SDR.
        NaN counts as 0 and infinities as 0 and 1. The same frames, options and device give the same numbers.
        entry: where to begin in the midst of a clip, whose frames come from `entry.first_frame` on: what is given out
        is then what a run through the whole clip gives from `entry.given` on. opening: where frames have alpha, the
        first frames of the clip as `opening_frames` counts them.
        """
        clock = queue_clock(self.vae.device)
        stream = each("waiting", frames, clock)
        try:
            first = next(stream)
        except StopIteration:
            return
        _check_frame(0, first, first)
        stream = _checked(chain([first], stream))
        size = first.shape[1], first.shape[2]
        passage = passage_for(self.options.hdr, transfer, self.vae.device)
        division, entry, before = self.division(size), entry or Entry(), self.options.prepend_frames
        stages = ClipStages(self._models, self.options, self.options.resize(size), on_progress)
        if passage:
            on_device = (whole(frame, self.vae.device) for frame in stream)
            # What passes the models only for the sake of later frames does not come out again.
            unseen = max(0, entry.given - before) - entry.first_frame
            warming = HdrPassage(self.vae.device).inward(islice(on_device, unseen))
            stream = chain(warming, passage.inward(on_device))
        if opening:
            seen = islice(prepend_mirrored(opening, before), opening_frames(division))
            stages.decide_mask(next(chunked(seen, division.chunks)).frames if division.vae_span == "chunk" else seen)
        source = stream if entry.first_frame else prepend_mirrored(stream, before)
        walk = _through_chunks if division.vae_span == "chunk" else _through_clip
        pictures: Iterator[Tensor] = islice(
            walk(source, stages, division.chunks, self.options, entry), max(0, before - entry.given), None
        )
        if passage:
            pictures = passage.outward(pictures)
        results = on_host(pictures) if encoded is None else on_host(map(encoded, pictures), is_pinned=True)
        yield from each("to host", results, clock)


def opening_frames(division: Division) -> int:
    """Frames of a clip, those put before it included, on which it is decided what its alpha is."""
    if division.vae_span == "chunk":
        return division.chunks.chunk_frames
    return STEP_FRAMES * (division.chunks.of_latents.chunk_frames - 1) + 1


def _through_clip(
    source: Iterable[SourceFrame], stages: ClipStages, plan: ChunkPlan, options: UpscaleOptions, entry: Entry
) -> Iterator[Tensor]:
    """The VAE sees the clip as one; only the transformer works in chunks."""
    waiting: deque[SourceFrame] = deque()
    latent_plan = plan.of_latents

    read = first = STEP_FRAMES * entry.encoded

    def kept() -> Iterator[SourceFrame]:
        nonlocal read
        for frame in source:
            read += 1
            if read > entry.colored:
                waiting.append(frame)
            yield frame

    def counted() -> Iterator[Tensor]:
        for number, picture in enumerate(stages.model_inputs(filled_up(kept()), first), start=first):
            yield picture
            stages.report("encode", min(number + 1, read))

    def restored(chunk: Chunk[Tensor]) -> Iterator[Tensor]:
        stages.report("transform", min(plan.unit * chunk.span.start, read))
        clean = stages.restore(chunk.frames, chunk.latents)
        stages.report("transform", min(plan.unit * (chunk.span.stop - 1) + 1, read))
        yield from clean[chunk.span.lead :]

    stages.skip_inputs([1] * first)
    latents = islice(stages.encode(counted()), entry.base - entry.encoded, None)
    chunks = chunked(latents, latent_plan, base=entry.base, first=entry.chunk)
    clean = joined(((replace(chunk.span, lead=0), restored(chunk)) for chunk in chunks), latent_plan.overlap)
    wanted = islice(clean, entry.decoded - latent_plan.step * entry.chunk, None)
    decoded = islice(stages.decode(wanted), entry.colored - STEP_FRAMES * entry.decoded, None)
    # Slices of colours are as long as what a chunk adds; the first latent is a single frame.
    step = latent_plan.step if options.color in SLICE_METHODS else 1
    length = plan.unit * step if entry.colored else plan.unit * (step - 1) + 1
    done = entry.colored
    while pictures := list(islice(decoded, length)):
        if done == 0:
            stages.decide_mask(islice(waiting, opening_frames(Division(plan, "clip"))))
        own = [waiting.popleft() for _ in pictures[: len(waiting)]]
        stages.report("decode", done + len(own))
        if done < entry.given:
            stages.measure(pictures[: len(own)], own)
            done += len(own)
        else:
            for frame in stages.finish(pictures[: len(own)], own, fade=done > 0) if own else ():
                done += 1
                stages.report("color", done)
                yield frame
        length = plan.unit * step


def _through_chunks(
    source: Iterable[SourceFrame], stages: ClipStages, plan: ChunkPlan, options: UpscaleOptions, entry: Entry
) -> Iterator[Tensor]:
    """Every chunk starts anew, and the pictures of neighbours are cross-faded."""

    def finished(chunk: Chunk[SourceFrame]) -> Iterator[Tensor]:
        span = chunk.span
        begin = span.start - span.lead
        numbers = range(begin, begin + len(chunk.frames))

        def counted() -> Iterator[Tensor]:
            for number, picture in zip(numbers, stages.model_inputs(chunk.frames, numbers), strict=True):
                yield picture
                stages.report("encode", min(number + 1, span.stop))

        stages.decide_mask(chunk.frames)
        latents = list(stages.encode(counted()))
        stages.report("transform", span.start)
        clean = stages.restore(latents, chunk.latents)
        stages.report("transform", span.stop)

        def decoded() -> Iterator[Tensor]:
            for number, picture in zip(numbers, stages.decode(clean), strict=True):
                stages.report("decode", min(number + 1, span.stop))
                yield picture

        own = slice(span.lead, span.lead + span.frames)
        pictures: Iterable[Tensor] = islice(decoded(), own.start, own.stop)
        if options.color in SLICE_METHODS:
            pictures = list(pictures)
        for number, frame in enumerate(stages.finish(pictures, chunk.frames[own]), start=span.start):
            stages.report("color", number + 1)
            yield frame

    stages.skip_inputs([plan.chunk_frames] * entry.chunk)
    # The context before a chunk is gone by the time its frames are joined.
    chunks = chunked(source, plan, base=entry.base, first=entry.chunk)
    faded = joined(((replace(chunk.span, lead=0), finished(chunk)) for chunk in chunks), plan.overlap)
    return islice(faded, entry.given - plan.step * entry.chunk, None)


def _checked(frames: Iterable[SourceFrame]) -> Iterator[SourceFrame]:
    first: SourceFrame | None = None
    for index, frame in enumerate(frames):
        first = frame if first is None else first
        _check_frame(index, frame, first)
        yield defined(frame) if isinstance(frame, Tensor) else frame


def _check_frame(index: int, frame: SourceFrame, first: SourceFrame) -> None:
    if not isinstance(frame, Tensor) and not hasattr(frame, "on"):
        raise InvalidArgumentError(
            f"frame {index}: expected a tensor (3, H, W) or (4, H, W), got {type(frame).__name__}."
        )
    if isinstance(frame, Tensor) and not (
        frame.ndim == 3 and frame.shape[0] in (3, 4) and 0 not in frame.shape and frame.is_floating_point()
    ):
        raise InvalidArgumentError(
            f"frame {index}: expected floating point (3, H, W) or (4, H, W), got {frame.dtype} {tuple(frame.shape)}."
        )
    if frame.shape != first.shape:
        raise InvalidArgumentError(
            f"frame {index}: expected shape {tuple(first.shape)} like the first frame, got {tuple(frame.shape)}; "
            "a clip must keep its size."
        )
