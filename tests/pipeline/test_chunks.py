"""Clips are cut into chunks of 4n+1 frames and joined again without a visible border."""

import math
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.pipeline.chunks import (
    ChunkPlan,
    ChunkSpan,
    chunk_spans,
    chunked,
    joined,
    linear_weights,
    pad_after,
    pad_before,
    padded_count,
    prepend_mirrored,
)

from ..conftest import GOLDEN

TEMPORAL = {
    key.removeprefix("temporal/"): value
    for key, value in load_file(GOLDEN / "sampler_cases.safetensors").items()
    if key.startswith("temporal/")
}


def cases(kind: str) -> list[str]:
    return sorted(key for key in TEMPORAL if key.startswith(f"{kind}/"))


def numbers(case: str) -> list[int]:
    return [int("".join(c for c in part if c.isdigit())) for part in case.split("/")[-1].split("_")]


def reference_weights(overlap: int) -> list[float]:
    """The public reference's weights of the earlier chunk, by its definition."""
    if overlap < 3:
        return [1.0, 0.0][:overlap]
    places = (i / (overlap - 1) for i in range(overlap))
    return [0.5 + 0.5 * math.cos(math.pi * min(max((p - 1 / 3) * 3, 0), 1)) for p in places]


def plans() -> st.SearchStrategy[ChunkPlan]:
    return st.integers(0, 5).flatmap(lambda n: st.builds(ChunkPlan, st.just(4 * n + 1), st.integers(0, 4 * n)))


@pytest.mark.parametrize("case", cases("auto4n1"))
def test_padding_to_whole_latents(case):
    (count,) = numbers(case.replace("auto4n1/t", ""))
    assert pad_after(count, padded_count(count) - count) == TEMPORAL[case].tolist()


@pytest.mark.parametrize("case", cases("append"))
def test_padding_at_the_end(case):
    assert pad_after(*numbers(case)) == TEMPORAL[case].tolist()


@pytest.mark.parametrize("case", cases("prepend"))
def test_padding_at_the_start(case):
    count, extra = numbers(case)
    assert pad_before(count, extra) == TEMPORAL[case].tolist()
    assert list(prepend_mirrored(range(count), extra)) == TEMPORAL[case].tolist()


def test_nothing_stays_nothing():
    assert list(prepend_mirrored([], 3)) == []
    assert list(chunked([], ChunkPlan(5, 1))) == []
    assert list(chunk_spans(0, ChunkPlan(5, 1))) == []
    assert list(joined([], 1)) == []


@pytest.mark.parametrize("case", cases("split"))
def test_spans_are_those_of_the_reference(case):
    total, chunk_frames, overlap = numbers(case)
    # The reference ignores an overlap as long as a chunk, which is an error here.
    spans = list(chunk_spans(total, ChunkPlan(chunk_frames, overlap % chunk_frames)))
    assert [[span.start, span.stop] for span in spans] == TEMPORAL[case].tolist()


@given(st.integers(0, 70), plans())
def test_chunks_hold_what_their_spans_say(total, plan):
    chunks = list(chunked(range(total), plan))
    assert [chunk.span for chunk in chunks] == list(chunk_spans(total, plan))
    for chunk in chunks:
        span = chunk.span
        own = list(chunk.frames[: span.lead + span.frames])
        assert own == list(range(span.start - span.lead, span.stop))
        assert len(chunk.frames) % 4 == 1
        assert len(chunk.frames) <= plan.chunk_frames
        assert len(chunk.latents) == (len(chunk.frames) - 1) // 4 + 1
        if len(chunks) > 1:
            assert len(chunk.frames) == plan.chunk_frames
            assert len(chunk.frames) - span.lead - span.frames < 4


@given(st.integers(0, 70), plans())
def test_a_clip_that_is_only_cut_and_joined_is_the_same(total, plan):
    frames = list(torch.linspace(-1, 1, max(total, 1))[:total, None])
    out = list(joined(((chunk.span, chunk.frames) for chunk in chunked(frames, plan)), plan.overlap))
    assert len(out) == total
    assert all(torch.equal(a, b) for a, b in zip(out, frames, strict=True))


@pytest.mark.parametrize("overlap", range(1, 17))
def test_every_overlap_blends(overlap):
    weights = linear_weights(overlap)
    steps = [a - b for a, b in zip([1.0, *weights], [*weights, 0.0], strict=True)]
    assert steps == pytest.approx([1 / (overlap + 1)] * (overlap + 1))


@pytest.mark.parametrize("overlap", [1, 2, 3, 4, 5, 8])
def test_a_border_is_spread_over_the_shared_frames(overlap):
    plan = ChunkPlan(21, overlap)
    results = ((chunk.span, [torch.full((2,), float(i))] * 21) for i, chunk in enumerate(chunked(range(60), plan)))
    out = torch.stack(list(joined(results, overlap)))[:, 0]
    assert len(out) == 60
    assert out.diff().min() >= 0
    assert out.diff().max() <= 1 / (overlap + 1) + 1e-6
    assert out[0] == 0
    assert out[-1] == len(list(chunk_spans(60, plan))) - 1


@pytest.mark.parametrize("case", cases("blend_w_prev/fp32"))
def test_reference_weights_can_be_used_instead(case):
    overlap = int(case.rpartition("ov")[2])
    assert reference_weights(overlap) == pytest.approx(TEMPORAL[case].tolist(), abs=1e-6)


def test_blending_is_that_of_the_reference_with_its_weights():
    earlier, later, expected = (TEMPORAL[f"blend/{name}"] for name in ("prev", "cur", "out"))
    overlap = len(earlier)
    results = [(ChunkSpan(0, overlap), earlier), (ChunkSpan(0, overlap + 1), torch.cat([later, later[-1:]]))]
    out = torch.stack(list(joined(results, overlap, reference_weights)))[:overlap]
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def test_latents_of_neighbours_have_the_same_numbers():
    chunks = list(chunked(range(92), ChunkPlan(21, 5)))
    assert [chunk.latents.start for chunk in chunks] == [0, 4, 8, 12, 16, 18]
    for chunk in chunks:
        assert 4 * chunk.latents.start == chunk.frames[0]
        assert len(chunk.latents) == 6


@pytest.mark.parametrize(
    ("frames", "overlap", "latents", "shared"),
    [(9, 0, 3, 0), (9, 1, 3, 1), (9, 2, 3, 2), (9, 5, 3, 2), (21, 6, 6, 3), (5, 4, 2, 1), (1, 0, 1, 0)],
)
def test_latents_that_chunks_share_are_rounded_up(frames, overlap, latents, shared):
    assert ChunkPlan(frames, overlap).of_latents == ChunkPlan(latents, shared, unit=1)


@pytest.mark.parametrize("start", range(12))
def test_odd_starts_take_the_nearest_latent(start):
    plan = ChunkPlan(13, 12)
    chunk = list(chunked(range(40), plan))[start]
    assert chunk.span.start == start
    assert abs(4 * chunk.latents.start - start) <= 2


def test_a_short_last_chunk_has_context():
    last = list(chunked(range(12), ChunkPlan(9, 1)))[-1]
    assert list(last.frames) == [4, 5, 6, 7, 8, 9, 10, 11, 10]
    assert last.span == ChunkSpan(8, 12, lead=4)


class Picture:
    """A frame whose life can be watched."""


def test_memory_does_not_depend_on_the_length():
    alive: weakref.WeakSet[Picture] = weakref.WeakSet()
    most = 0

    def frames(count):
        for _ in range(count):
            picture = Picture()
            alive.add(picture)
            yield picture
            del picture

    for count in (40, 400):
        most = 0
        for chunk in chunked(frames(count), ChunkPlan(9, 5)):
            del chunk
            most = max(most, len(alive))
        assert most <= 9 + 4


def test_frames_leave_as_soon_as_they_are_done():
    taken = []

    def results():
        for chunk in chunked(range(30), ChunkPlan(9, 1)):
            taken.append(chunk.span.start)
            yield chunk.span, (torch.tensor([float(i)]) for i in chunk.frames)

    out = joined(results(), 1)
    assert [float(next(out)) for _ in range(8)] == list(range(8))
    assert taken == [0]


def test_too_few_results_are_noticed():
    with pytest.raises(InvalidArgumentError, match=r"chunk 0\.\.4: expected 5 frames, got 3 after 0 of context"):
        list(joined([(ChunkSpan(0, 5), torch.zeros(3, 1))], 1))


@pytest.mark.parametrize(
    ("frames", "overlap", "said"),
    [
        (4, 0, r"4n\+1 \(1, 5, 9, ...\), got 4; try 5"),
        (0, 0, r"got 0; try 1"),
        (5, 5, "expected 0 to 4 frames, fewer than a chunk has, got 5"),
        (5, -1, "got -1"),
    ],
)
def test_impossible_chunks_are_refused(frames, overlap, said):
    with pytest.raises(InvalidArgumentError, match=said):
        ChunkPlan(frames, overlap)
