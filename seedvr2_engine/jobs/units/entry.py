"""Where the work on a clip can begin in its midst, and how much earlier, so that its results are those of a whole run.

The causal VAE forgets: a decode that begins 40 latents early, and an encode that begins 30 latents early, give the same
bits from there on, in every number format (docs/NOTES.md). What a later chunk of the transformer needs of earlier ones
are the latents that they share, and those that the decoder warms up with. Curves of colours fade from slice to slice.
"""

from __future__ import annotations

from ...color.methods import SLICE_METHODS
from ...pipeline.chunks import STEP_FRAMES, ChunkPlan, Entry, chunk_count, latent_count, padded_count
from ...pipeline.memory import Division
from ...pipeline.options import UpscaleOptions

DECODE_WARM_UP_LATENTS = 40
"""Latents after which the decoder's results do not tell any more where it began.

The engine forgets after 37. The plain model takes a clip's first two latents as one, whose last bits differ for it, and
forgets after 40.
"""
ENCODE_WARM_UP_LATENTS = 30
"""The same for the encoder, of which the engine needs 28."""


def first_frames(division: Division, options: UpscaleOptions, frames: int) -> list[int]:
    """The first frame that each chunk adds to a clip of so many frames, counted without the frames put before it.

    Where several chunks add frames put before the clip, only the last of them counts with the clip's frame 0; the
    others have -1.
    """
    total = frames + options.prepend_frames
    if division.vae_span == "chunk":
        starts = [number * division.chunks.step for number in range(chunk_count(total, division.chunks))]
    else:
        plan = division.chunks.of_latents
        latents = latent_count(padded_count(total))
        starts = [_first_picture(number * plan.step) for number in range(chunk_count(latents, plan))]
    begins = [start - options.prepend_frames for start in starts]
    last_before = max(index for index, begin in enumerate(begins) if begin <= 0)
    return [-1] * last_before + [0] + begins[last_before + 1 :]


def entry_at(chunk: int, division: Division, options: UpscaleOptions, frames: int) -> Entry:
    """Where to begin so that what chunk number `chunk` and later ones add to a clip of so many frames is right.

    What is given out begins with `first_frames`[chunk].
    """
    if first_frames(division, options, frames)[chunk] <= 0:
        return Entry()
    return _entry_of_chunks(chunk, division, options, frames + options.prepend_frames) or (
        _entry_of_stream(chunk, division, options, frames + options.prepend_frames)
    )


def _entry_of_chunks(chunk: int, division: Division, options: UpscaleOptions, total: int) -> Entry | None:
    if division.vae_span != "chunk":
        return None
    plan, before = division.chunks, options.prepend_frames
    given = chunk * plan.step
    first = _first_covering(given, plan)
    base = _held_from(first, chunk_count(total, plan), plan)
    if base <= before:
        # The frames put before a clip are of no use in its midst, and few.
        return Entry(first, 0, given=given)
    return Entry(first, base, given=given, first_frame=base - before)


def _entry_of_stream(chunk: int, division: Division, options: UpscaleOptions, total: int) -> Entry:
    plan, before = division.chunks.of_latents, options.prepend_frames
    step = max(1, options.slice_frames // STEP_FRAMES)
    given = chunk * plan.step
    measured = given - plan.step if options.color in SLICE_METHODS else given
    decoded = _aligned(measured - DECODE_WARM_UP_LATENTS, step)
    first = _first_covering(decoded, plan)
    base = _held_from(first, chunk_count(latent_count(padded_count(total)), plan), plan)
    encoded = _aligned(base - ENCODE_WARM_UP_LATENTS, step)
    if STEP_FRAMES * encoded <= before:
        encoded = 0
    return Entry(
        first,
        base,
        encoded,
        decoded,
        _first_picture(measured),
        _first_picture(given),
        max(0, STEP_FRAMES * encoded - before),
    )


def _first_covering(number: int, plan: ChunkPlan) -> int:
    """The first chunk that has a part in a latent or frame: every one that covers it is blended into it."""
    return max(0, -(-(number - plan.chunk_frames + 1) // plan.step))


def _held_from(first: int, count: int, plan: ChunkPlan) -> int:
    """The first latent or frame that chunks from number `first` on are cut from.

    A last chunk takes some from the one before it as context. So may the last but one, where a source ends a few frames
    early.
    """
    return max(0, first if first < count - 2 else first - 1) * plan.step


def _aligned(latent: int, step: int) -> int:
    """Slices of the VAE begin at the same latents wherever a stream begins; else the last bits would differ."""
    latent = max(0, latent)
    return latent - latent % step


def _first_picture(latent: int) -> int:
    """The first of a latent's pictures: the first latent has one, all others four."""
    return 0 if latent == 0 else STEP_FRAMES * (latent - 1) + 1
