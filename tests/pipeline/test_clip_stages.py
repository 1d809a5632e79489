"""What the stages of a clip remember from one slice to the next."""

import pytest
import torch

from seedvr2_engine.pipeline import clip_stages
from seedvr2_engine.pipeline.clip_stages import ClipStages, Models
from seedvr2_engine.pipeline.options import UpscaleOptions

from .golden_pipeline import StubDiT, StubVAE


def stages() -> ClipStages:
    options = UpscaleOptions(scale=1)
    models = Models(StubDiT(0.1), StubVAE(), 1000.0, 1)
    return ClipStages(models, options, options.resize((16, 16)), None)


@pytest.mark.parametrize(
    ("frames", "weights"), [(10, [n / 9 for n in range(1, 9)] + [1, 1]), (2, [1 / 3, 2 / 3]), (1, [0.5])]
)
def test_colour_curves_of_a_slice_become_the_next_ones_in_even_steps(monkeypatch, frames, weights):
    used = []

    def measure(pairs, _):
        list(pairs)
        return torch.tensor(float(len(used) > 0))

    def correct(picture, _, __, curves):
        used.append(curves.item())
        return picture

    monkeypatch.setattr(clip_stages, "measure_curves", measure)
    monkeypatch.setattr(clip_stages, "correct_frame", correct)
    clip, made = [torch.rand(3, 16, 16)] * frames, stages()
    for fade, expected in ((False, [0] * frames), (True, weights), (False, [1] * frames)):
        list(made.finish(clip, clip, fade=fade))
        assert used[-frames:] == pytest.approx(expected)
