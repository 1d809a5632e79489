"""Whole upscalings by the tiny models give what they gave: sizes, chunks, noise, both networks, colours and alpha."""

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from seedvr2_engine.color.methods import SLICE_METHODS

from .synthetic_golden import CASES, FILE, upscaled

TOLERANCE = 1e-5
"""Of means over blocks. Measured over kinds of CPU, oneDNN on and off: 1.3e-6 at most."""
MATCHED_TOLERANCE = 2e-3
"""The same where a last bit decides a pixel's rank or side: of colours that are matched over a slice, 4e-4, and of
cut-outs, 5e-5."""


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(FILE)


@pytest.mark.parametrize("name", CASES)
def test_it_gives_what_it_gave(golden: dict[str, Tensor], name: str) -> None:
    found = upscaled(name)
    assert found.shape == golden[name].shape
    colors = MATCHED_TOLERANCE if CASES[name]["color"] in SLICE_METHODS else TOLERANCE
    torch.testing.assert_close(found[:, :3], golden[name][:, :3], atol=colors, rtol=0)
    alpha = MATCHED_TOLERANCE if CASES[name].get("alpha") == "mask" else TOLERANCE
    torch.testing.assert_close(found[:, 3:], golden[name][:, 3:], atol=alpha, rtol=0)


def test_every_way_through_is_among_the_cases(golden: dict[str, Tensor]) -> None:
    assert set(golden) == set(CASES)
    assert {(case["color"], case["vae_span"]) for case in CASES.values()} == {
        (color, span)
        for color in ("lab", "wavelet", "wavelet_adaptive", "hsv", "adain", "none")
        for span in ("clip", "chunk")
    }
