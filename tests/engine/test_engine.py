"""The engine is the plain model: any size, any length, whole, streamed, tiled, with rings on the GPU or on the host."""

import warnings

import pytest
import torch
from torch import Tensor

from seedvr2_engine.engine import VAEEngine
from seedvr2_engine.engine.vae.session import Session
from seedvr2_engine.errors import DeviceMemoryError, EngineUnsupportedError, InvalidArgumentError
from seedvr2_engine.models.vae.model import VideoVAE
from seedvr2_engine.models.vae.tiling import TileSpec
from seedvr2_engine.plan import ExecutionPlan, PlanOptions, VAEShape
from seedvr2_engine.plan.tables import SETTLED

from .conftest import GPU, HOPPER, MakeEngine, relative

SCHEDULE = 1e-5
"""Relative error where only the order of FP32 sums differs."""
LATENTS = [(1, 3, 4), (2, 5, 3), (3, 2, 6), (4, 3, 3), (6, 4, 7)]
"""(frames, rows, columns); the plan's tables are settled from the fourth on."""


WAYS = [pytest.param(GPU, id="single frames"), pytest.param(HOPPER, id="pairs")]


def latent(frames: int, rows: int, columns: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 16, frames, rows, columns, generator=torch.Generator().manual_seed(frames))


def video(frames: int, rows: int, columns: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.rand(batch, 3, frames, rows, columns, generator=generator) * 2 - 1


def poison(engine: VAEEngine) -> None:
    """Fill all working memory with NaN (in every format) whenever it is allocated."""
    grow = Session._grow

    def grow_poisoned(plan: ExecutionPlan) -> None:
        before = engine.session.memory_bytes
        grow(engine.session, plan)
        if engine.session.memory_bytes != before:
            for memory in (engine.session._arena, *engine.session._rings.values()):
                memory.fill_(255)

    engine.session._grow = grow_poisoned


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("gpu", WAYS)
@pytest.mark.parametrize(("frames", "rows", "columns"), LATENTS)
def test_decode_is_the_plain_model(make_engine: MakeEngine, tiny_vae: VideoVAE, gpu, frames, rows, columns) -> None:
    engine, z = make_engine(gpu=gpu), latent(frames, rows, columns)
    poison(engine)
    whole = engine.decode(z)
    assert relative(whole, tiny_vae.decode(z)) < SCHEDULE
    assert torch.equal(torch.stack(list(engine.stream_decode(z.unbind(2))), 2), whole)
    assert torch.equal(engine.decode(z, slice_frames=8), whole)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("gpu", WAYS)
@pytest.mark.parametrize(("frames", "rows", "columns"), [(1, 24, 32), (5, 33, 21), (9, 16, 47), (21, 29, 40)])
def test_encode_is_the_plain_model(make_engine: MakeEngine, tiny_vae: VideoVAE, gpu, frames, rows, columns) -> None:
    engine, v = make_engine(gpu=gpu), video(frames, rows, columns)
    poison(engine)
    mean, logvar = engine.encode_distribution(v)
    for actual, expected in zip((mean, logvar), tiny_vae.encode_distribution(v), strict=True):
        assert relative(actual, expected) < SCHEDULE
    assert torch.equal(torch.stack(list(engine.stream_encode(v.unbind(2))), 2), mean)
    assert torch.equal(engine.encode(v), mean)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("part", ["decode", "encode"])
def test_tiles_are_those_of_the_plain_model(make_engine: MakeEngine, tiny_vae: VideoVAE, part: str) -> None:
    engine, tile = make_engine(), TileSpec(24, 8)
    x = latent(3, 4, 7, batch=2) if part == "decode" else video(9, 36, 60, batch=2)
    whole = getattr(engine, part)(x, tile=tile)
    assert relative(whole, getattr(tiny_vae, part)(x, tile=tile)) < SCHEDULE
    # In a stream the tiles take turns, so each is put aside and brought back at every step.
    streamed = getattr(engine, f"stream_{part}")(x.unbind(2), tile=tile)
    assert torch.equal(torch.stack(list(streamed), 2), whole)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("share", [0.9, 0.8, 0.6])
def test_rings_on_the_host_change_nothing(make_engine: MakeEngine, share: float) -> None:
    for part, x in (("decode", latent(6, 5, 3)), ("encode", video(21, 40, 56))):
        plain = make_engine()
        expected = getattr(plain, part)(x)
        frames = 21
        scale = 8 if part == "decode" else 1
        shape = VAEShape(part, x.shape[-2] * scale, x.shape[-1] * scale, frames)
        full = plain.plan(shape).memory
        budget = full.weights + full.result + int((full.peak - full.weights - full.result) * share)
        engine = make_engine(budget_bytes=budget, plan=PlanOptions(allows_tiles=False))
        poison(engine)
        assert engine.plan(shape).uses_host
        assert engine.plan(shape).memory.peak <= budget
        assert torch.equal(getattr(engine, part)(x), expected)


def test_eight_bit_rings_on_the_host_change_nothing(make_engine: MakeEngine) -> None:
    """Exponents move on with their frames."""
    shape, z = VAEShape("decode", 24, 32, 17), latent(5, 3, 4)
    # Frames of very different ranges, so that their exponents differ.
    z = z * torch.tensor([1.0, 40.0, 0.02, 9.0, 1.0])[:, None, None]
    plain = make_engine("int8")
    full = plain.plan(shape).memory
    engine = make_engine("int8", budget_bytes=full.peak - full.rings // 2, plan=PlanOptions(allows_tiles=False))
    assert engine.plan(shape).uses_host
    assert torch.equal(engine.decode(z), plain.decode(z))


@pytest.mark.usefixtures("exact")
def test_streams_may_be_interleaved(make_engine: MakeEngine) -> None:
    engine = make_engine()
    clips = [latent(5, 3, 4), latent(7, 3, 4), latent(4, 5, 2)]
    expected = [engine.decode(z) for z in clips]
    streams = [engine.stream_decode(z.unbind(2)) for z in clips]
    frames: list[list[Tensor]] = [[], [], []]
    for _ in range(25):
        for stream, out in zip(streams, frames, strict=True):
            out += [frame for frame in [next(stream, None)] if frame is not None]
    for out, whole in zip(frames, expected, strict=True):
        assert torch.equal(torch.stack(out, 2), whole)


@pytest.mark.usefixtures("exact")
def test_a_stream_of_both_directions_is_the_two_wholes(make_engine: MakeEngine) -> None:
    engine, v = make_engine(), video(9, 24, 24)
    streamed = torch.stack(list(engine.stream_decode(engine.stream_encode(v.unbind(2)))), 2)
    assert torch.equal(streamed, engine.decode(engine.encode(v)))


def test_memory_can_be_released_in_the_middle_of_a_stream(make_engine: MakeEngine) -> None:
    engine, z = make_engine("fp8"), latent(5, 3, 4)
    expected = engine.decode(z)
    frames = []
    for frame in engine.stream_decode(z.unbind(2)):
        frames.append(frame)
        engine.release()
        assert engine.session.memory_bytes == 0
    assert torch.equal(torch.stack(frames, 2), expected)


def test_many_sizes_leave_a_bounded_number_of_bound_plans(make_engine: MakeEngine) -> None:
    engine = make_engine("fp8")
    for size in range(1, 12):
        engine.decode(latent(1, 2, size))
    assert len(engine.session._bound) <= 8
    held = engine.session.memory_bytes
    for size in range(1, 12):
        engine.decode(latent(1, 2, size))
    assert engine.session.memory_bytes == held


def test_the_same_input_gives_the_same_bits(make_engine: MakeEngine) -> None:
    for precision in ("fp8", "int8"):
        engine, z = make_engine(precision), latent(3, 3, 5)
        assert torch.equal(engine.decode(z), engine.decode(z))


@pytest.mark.parametrize(
    ("precision", "limit"), [("fp16", 5e-3), ("bf16", 4e-2), ("fp8", 0.3), ("mxfp8", 0.3), ("int8", 0.2)]
)
def test_each_format_is_as_near_as_its_rounding(make_engine, tiny_vae, precision: str, limit: float) -> None:
    """The random small model exaggerates rounding: the plain model in FP16 is 2.5e-3 off."""
    engine = make_engine(precision)
    z, v = latent(3, 4, 5), video(9, 33, 40)
    decoded, encoded = relative(engine.decode(z), tiny_vae.decode(z)), relative(engine.encode(v), tiny_vae.encode(v))
    assert 1e-4 < decoded < limit
    assert 1e-4 < encoded < limit


def test_wrong_input_is_refused(make_engine: MakeEngine) -> None:
    engine = make_engine()
    with pytest.raises(InvalidArgumentError, match="4n\\+1 frames"):
        engine.encode(video(4, 16, 16))
    with pytest.raises(InvalidArgumentError, match="expected shape"):
        engine.decode(torch.zeros(1, 15, 1, 2, 2))
    with pytest.raises(InvalidArgumentError, match="floating-point"):
        engine.decode(torch.zeros(1, 16, 1, 2, 2, dtype=torch.int32))
    with pytest.raises(InvalidArgumentError, match="slice_frames"):
        engine.decode(latent(1, 2, 2), slice_frames=6)
    with pytest.raises(InvalidArgumentError, match="at least 8x8"):
        engine.encode(video(1, 7, 9))
    for count in (2, 4, 6):
        with pytest.raises(InvalidArgumentError, match="4n\\+1"):
            list(engine.stream_encode(video(count, 16, 16).unbind(2)))
    assert list(engine.stream_encode([])) == []


def test_too_little_memory_is_told_before_anything_runs(make_engine: MakeEngine) -> None:
    engine = make_engine(budget_bytes=1000)
    with pytest.raises(EngineUnsupportedError, match="GB of GPU memory"):
        engine.decode(latent(2, 3, 3))


def test_out_of_memory_is_planned_again_once(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    z = latent(2, 12, 12)
    plain = make_engine("fp8")
    limit = plain.plan(VAEShape("decode", 96, 96, 5)).memory
    grow = Session._grow

    def grow_less(self: Session, plan: ExecutionPlan) -> None:
        if plan.memory.arena + plan.memory.rings > 0.9 * (limit.arena + limit.rings):
            raise torch.cuda.OutOfMemoryError("not there")
        grow(self, plan)

    monkeypatch.setattr(Session, "_grow", grow_less)
    engine = make_engine("fp8")
    with pytest.warns(UserWarning, match="planning again"):
        smaller = engine.decode(z)
    assert torch.equal(smaller, _undisturbed(monkeypatch, plain, z))
    monkeypatch.setattr(Session, "_grow", _nothing_there)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DeviceMemoryError, match="was planned with"):
            make_engine("fp8").decode(z)


def test_one_direction_gives_way_to_the_other(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only one direction's memory is there, both still run in turn, even with a stream open."""
    engine, z, v = make_engine("fp8"), latent(5, 3, 4), video(9, 24, 24)
    decoded, encoded = engine.decode(z), engine.encode(v)
    empty = torch.empty

    def empty_of_one(*size: int, **arguments: object) -> Tensor:
        if arguments.get("dtype") == torch.uint8 and size != (0,) and len(tight.session._rings) == 1:
            raise torch.cuda.OutOfMemoryError("not there")
        return empty(*size, **arguments)

    tight = make_engine("fp8")
    stream = tight.stream_decode(z.unbind(2))
    frames = [next(stream)]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", empty_of_one)
        mean = tight.encode(v)
    assert torch.equal(mean, encoded)
    assert torch.equal(torch.stack([*frames, *stream], 2), decoded)


def _undisturbed(monkeypatch: pytest.MonkeyPatch, engine: VAEEngine, z: Tensor) -> Tensor:
    monkeypatch.undo()
    return engine.decode(z)


def _nothing_there(_self: Session, _plan: ExecutionPlan) -> None:
    raise torch.cuda.OutOfMemoryError("not there")


def test_the_lengths_above_reach_settled_tables() -> None:
    assert max(frames for frames, _, _ in LATENTS) > SETTLED + 2
