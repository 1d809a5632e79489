"""A clip of any length as chunks of 4n+1 frames, and the chunks' results as one clip again.

A last chunk with few frames is filled up with those before it, as context.

Everything is a generator: what is kept at a time depends on the chunk, not on the clip. Frames may be of any type
until they are blended.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from torch import Tensor

from ..errors import InvalidArgumentError
from ..models.vae.config import VAEConfig

Frame = TypeVar("Frame")
Weights = Callable[[int], list[float]]
"""Number of shared frames -> weight of the earlier chunk in each of them."""

STEP_FRAMES = VAEConfig().temporal_compression
"""Frames of a latent, but for a chunk's first, which has one."""


@dataclass(frozen=True)
class ChunkPlan:
    """How a clip, or the stream of its latents, is cut."""

    chunk_frames: int
    """Frames of a chunk, 4n+1; of a stream of latents any number."""
    overlap: int = 0
    """Frames that neighbouring chunks share, fewer than a chunk has; with 1, 5, 9, ... they share whole latents."""
    unit: int = STEP_FRAMES
    """Frames of a latent but for the first; 1 where latents are cut."""

    def __post_init__(self) -> None:
        if self.chunk_frames < 1 or (self.chunk_frames - 1) % self.unit:
            raise InvalidArgumentError(
                f"chunk frames: expected 4n+1 (1, 5, 9, ...), got {self.chunk_frames}; "
                f"try {padded_count(max(1, self.chunk_frames))}."
            )
        if not 0 <= self.overlap < self.chunk_frames:
            raise InvalidArgumentError(
                f"overlap: expected 0 to {self.chunk_frames - 1} frames, fewer than a chunk has, got {self.overlap}; "
                "lower the overlap or enlarge the chunks."
            )

    @property
    def step(self) -> int:
        """Frames from one chunk's start to the next one's."""
        return self.chunk_frames - self.overlap

    @property
    def of_latents(self) -> "ChunkPlan":
        """The same for the stream of latents that belongs to the clip: as many latents, the shared ones rounded up."""
        latents = (self.chunk_frames - 1) // self.unit + 1
        shared = min(padded_count(self.overlap, self.unit) // self.unit + 1, latents - 1) if self.overlap else 0
        return ChunkPlan(latents, shared, unit=1)


@dataclass(frozen=True)
class ChunkSpan:
    """Where a chunk lies in its clip."""

    start: int
    """First frame whose result is used."""
    stop: int
    """One past the last frame whose result is used."""
    lead: int = 0
    """Frames before `start` that the model sees as context; their results are dropped."""

    @property
    def frames(self) -> int:
        """Frames whose results are used."""
        return self.stop - self.start


@dataclass(frozen=True)
class Chunk(Generic[Frame]):
    """The frames that go through the model together."""

    span: ChunkSpan
    """Where they lie."""
    frames: tuple[Frame, ...]
    """4n+1 frames: `span.lead` of context, `span.frames` of the clip, and padding."""
    unit: int = STEP_FRAMES
    """Frames of a latent, as in the plan."""

    @property
    def latents(self) -> range:
        """Numbers of the chunk's latents in the clip, of which number j ends with frame 4j.

        Where chunks do not start at a multiple of four, the nearest number is taken.
        """
        first = (self.span.start - self.span.lead + self.unit // 2) // self.unit
        return range(first, first + (len(self.frames) - 1) // self.unit + 1)


@dataclass(frozen=True)
class Entry:
    """Where every stage begins, in frames and latents of the clip, those of the frames put before it included."""

    chunk: int = 0
    """First chunk that is restored, or, where the VAE sees chunks, that passes all stages."""
    base: int = 0
    """First latent that chunks are cut from; a frame where the VAE sees chunks."""
    encoded: int = 0
    """First latent that is encoded; the encoder's first frame is that latent's last one."""
    decoded: int = 0
    """First latent that is decoded; the decoder's first picture is that latent's last one."""
    colored: int = 0
    """First picture whose colours are measured."""
    given: int = 0
    """First picture that is given out."""
    first_frame: int = 0
    """First frame of the clip itself that is read, without those put before it."""

    @property
    def is_start(self) -> bool:
        """Whether the clip is passed from its first frame on."""
        return self.first_frame == 0 and self.given == 0


def padded_count(frames: int, unit: int = STEP_FRAMES) -> int:
    """The least number of the form 4n+1 (or unit * n + 1) that is not below `frames` (at least 1)."""
    return frames + -(frames - 1) % unit


def latent_count(frames: int) -> int:
    """Latents of so many frames, 4n+1."""
    return (frames - 1) // STEP_FRAMES + 1


def pad_after(count: int, extra: int) -> list[int]:
    """Source frame of each frame when `count` frames are lengthened by `extra` at the end.

    The clip runs back from the frame before its last. A clip that is too short for that runs back from its last frame
    to its second and is then held at the last, as in the public reference.
    """
    frames = list(range(count))
    if extra < count:
        return frames + frames[-2 : -2 - extra : -1]
    return frames + frames[:0:-1] + [count - 1] * (extra - count + 1)


def pad_before(count: int, extra: int) -> list[int]:
    """Source frame of each frame when `count` frames are lengthened by `extra` at the start: mirrored, then held."""
    mirrored = list(range(min(extra, count - 1), 0, -1))
    return [count - 1] * (extra - len(mirrored)) + mirrored + list(range(count))


def prepend_mirrored(frames: Iterable[Frame], extra: int) -> Iterator[Frame]:
    """A clip with `extra` mirrored frames in front, which give its first frame a past; drop their results."""
    stream = iter(frames)
    opening = list(islice(stream, extra + 1))
    if opening:
        yield from (opening[i] for i in pad_before(len(opening), extra))
    yield from stream


def filled_up(frames: Iterable[Frame], unit: int = STEP_FRAMES) -> Iterator[Frame]:
    """A clip lengthened to 4n+1 frames by running back from its end."""
    count = 0
    last: deque[Frame] = deque(maxlen=unit)
    for frame in frames:
        count += 1
        last.append(frame)
        yield frame
    if count:
        tail = list(last)
        yield from (tail[i] for i in pad_after(len(tail), padded_count(count, unit) - count)[len(tail) :])


def chunk_spans(total: int, plan: ChunkPlan) -> Iterator[ChunkSpan]:
    """Where the chunks of a clip of `total` frames lie."""
    for start in range(0, total, plan.step):
        stop = min(start + plan.chunk_frames, total)
        if start and stop - start <= plan.overlap:
            return
        yield _span(start, stop, plan)


def chunk_count(total: int, plan: ChunkPlan) -> int:
    """How many chunks `chunk_spans` gives."""
    return 1 + max(0, -(-(total - plan.chunk_frames) // plan.step))


def chunked(frames: Iterable[Frame], plan: ChunkPlan, *, base: int = 0, first: int = 0) -> Iterator[Chunk[Frame]]:
    """Cut a stream of frames into chunks; at most two chunks are kept at a time.

    base: number of the stream's first frame in the clip. first: number of the first chunk, which begins there or later.
    """
    held: list[Frame] = []
    start = first * plan.step
    for frame in frames:
        held.append(frame)
        if base + len(held) == start + plan.chunk_frames:
            yield _chunk(held, base, _span(start, start + plan.chunk_frames, plan), plan)
            # The last chunk may need frames of the one before it.
            del held[: start - base]
            base, start = start, start + plan.step
    stop = base + len(held)
    if stop - start > (plan.overlap if start else 0):
        yield _chunk(held, base, _span(start, stop, plan), plan)


def linear_weights(overlap: int) -> list[float]:
    """Weights of the earlier chunk that fall in equal steps, so that no two frames differ more than needed."""
    return [(overlap - i) / (overlap + 1) for i in range(overlap)]


def joined(
    results: Iterable[tuple[ChunkSpan, Iterable[Tensor]]], overlap: int, weights: Weights = linear_weights
) -> Iterator[Tensor]:
    """The frames of a clip from the results of its chunks, cross-faded where neighbours share frames.

    results: for each chunk in order its span and one tensor a frame, context and padding included; these are dropped.
    At most `overlap` frames are kept between chunks, and results may themselves be generators.
    """
    earlier_weights = weights(overlap)
    pending: deque[Tensor] = deque()
    for span, frames in results:
        shared = list(pending)
        pending.clear()
        count = 0
        for count, frame in enumerate(islice(frames, span.lead, span.lead + span.frames), start=1):
            later = count - 1
            if later < len(shared):
                # lerp leaves frames as they are, to the last bit, where both chunks agree.
                frame = frame.lerp(shared[later], earlier_weights[later])
            pending.append(frame)
            if len(pending) > overlap:
                yield pending.popleft()
        if count != span.frames:
            raise InvalidArgumentError(
                f"chunk {span.start}..{span.stop - 1}: expected {span.frames} frames, got {count} after "
                f"{span.lead} of context."
            )
    yield from pending


def _span(start: int, stop: int, plan: ChunkPlan) -> ChunkSpan:
    lead = plan.chunk_frames - padded_count(stop - start, plan.unit) if start else 0
    return ChunkSpan(start, stop, lead)


def _chunk(held: list[Frame], base: int, span: ChunkSpan, plan: ChunkPlan) -> Chunk[Frame]:
    frames = held[span.start - span.lead - base : span.stop - base]
    order = pad_after(len(frames), padded_count(len(frames), plan.unit) - len(frames))
    return Chunk(span, tuple(frames[i] for i in order), plan.unit)
