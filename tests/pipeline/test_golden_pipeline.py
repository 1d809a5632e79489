"""The whole pipeline against the public reference's, with stub models in the place of the networks.

Where this pipeline does other than the reference on purpose (`docs/differences.md`), the test puts the reference's way
back: its cross-fade and its double resampling. No case has a last chunk so short that it is filled up otherwise here.
"""

import pytest
import torch
import torch.nn.functional as F

from seedvr2_engine.pipeline import clip_stages
from seedvr2_engine.pipeline import upscaler as module
from seedvr2_engine.pipeline.alpha import is_mask, upscale_alpha
from seedvr2_engine.pipeline.chunks import ChunkPlan, joined
from seedvr2_engine.pipeline.memory import Division
from seedvr2_engine.pipeline.options import UpscaleOptions
from seedvr2_engine.pipeline.resize import resample
from seedvr2_engine.pipeline.upscaler import Upscaler

from .golden_pipeline import EMPTY_TEXT, StubDiT, StubVAE
from .picture_cases import golden_pictures, golden_settings
from .test_chunks import reference_weights

NAMES = [f"p{i}" for i in range(1, 10)]


def settings_of(case):
    return {"seed": 42, **golden_settings("sampler_cases")[f"pipeline/{case}"]}


def arrays(case):
    prefix = f"pipeline/{case}/"
    return {k.removeprefix(prefix): v for k, v in golden_pictures("sampler_cases").items() if k.startswith(prefix)}


def options_of(settings, **changes):
    return UpscaleOptions(
        **{
            "resolution": settings["resolution"],
            "max_resolution": settings.get("max_resolution"),
            "chunk_frames": settings["batch_size"],
            "overlap": settings.get("overlap", 0),
            "prepend_frames": settings.get("prepend", 0),
            "color": settings["color"],
            "seed": settings["seed"],
            "input_noise": settings.get("in_noise", 0.0),
            "latent_noise": settings.get("lat_noise", 0.0),
            "noise": "reference",
            **changes,
        }
    )


@pytest.fixture
def as_reference(monkeypatch):
    """The reference's spans and cross-fade."""

    def division(self, _size):
        return Division(ChunkPlan(self.options.chunk_frames, self.options.overlap), "chunk")

    monkeypatch.setattr(Upscaler, "division", division)
    monkeypatch.setattr(clip_stages, "to_model_input", resampled_twice)
    monkeypatch.setattr(module, "joined", lambda results, overlap: joined(results, overlap, reference_weights))
    return monkeypatch


def resampled_twice(frames, plan):
    """The reference's way to a maximum resolution: p7's 16x12 becomes 32x24, then 28x21."""
    size = (24, 32) if plan.source == (12, 16) else plan.resized
    resized = resample(resample(frames, size), plan.resized).clamp(0, 1) * 2 - 1
    return F.pad(resized, (0, plan.padded[1] - plan.resized[1], 0, plan.padded[0] - plan.resized[0]), value=-1.0)


def run(case, as_reference, **changes):
    """Output frames (T, H, W, C) in [0, 1], and the transformer's inputs."""
    settings, data = settings_of(case), arrays(case)
    dit = StubDiT(settings["noise_coeff_a"])
    frames = [frame.float().movedim(-1, 0) for frame in data["images"]]
    upscaler = Upscaler(dit, StubVAE(), options_of(settings, **changes), text=EMPTY_TEXT)
    out = torch.stack([frame.movedim(0, -1) for frame in upscaler.upscale(frames)])
    return out, dit.inputs


# p3 and p5 match the colours of a batch without the frames that it shares, and p3 drops a chunk's first frame.
@pytest.mark.parametrize("case", ["p1", "p2", "p4", "p6", "p7", "p8", "p9"])
def test_output(case, as_reference):
    data = arrays(case)
    out, _ = run(case, as_reference)
    assert out.shape == data["out"].shape
    tolerance = 3e-3 if settings_of(case)["color"] == "lab" else 1e-5
    torch.testing.assert_close(out[..., :3], data["out"][..., :3], atol=tolerance, rtol=0)


def test_alpha_of_the_decoded_picture():
    # Not from the pipeline's own picture: the stub's flat blocks lie on 8-bit steps, where the last bit decides.
    data = arrays("p8")
    alpha, picture = data["images"][..., 3:].float().movedim(-1, 1), data["decoded_before_post"].movedim(-1, 1)
    out = upscale_alpha(alpha, picture, (60, 74), mask=is_mask(alpha))
    torch.testing.assert_close(out[:, 0], data["out"][..., 3], atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", NAMES)
def test_latents(case, as_reference):
    data = arrays(case)
    _, inputs = run(case, as_reference)
    if settings_of(case).get("lat_noise"):
        return
    expected = [data[f"latent{i}"] for i in range(len(inputs))]
    for video, latent in zip(inputs, expected, strict=True):
        torch.testing.assert_close(video[..., 16:32], latent, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", NAMES)
def test_decoded_pictures_before_their_colours_are_corrected(case, as_reference):
    data, prepended = arrays(case), settings_of(case).get("prepend", 0)
    out, _ = run(case, as_reference, color="none")
    expected = (data["decoded_before_post"] * 0.5 + 0.5).clamp(0, 1)[prepended:]
    torch.testing.assert_close(out[..., :3], expected, atol=1e-5, rtol=0)
