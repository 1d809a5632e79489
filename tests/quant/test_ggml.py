"""Unpacking as tensor arithmetic gives what the gguf package gives, to the last bit."""

import gguf
import numpy as np
import pytest
import torch

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.quant import ggml


def random_blocks(kind: str, count: int) -> np.ndarray:
    """Any bytes are blocks, but for the float16 scales, which are to be finite."""
    blocks = np.random.default_rng(3).integers(0, 256, (count, ggml.FORMATS[kind].nbytes), dtype=np.uint8)
    places = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q2_K": (80, 82)}
    for begin in places.get(kind, {"Q3_K": (108,), "Q6_K": (208,)}.get(kind, (0,))):
        scales = np.random.default_rng(begin).normal(0, 0.1, count).astype(np.float16)
        blocks[:, begin : begin + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks


def largest_error(kind: str, count: int = 100) -> float:
    blocks = random_blocks(kind, count)
    expected = gguf.quants.dequantize(blocks.reshape(1, -1), gguf.GGMLQuantizationType[kind]).reshape(-1)
    actual = ggml.unpack(torch.from_numpy(blocks).flatten(), kind, torch.float32).numpy()
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max())


@pytest.mark.parametrize("kind", ggml.FORMATS)
def test_every_format_is_exact(kind):
    layout = ggml.FORMATS[kind]
    assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]] == (layout.values, layout.nbytes)
    assert largest_error(kind) == 0


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K"])
def test_values_are_rounded_once(kind):
    blocks = torch.from_numpy(random_blocks(kind, 50)).flatten()
    exact = ggml.unpack(blocks, kind, torch.float32)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(ggml.unpack(blocks, kind, dtype), exact.to(dtype))


def test_pieces_join_without_a_seam(monkeypatch):
    whole = ggml.unpack(torch.from_numpy(random_blocks("Q5_K", 40)).flatten(), "Q5_K", torch.float32)
    monkeypatch.setattr(ggml, "_STEP_VALUES", 256 * 7)
    assert torch.equal(ggml.unpack(torch.from_numpy(random_blocks("Q5_K", 40)).flatten(), "Q5_K", torch.float32), whole)


def test_a_wrong_scale_is_noticed(monkeypatch):
    monkeypatch.setattr(ggml, "_scales_and_mins", lambda packed: (packed[:, :8].float(), packed[:, 4:].float()))
    assert largest_error("Q4_K") > 0.1


def test_unknown_formats_and_broken_blocks_are_refused():
    with pytest.raises(InvalidArgumentError, match="got 'IQ1_S'"):
        ggml.unpack(torch.zeros(34, dtype=torch.uint8), "IQ1_S", torch.float32)
    with pytest.raises(InvalidArgumentError, match="blocks of 34, got 35"):
        ggml.unpack(torch.zeros(35, dtype=torch.uint8), "Q8_0", torch.float32)
