"""Measures the small transformer while it is trained, and at the end clip by clip, against bicubic enlargement."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from seedvr2_engine.color.methods import correct_color
from training.degrade import FULL, MILD, Strength
from training.dit_data import FrozenVAE, Pairs, held_out_pairs, pipeline_noise
from training.dit_losses import structure_distance
from training.dit_network import Restorer
from training.losses import psnr

STRENGTHS: dict[str, Strength] = {"mild": MILD, "full": FULL}
SEED = 42
"""Of the noise, as in the pipeline."""
Kind = Literal["raw", "average"]
STORED_IN: dict[Kind, str] = {"raw": "weights", "average": "average"}
"""The kinds of weights, and what their files in a saved state are called."""


def better_kind(rows: list[dict[str, float]]) -> Kind:
    """The kind of weights whose structure distance, averaged over the clips, was smaller when last measured.

    rows: of a learning curve. Raises ValueError if nothing has been measured.
    """
    for row in reversed(rows):
        means = {
            kind: [v for name, v in row.items() if name.startswith("distance_") and name.endswith(kind)]
            for kind in STORED_IN
        }
        if all(means.values()):
            return min(STORED_IN, key=lambda kind: sum(means[kind]))
    raise ValueError("progress.json: expected a measurement of the weights, found none; name the kind to export.")


@dataclass(frozen=True)
class Figures:
    """How close a clip is to the sharp one."""

    psnr_db: float
    distance: float

    @staticmethod
    def of(video: Tensor, sharp: Tensor) -> "Figures":
        """Compare two clips (1, 3, T, H, W) of [-1, 1]."""
        return Figures(psnr(video, sharp), structure_distance(video, sharp))

    @staticmethod
    def mean(figures: list["Figures"]) -> "Figures":
        """The mean of both."""
        count = len(figures)
        return Figures(sum(f.psnr_db for f in figures) / count, sum(f.distance for f in figures) / count)


@dataclass(frozen=True)
class Case:
    """One degraded clip and what does not depend on the transformer."""

    pairs: Pairs
    enlarged: Tensor
    known: dict[str, Figures]
    """bicubic: enlarged, nothing more. blurred, ceiling: the VAE alone, on the enlarged and on the sharp clip."""


class Measure:
    """Degraded clips of both strengths, and the figures of results on them."""

    def __init__(self, vae: FrozenVAE, clips: dict[str, Tensor]) -> None:
        """clips: (1, 3, T, H, W) in [-1, 1] by name, on the VAE's device."""
        _measuring()
        self.vae = vae
        self.cases = {
            strength: {name: self._case(clip, seed, by) for seed, (name, clip) in enumerate(clips.items())}
            for strength, by in STRENGTHS.items()
        }

    @torch.no_grad()
    def _case(self, sharp: Tensor, seed: int, strength: Strength) -> Case:
        pairs, enlarged = held_out_pairs(self.vae, sharp, seed, strength)
        videos = {
            "bicubic": enlarged,
            "blurred": self.vae.decode(pairs.condition),
            "ceiling": self.vae.decode(pairs.target),
        }
        return Case(pairs, enlarged, {kind: Figures.of(video, sharp) for kind, video in videos.items()})

    @torch.no_grad()
    def restored(self, restorer: Restorer, case: Case) -> Tensor:
        """What the loaded weights make of a case."""
        pairs = case.pairs
        noise = pipeline_noise(SEED, tuple(pairs.target.shape[:-1]), pairs.target.device)
        return self.vae.decode(restorer.restore(pairs.condition, noise)).clamp(-1, 1)

    def row(self, restorer: Restorer, vectors: dict[str, Tensor]) -> dict[str, float]:
        """Means over the clips, for each strength and for each kind of weights, rounded to Q8_0."""
        _measuring()
        found = {
            strength: {
                kind: [case.known[kind] for case in cases.values()] for kind in ("bicubic", "blurred", "ceiling")
            }
            for strength, cases in self.cases.items()
        }
        for kind, vector in vectors.items():
            restorer.load(vector)
            for strength, cases in self.cases.items():
                found[strength][kind] = [
                    Figures.of(self.restored(restorer, case), case.pairs.video()) for case in cases.values()
                ]
        row: dict[str, float] = {}
        for strength, kinds in found.items():
            for kind, figures in kinds.items():
                mean = Figures.mean(figures)
                row |= {f"psnr_{strength}_{kind}": mean.psnr_db, f"distance_{strength}_{kind}": mean.distance}
        return row

    def table(self, restorer: Restorer, vector: Tensor) -> Iterator[str]:
        """Lines of a table for one vector of weights, as the VAE decodes and with the pipeline's colours."""
        restorer.load(vector)
        for strength, cases in self.cases.items():
            yield f"{strength}: PSNR/distance of bicubic | the transformer | with the colours `lab` | the VAE's ceiling"
            rows = []
            for name, case in cases.items():
                video, sharp = self.restored(restorer, case), case.pairs.video()
                frames = (x[0].transpose(0, 1) for x in (video, case.enlarged))
                coloured = correct_color(*frames, "lab").transpose(0, 1)[None]
                figures = [case.known["bicubic"], *(Figures.of(x, sharp) for x in (video, coloured))]
                rows.append([*figures, case.known["ceiling"]])
                yield _line(name, rows[-1])
            yield _line(f"mean of {len(rows)}", [Figures.mean(list(column)) for column in zip(*rows, strict=True)])


def _measuring() -> None:
    """Shapes that are seen a few times are not worth a search for the fastest kernels."""
    torch.backends.cudnn.benchmark = False


def _line(name: str, figures: list[Figures]) -> str:
    return f"{name:28} " + " | ".join(f"{f.psnr_db:5.2f} {f.distance:.4f}" for f in figures)
