"""PQ through the models: exact formulas, an exact way back, and nothing brighter than the source."""

import math
from collections import deque

import pytest
import torch

from seedvr2_engine.color.hdr import (
    PQ_TRANSFER,
    HdrPassage,
    model_signal_from_pq,
    nits_from_pq,
    pq_from_model_signal,
    pq_from_nits,
)
from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.pipeline.options import UpscaleOptions
from seedvr2_engine.pipeline.upscaler import Upscaler

from ..pipeline.golden_pipeline import EMPTY_TEXT, StubDiT, StubVAE

CPU = torch.device("cpu")
CODES_10 = torch.arange(1024) / 1023
CODES_16 = torch.arange(65536) / 65535


def pq_of(nits: float) -> float:
    """SMPTE ST 2084, equation 5.1, in the decimals that the standard prints beside its fractions."""
    power = (nits / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


@pytest.mark.parametrize("nits", [0.0, 0.001, 0.1, 1.0, 18.0, 100.0, 203.0, 1000.0, 4000.0, 10000.0])
def test_pq_is_the_standards(nits):
    assert pq_from_nits(torch.tensor(nits, dtype=torch.float64)).item() == pytest.approx(pq_of(nits), abs=1e-12)
    assert nits_from_pq(torch.tensor(pq_of(nits), dtype=torch.float64)).item() == pytest.approx(nits, rel=1e-9)
    # A power of 79 makes 5e-6 of float32's 6e-8: a third of a step of 16 bits.
    assert pq_from_nits(torch.tensor(nits)).item() == pytest.approx(pq_of(nits), abs=6e-6)
    assert nits_from_pq(torch.tensor(pq_of(nits))).item() == pytest.approx(nits, rel=3e-5, abs=1e-6)


def test_known_codes():
    """Of ITU-R BT.2408, table 1, and BT.2100: 100 nits are 51 %, 203 nits 58 %, 1000 nits 75 %."""
    signal = pq_from_nits(torch.tensor([100.0, 203.0, 1000.0]))
    assert torch.equal((signal * 100).round(), torch.tensor([51.0, 58.0, 75.0]))


def test_float64_and_float32_agree():
    for function in (nits_from_pq, model_signal_from_pq, pq_from_model_signal):
        exact = function(CODES_10.double())
        assert exact.dtype == torch.float64
        assert torch.allclose(function(CODES_10).double(), exact, rtol=6e-5, atol=2e-6)


def test_the_way_back_is_exact():
    """To the code in 10 bits, and to float32's own error, a step of 16."""
    back = pq_from_model_signal(model_signal_from_pq(CODES_10))
    assert torch.equal((back * 1023).round(), torch.arange(1024).float())
    back = pq_from_model_signal(model_signal_from_pq(CODES_16))
    assert ((back - CODES_16) * 65535).abs().max() < 1.2
    back = model_signal_from_pq(pq_from_model_signal(CODES_16.double()))
    assert (back - CODES_16.double()).abs().max() < 1e-9


def test_the_scale_rises_evenly():
    signal = model_signal_from_pq(CODES_16.double())
    steps = signal.diff() * 65535
    assert signal[0] == pytest.approx(0, abs=1e-12)
    assert signal[-1] == pytest.approx(1, abs=1e-12)
    # No error of the models is made much larger by the way back, least of all in highlights.
    assert steps.min() > 1 / 1.44
    white = int(pq_of(203.0) * 65535)
    assert steps[white:].min() > 1 / 1.07
    # From 0.001 nits on; below, light itself is vertical over the signal.
    assert steps[int(pq_of(0.001) * 65535) :].max() < 1.5


def test_the_scale_is_a_power_below_its_knee():
    nits = torch.tensor([0.5, 1.0, 4.0, 16.0, 32.0], dtype=torch.float64)
    signal = model_signal_from_pq(pq_from_nits(nits))
    assert torch.allclose(signal / signal[-1], (nits / 32) ** (1 / 3), rtol=1e-6)


@pytest.mark.parametrize("function", [nits_from_pq, pq_from_nits, model_signal_from_pq, pq_from_model_signal])
def test_values_that_are_none(function):
    odd = torch.tensor([math.nan, math.inf, -math.inf, -0.3, 1e30])
    out = function(odd)
    assert torch.isfinite(out).all()
    assert out.min() >= 0


def test_alpha_is_left_alone():
    frame = torch.rand(4, 3, 5, generator=torch.manual_seed(0))
    passage = HdrPassage(CPU)
    inside = next(passage.inward([frame]))
    assert torch.equal(inside[3], frame[3])
    assert not torch.allclose(inside[:3], frame[:3], atol=1e-2)
    outside = next(passage.outward([inside]))
    assert torch.equal(outside[3], frame[3])
    assert torch.allclose(outside, frame, atol=1e-5)


def test_nothing_is_brighter_than_its_source_frame():
    frames = [torch.full((3, 2, 2), pq_of(nits)) for nits in (100.0, 1000.0)]
    passage = HdrPassage(CPU)
    inside = [picture * 1.2 for picture in passage.inward(frames)]
    assert [picture.max().item() for picture in passage.outward(inside)] == pytest.approx([pq_of(100.0), pq_of(1000.0)])


class ExactVAE(StubVAE):
    """Decodes just the pictures that it was given to encode, whatever the latents have become."""

    def __init__(self, seen: list[torch.Tensor] | None = None) -> None:
        self.seen = [] if seen is None else seen
        self.waiting: deque[torch.Tensor] = deque()

    def stream_encode(self, frames, *, slice_frames, tile):
        self.waiting.clear()

        def kept():
            for frame in frames:
                self.seen.append(frame)
                self.waiting.append(frame)
                yield frame

        yield from super().stream_encode(kept(), slice_frames=slice_frames, tile=tile)

    def stream_decode(self, latents, *, slice_frames, tile):
        for index, _ in enumerate(latents):
            for _ in range(4 if index else 1):
                yield self.waiting.popleft()


def scene(bright: bool = True) -> torch.Tensor:
    """(3, 64, 96) of 10-bit PQ codes: a ramp, a dark one, saturated ramps, and highlights of 1,000 and 4,000 nits."""
    nits = torch.full((3, 64, 96), 20.0)
    ramp = torch.linspace(0, 1, 96)
    nits[:, :8] = nits_from_pq(ramp)
    nits[:, 8:16] = nits_from_pq(ramp / 4)
    for row, color in enumerate(((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1))):
        nits[:, 16 + 4 * row : 20 + 4 * row] = torch.tensor(color).float()[:, None, None] * nits_from_pq(ramp * 0.75)
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(96.0), indexing="ij")
    for left, peak in ((24, 1000.0), (72, 4000.0)) if bright else ():
        nits[:, 40:] += peak * torch.exp(-((x - left) ** 2 + (y - 12) ** 2) / 30)
    return (pq_from_nits(nits) * 1023).round() / 1023


@pytest.mark.parametrize("span", ["clip", "chunk"])
def test_a_transformer_that_does_nothing_changes_no_code(span):
    """Through the whole pipeline with stand-ins for both models, which give back what they got."""
    frames = [scene(), scene(bright=False), scene(), scene(), scene()]
    options = UpscaleOptions(scale=1, color="none", vae_span=span, chunk_frames=5, prepend_frames=2)
    upscaler = Upscaler(StubDiT(0.0), ExactVAE(), options, text=EMPTY_TEXT)
    for frame, out in zip(frames, upscaler.upscale(frames, transfer=PQ_TRANSFER), strict=True):
        assert ((out - frame) * 1023).abs().max() < 0.5


@pytest.mark.parametrize(("hdr", "transfer", "mapped"), [("auto", 16, True), ("off", 16, False), ("auto", 18, False)])
def test_who_takes_the_passage(hdr, transfer, mapped):
    seen = []
    vae = ExactVAE(seen)
    upscaler = Upscaler(
        StubDiT(0.0),
        vae,
        UpscaleOptions(scale=1, color="none", hdr=hdr, chunk_frames=1, vae_span="clip"),
        text=EMPTY_TEXT,
    )
    frame = scene()
    list(upscaler.upscale([frame], transfer=transfer))
    expected = model_signal_from_pq(frame) if mapped else frame
    assert torch.allclose(seen[0][0, :, :64, :96] * 0.5 + 0.5, expected, atol=1e-5)


def test_unknown_choice():
    with pytest.raises(InvalidArgumentError, match="hdr: expected one of auto, off"):
        UpscaleOptions(hdr="on")  # type: ignore[arg-type]
