"""`seedvr2 upscale` on HDR clips: what is said before the work, and what `--hdr` does."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from seedvr2_engine.cli.upscaling.hdr import hdr_sentence
from seedvr2_engine.color import hdr
from seedvr2_engine.video import ColorRange, ColorTags, Matrix, color_tags, open_source

from ..conftest import GOLDEN
from ..video.writing.test_hdr import HLG, PQ, STATIC, hdr10
from .test_commands import TINY_VAE, refused, seedvr2

TAGS = ColorTags(ColorRange.FULL, Matrix.RGB, 9, 16)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[str]:
    path = tmp_path_factory.mktemp("models") / "dit.safetensors"
    text = torch.randn(7, 64, generator=torch.manual_seed(1))
    save_file({**load_file(GOLDEN / "dit_tiny_3b.safetensors"), "positive_conditioning": text}, path)
    return ["--dit", str(path), "--vae", TINY_VAE]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return hdr10(tmp_path_factory.mktemp("clips") / "a.mp4", count=3)


def test_the_sentence(clip, tmp_path):
    source = open_source(clip).info
    auto, off = hdr_sentence(source, "auto"), hdr_sentence(source, "off")
    assert auto.startswith(
        "PQ (mastered at 0.005 to 4000 nits, MaxCLL 3870, MaxFALL 512); passes through the models on an"
    )
    assert "taken for SDR by the models, as asked for" in off
    hlg = open_source(hdr10(tmp_path / "b.mp4", metadata=False, tags=HLG)).info
    assert hdr_sentence(hlg, "auto").startswith("HLG; passes through the models as it is")
    sdr = open_source(hdr10(tmp_path / "c.mp4", metadata=False, tags=type(PQ)())).info
    assert hdr_sentence(sdr, "auto") is None


def test_the_plan_says_it(clip, models, tmp_path):
    result = seedvr2("upscale", clip, tmp_path / "b.mp4", *models, "--scale", "2", "--plan")
    assert result.exit_code == 0, result.stderr
    assert "PQ (mastered at 0.005 to 4000" in result.stdout


def test_from_file_to_file(clip, models, tmp_path):
    frames = {}
    for choice in ("auto", "off"):
        target = tmp_path / f"{choice}.mkv"
        options = ["--scale", "1", "--hdr", choice, "--codec", "ffv1", "--chroma", "rgb", "--color", "none"]
        result = seedvr2("upscale", clip, target, *models, *options)
        assert result.exit_code == 0, result.stderr
        assert "HDR: PQ (mastered" in result.stderr.replace("\n", " ")
        with open_source(target) as source:
            assert (source.info.hdr, source.info.color, source.info.bit_depth) == (STATIC, TAGS, 10)
            frames[choice] = torch.stack([frame.rgb for frame in source])
    with open_source(clip) as source:
        brightest = max(frame.rgb.max() for frame in source)
    # The tiny models paint noise: as it is, it becomes light that the source does not have.
    assert frames["auto"].max() < brightest + 1 / 1023
    assert frames["off"].max() > brightest + 0.2


def test_unknown_choice(clip, tmp_path):
    assert refused("upscale", clip, tmp_path / "b.mp4", "--hdr", "on").startswith("hdr: expected one of auto, off")


def test_both_rooms_mean_the_same_transfer():
    """The pipeline knows no files, and so not their tags."""
    assert color_tags.PQ_TRANSFER == hdr.PQ_TRANSFER
