"""The transformer's passes over tokens against their references."""

import pytest
import torch

from seedvr2_engine.kernels.tokens import gates, joint, reference
from seedvr2_engine.kernels.tokens.operands import JoinStep, Placement, StreamVectors, TokenStep

from .tolerances import assert_close

VIDEO, TEXT = 11, 5


def vectors(width: int, seed: int) -> StreamVectors:
    generator = torch.Generator().manual_seed(seed)
    return StreamVectors(*(torch.randn(width, generator=generator) for _ in range(2)))


def poisoned(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.full(shape, float("nan"), dtype=dtype)


@pytest.mark.parametrize("width", [40, 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("adds", "normalises", "with_text"),
    [(True, True, True), (False, True, True), (True, True, False), (True, False, False)],
)
def test_step_equals_the_reference(width, dtype, adds, normalises, with_text) -> None:
    torch.manual_seed(0)
    x, change = (torch.randn(VIDEO + TEXT, width).to(dtype) for _ in range(2))
    step = TokenStep(
        VIDEO,
        change=change if adds else None,
        gate=vectors(width, 1) if adds else None,
        scale=vectors(width, 2) if normalises else None,
        shift=vectors(width, 3) if normalises else None,
    )
    rows = VIDEO + TEXT * with_text
    results = []
    for module in (gates, reference):
        kept, out = (poisoned(rows, width, dtype=dtype) for _ in range(2))
        module.step_tokens(x, step, kept=kept, out=out)
        results.append((kept, out))
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected, dtype)
        assert actual.isfinite().all()


def test_the_sum_may_take_the_place_of_the_tokens() -> None:
    x, change = torch.randn(VIDEO + TEXT, 40), torch.randn(VIDEO + TEXT, 40)
    step = TokenStep(VIDEO, change=change, gate=vectors(40, 1))
    expected = torch.empty_like(x)
    reference.step_tokens(x, step, kept=expected, out=None)
    gates.step_tokens(x, step, kept=x, out=None)
    assert_close(x, expected, torch.float32)


@pytest.mark.parametrize(("rows", "width"), [(7, 40), (9, 1100)])
def test_gate_equals_the_reference(rows: int, width: int) -> None:
    gate_up = (3 * torch.randn(rows, 2 * width)).bfloat16()
    outs = [poisoned(rows, width) for _ in range(2)]
    gates.gate_silu(gate_up, outs[0])
    reference.gate_silu(gate_up, outs[1])
    assert_close(*outs, torch.bfloat16)


def join_step(heads: int, width: int, rows: torch.Tensor | None) -> JoinStep:
    angles = torch.rand(VIDEO + TEXT, width // 2) * 6
    return JoinStep(VIDEO, heads, rows, vectors(width, 1), vectors(width, 2), angles.cos(), angles.sin())


@pytest.mark.parametrize(("heads", "width"), [(4, 32), (6, 128), (5, 64)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_join_equals_the_reference(heads: int, width: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(VIDEO + TEXT, 3 * heads * width).to(dtype)
    rows = torch.randint(VIDEO + TEXT, (29,))
    step = join_step(heads, width, rows)
    results = []
    for module in (joint, reference):
        outs = tuple(poisoned(29, heads, width, dtype=dtype) for _ in range(3))
        module.join_parts(qkv, step, outs)
        results.append(outs)
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected, dtype)
    assert torch.equal(results[0][2], qkv[rows].unflatten(1, (3, heads, width))[:, 2])


@pytest.mark.parametrize("part", [(True, False, False), (False, True, True)])
def test_parts_by_themselves(part: tuple[bool, bool, bool]) -> None:
    qkv = torch.randn(VIDEO + TEXT, 3 * 2 * 32)
    step = join_step(2, 32, None)
    results = []
    for module in (joint, reference):
        outs = tuple(poisoned(VIDEO, 2, 32, dtype=torch.float32) if wanted else None for wanted in part)
        module.join_parts(qkv, step, outs)
        results.append([out for out in outs if out is not None])
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected, torch.float32)


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize(("windows", "width"), [(1, 40), (7, 600)])
def test_collecting_equals_the_reference(clips: int, windows: int, width: int) -> None:
    text_tokens = 3
    count = VIDEO + clips * windows * text_tokens
    places = torch.randperm(count)
    placement = Placement(places[:VIDEO], places[VIDEO:].view(clips, windows, text_tokens))
    rows = torch.randn(count, width).bfloat16()
    outs = [poisoned(VIDEO + clips * text_tokens, width) for _ in range(2)]
    joint.collect_rows(rows, placement, outs[0])
    reference.collect_rows(rows, placement, outs[1])
    assert_close(*outs, torch.bfloat16)
    assert torch.equal(outs[0][:VIDEO], rows[places[:VIDEO]])
