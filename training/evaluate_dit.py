"""Measure the small models against bicubic enlargement: `python -m training.evaluate_dit --clips FOLDER`.

Every clip is degraded to half its size with a seed of its own, which is its place in the list, then enlarged twofold by
both ways. The clips are those of the folder, as `held_out` reads them, without those that weights were chosen by.
Prints a table in Markdown: PSNR, SSIM, and the structure distance of `dit_losses`.
"""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from torch import Tensor

from seedvr2_engine import load_vae
from seedvr2_engine.checkpoint.text_embedding import load_text_embedding
from seedvr2_engine.color.methods import COLOR_METHODS, ColorMethod, correct_color
from seedvr2_engine.loading_dit import load_dit
from seedvr2_engine.models.dit.model import NaDiT
from seedvr2_engine.models.dit.sampler import dit_input, sample
from seedvr2_engine.models.vae.model import VideoVAE
from seedvr2_engine.quality.metrics import QualityMeter
from training.degrade import Strength, degrade, enlarge
from training.dit_data import pipeline_noise
from training.dit_losses import structure_distance
from training.dit_measure import STRENGTHS
from training.held_out import held_out_clips

NANO = Path("seedvr2_engine/nano")


@dataclass(frozen=True)
class Scores:
    """How close a clip is to the sharp one."""

    psnr_db: float
    ssim: float
    distance: float


@dataclass(frozen=True)
class Models:
    """What an upscaling takes."""

    dit: NaDiT
    vae: VideoVAE
    text: Tensor


def upscale(models: Models, enlarged: Tensor, color: ColorMethod, seed: int = 42) -> Tensor:
    """A sharper (1, 3, T, H, W) in [-1, 1] for an enlarged one, in one piece, as the pipeline does it."""
    scale = models.vae.config.scaling_factor
    latent = models.vae.encode(enlarged).permute(0, 2, 3, 4, 1) * scale
    noise = pipeline_noise(seed, tuple(latent.shape[:-1]), latent.device)
    with torch.no_grad():
        clean = sample(lambda noisy, time: models.dit(dit_input(noisy, latent), models.text, time), noise)
    decoded = models.vae.decode(clean.permute(0, 4, 1, 2, 3) / scale).clamp(-1, 1)
    content, style = (video[0].transpose(0, 1) for video in (decoded, enlarged))
    return correct_color(content, style, color).transpose(0, 1)[None]


def score(output: Tensor, sharp: Tensor) -> Scores:
    """Compare two clips (1, 3, T, H, W) in [-1, 1], after rounding to 8 bits."""
    meter = QualityMeter()
    pictures = (torch.round((video[0].transpose(0, 1).clamp(-1, 1) + 1) * 127.5) / 255 for video in (output, sharp))
    for frame, reference in zip(*pictures, strict=True):
        meter.add(frame, reference)
    quality = meter.summary()
    assert quality.mean_ssim is not None
    return Scores(quality.psnr_db, quality.mean_ssim, structure_distance(output, sharp))


def evaluate(
    models: Models, clips: Iterable[tuple[str, Tensor]], strength: Strength, color: ColorMethod
) -> Iterator[tuple[str, Scores, Scores]]:
    """The scores of bicubic enlargement and of the models, clip by clip, for sharp clips and their names."""
    for index, (name, sharp) in enumerate(clips):
        height, width = sharp.shape[-2:]
        low = degrade(torch.Generator().manual_seed(index), sharp, (height // 2, width // 2), strength)
        enlarged = enlarge(low, (height, width))
        yield name, score(enlarged, sharp), score(upscale(models, enlarged, color), sharp)


def table_row(name: str, bicubic: Scores, ours: Scores) -> str:
    """A row of the Markdown table."""
    return (
        f"| {name} | {bicubic.psnr_db:.2f} | {ours.psnr_db:.2f} | {bicubic.ssim:.4f} | {ours.ssim:.4f} "
        f"| {bicubic.distance:.4f} | {ours.distance:.4f} |"
    )


def mean(scores: list[Scores]) -> Scores:
    """The mean of every figure."""
    return Scores(*(sum(values) / len(scores) for values in zip(*map(astuple, scores), strict=True)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dit", type=Path, default=NANO / "nano_dit_q8_0.gguf")
    parser.add_argument("--vae", type=Path, default=NANO / "nano_vae_q8_0.gguf")
    parser.add_argument("--clips", type=Path, required=True, help="folder of clips as training.held_out reads them")
    parser.add_argument("--strength", choices=list(STRENGTHS), default="full", help="of the degradation")
    parser.add_argument("--color", choices=COLOR_METHODS, default="lab", help="colour correction of the models' result")
    arguments = parser.parse_args()
    models = Models(load_dit(arguments.dit), load_vae(arguments.vae), load_text_embedding(arguments.dit))
    print("| clip | PSNR bicubic | PSNR nano | SSIM bicubic | SSIM nano | distance bicubic | distance nano |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    clips = held_out_clips(arguments.clips, choice=False).items()
    for name, bicubic, ours in evaluate(models, clips, STRENGTHS[arguments.strength], arguments.color):
        print(table_row(name, bicubic, ours), flush=True)
        rows.append((bicubic, ours))
    print(table_row(f"mean of {len(rows)}", *(mean(list(column)) for column in zip(*rows, strict=True))))


if __name__ == "__main__":
    main()
