"""Compare decoders of the small VAE: `python -m training.evaluate_vae OLD.gguf NEW.gguf --clips FOLDER`.

Every clip of the folder (uint8 `.npy`, (T, H, W, 3)) goes through the VAE alone, and, halved by averages or degraded as
`degrade.MILD` and `FULL` do, through transformer and VAE, as in the pipeline. Prints a Markdown table; `--sheet`
writes what to look at: truth, bicubic, then each file's result, the middle frame of every clip.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from seedvr2_engine import load_vae
from seedvr2_engine.checkpoint.text_embedding import load_text_embedding
from seedvr2_engine.color.methods import correct_color
from seedvr2_engine.loading_dit import load_dit
from seedvr2_engine.models.dit.sampler import dit_input, sample
from seedvr2_engine.quality.metrics import QualityMeter
from training.degrade import FULL, MILD, degrade, enlarge
from training.dit_data import FrozenVAE, pipeline_noise
from training.dit_losses import structure_distance
from training.evaluate_dit import NANO
from training.losses import LUMA
from training.train_vae import load_clips

Restore = Callable[[Tensor], Tensor]
"""Latents (1, T, H, W, 16) of an enlarged clip -> those of a sharp one."""
KINDS = ("truth", "half", "mild", "full")
"""What the models see: the clip itself (the VAE alone), or a smaller one, for the whole chain."""


@dataclass(frozen=True)
class Scores:
    """How close a clip is to the truth."""

    psnr_db: float
    worst_db: float
    """Of one frame."""
    ssim: float
    distance: float
    """`dit_losses.structure_distance`."""
    chroma: float
    """RMS of the error without its brightness, of 255."""
    flicker: float
    """Mean absolute error of the change from frame to frame, of 255; 0 for stills."""


def score(output: Tensor, truth: Tensor) -> Scores:
    """Compare two clips (1, 3, T, H, W) in [-1, 1], after rounding to 8 bits."""
    a, b = (torch.round((video.clamp(-1, 1) + 1) * 127.5) for video in (output, truth))
    meter = QualityMeter()
    for frame, reference in zip(a[0].transpose(0, 1) / 255, b[0].transpose(0, 1) / 255, strict=True):
        meter.add(frame, reference)
    quality = meter.summary()
    assert quality.mean_ssim is not None
    error = a - b
    chroma = error - (error * error.new_tensor(LUMA).view(1, 3, 1, 1, 1)).sum(1, keepdim=True)
    flicker = (error[:, :, 1:] - error[:, :, :-1]).abs().mean() if error.shape[2] > 1 else torch.zeros(())
    distance = structure_distance(output, truth)
    rms = float(chroma.square().mean().sqrt())
    return Scores(quality.psnr_db, quality.min_psnr_db, quality.mean_ssim, distance, rms, float(flicker))


def seen(kind: str, truth: Tensor, seed: int) -> Tensor:
    """A clip (1, 3, T, H, W) as the models see it, enlarged again to its own size."""
    height, width = truth.shape[-2:]
    if kind == "half":
        frames = F.interpolate(truth[0].transpose(0, 1), (height // 2, width // 2), mode="area")
        low = frames.transpose(0, 1)[None] / 2 + 0.5
    else:
        strength = MILD if kind == "mild" else FULL
        low = degrade(torch.Generator().manual_seed(seed), truth, (height // 2, width // 2), strength)
    return enlarge(low, (height, width))


def results(kind: str, truth: Tensor, seed: int, vaes: list[FrozenVAE], restore: Restore) -> list[Tensor]:
    """What the models make of a clip; for the whole chain, what bicubic enlargement makes comes first."""
    if kind == "truth":
        return [vae.decode(vae.encode(truth)[0]).clamp(-1, 1) for vae in vaes]
    enlarged = seen(kind, truth, seed)
    outputs = [enlarged]
    for vae in vaes:
        decoded = vae.decode(restore(vae.encode(enlarged)[0])).clamp(-1, 1)
        content, style = (video[0].transpose(0, 1) for video in (decoded, enlarged))
        outputs.append(correct_color(content, style, "lab").transpose(0, 1)[None])
    return outputs


def transformer(path: Path) -> Restore:
    """The transformer of a file, with the pipeline's noise."""
    dit, text = load_dit(path), load_text_embedding(path)

    def restore(latent: Tensor) -> Tensor:
        noise = pipeline_noise(42, tuple(latent.shape[:-1]), latent.device)
        return sample(lambda noisy, time: dit(dit_input(noisy, latent), text, time), noise)

    return restore


def load(path: Path) -> FrozenVAE:
    """The VAE of any file that the package reads, as training computes with it: stills take a third of the time."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "vae.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in load_vae(path).state_dict().items()}, plain)
        return FrozenVAE(plain, torch.device("cpu"))


def row(scores: list[Scores]) -> str:
    """Cells of the table: every way's figures, in the order of Scores."""
    digits = (2, 2, 4, 4, 2, 2)
    return " | ".join(
        " / ".join(f"{value:.{n}f}" for value, n in zip(astuple(one), digits, strict=True)) for one in scores
    )


def mean(scores: list[Scores]) -> Scores:
    """The mean of every figure."""
    return Scores(*(sum(values) / len(scores) for values in zip(*map(astuple, scores), strict=True)))


def picture(video: Tensor) -> Tensor:
    """The middle frame as uint8 (H, W, 3)."""
    frame = video[0, :, video.shape[2] // 2].clamp(-1, 1)
    return ((frame + 1) * 127.5).round().byte().permute(1, 2, 0)


def save_sheet(rows: list[Tensor], path: Path) -> None:
    """Write rows of pictures (H, W, 3), below each other."""
    width = max(row.shape[1] for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(torch.cat([F.pad(row, (0, 0, 0, width - row.shape[1])) for row in rows]).numpy()).save(path)


@torch.no_grad()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vae", type=Path, nargs="+", help="files to compare")
    parser.add_argument("--dit", type=Path, default=NANO / "nano_dit_q8_0.gguf")
    parser.add_argument("--clips", type=Path, required=True, help="folder of uint8 .npy clips (T, H, W, 3)")
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=KINDS)
    parser.add_argument("--sheet", type=Path, help="folder for a picture of every kind")
    arguments = parser.parse_args()
    vaes, restore = [load(path) for path in arguments.vae], transformer(arguments.dit)
    clips = load_clips(arguments.clips, torch.device("cpu"))
    groups: dict[str, Callable[[Tensor], bool]] = {
        "stills": lambda clip: clip.shape[2] == 1,
        "clips": lambda clip: clip.shape[2] > 1,
    }
    print("PSNR / worst frame / SSIM / structure distance / chroma error / flicker")
    for kind in arguments.kinds:
        ways = [*(["bicubic"] if kind != "truth" else []), *(path.stem for path in arguments.vae)]
        print(f"\n| {kind} | {' | '.join(ways)} |\n|{'---|' * (len(ways) + 1)}")
        found: dict[str, list[Scores]] = {}
        pictures = []
        for index, (name, truth) in enumerate(clips.items()):
            outputs = results(kind, truth, index, vaes, restore)
            found[name] = [score(output, truth) for output in outputs]
            pictures.append(torch.cat([picture(video) for video in (truth, *outputs)], dim=1))
            print(f"| {name} | {row(found[name])} |", flush=True)
            if arguments.sheet:
                save_sheet(pictures, arguments.sheet / f"{kind}.png")
        for group, holds in groups.items():
            members = [found[name] for name, clip in clips.items() if holds(clip)]
            if members:
                means = [mean(list(column)) for column in zip(*members, strict=True)]
                print(f"| mean of {len(members)} {group} | {row(means)} |")


if __name__ == "__main__":
    main()
