"""What the small transformer is trained on: latents of procedural clips, sharp and degraded.

Filming, degrading and encoding a clip takes about as long as training on it once, so pairs are made many at a time,
and each stays in a pool for a while and is drawn several times, with other noise and in other company.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from seedvr2_engine.models.dit.noise import latent_noise
from training.degrade import FULL, MILD, Strength, degrade, enlarge
from training.network import NANO, Network, Weights, norm_silu, prepared
from training.scenes import ClipShape, SceneBank

SCALES = ((0.7, 2.0), (0.1, 4 / 3), (0.1, 3.0), (0.1, 4.0))
"""Probability of a factor between the degraded clip's size and the sharp one's."""
FULL_SHARE = 0.6
"""Share of clips with the full degradation; the others have the mild one."""
TOGETHER = 32
"""Clips that share a factor, a strength, and the kernels and sizes of resampling."""


@dataclass(frozen=True)
class Shape:
    """The clips of one kind of batch, and how many."""

    clips: ClipShape
    """Their shape, and how many are made at a time."""
    batch: int
    """Clips that a step is trained on."""
    decoded: int
    """Those of them whose decoded pictures are compared."""
    pooled: int
    """Clips that are kept, a multiple of those made at a time."""


@dataclass(frozen=True)
class Pairs:
    """Clips of one shape, as the transformer and its losses see them."""

    condition: Tensor
    """Latents of the degraded, enlarged clips, as the pipeline samples them; (N, T, H, W, 16), FP32."""
    target: Tensor
    """Latents of the sharp clips (their mean); the same shape."""
    sharp: Tensor
    """The sharp clips (N, 3, F, 8H, 8W), uint8."""

    def take(self, index: Tensor | slice) -> "Pairs":
        """Some of the clips."""
        return Pairs(self.condition[index], self.target[index], self.sharp[index])

    def video(self) -> Tensor:
        """The sharp clips in [-1, 1], FP32."""
        return self.sharp.float() / 127.5 - 1


class FrozenVAE:
    """The small VAE that the transformer is trained for; latents are scaled as the pipeline's are."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Read the FP16 master (safetensors); on a GPU matrices are computed with in BF16."""
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        weights = {name: weight.to(device, torch.float32) for name, weight in load_file(path).items()}
        self.stills = prepared(weights, dtype, still=True)
        self.clips = prepared(weights, dtype, still=False)
        self.network = Network(_norm(device), soft=False)

    @torch.no_grad()
    def encode(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Video (N, 3, F, H, W) in [-1, 1] -> mean and deviation of its latents (N, T, H/8, W/8, 16)."""
        mean, log_variance = self.network.encode(self._weights(video.shape[2]), video)
        return mean * NANO.scaling_factor, torch.exp(log_variance / 2) * NANO.scaling_factor

    def decode(self, latent: Tensor) -> Tensor:
        """The reverse of `encode`; gradients reach the latent."""
        return self.network.decode(self._weights(latent.shape[1]), latent / NANO.scaling_factor)

    def _weights(self, frames: int) -> Weights:
        return self.stills if frames == 1 else self.clips


def _norm(device: torch.device) -> Callable[[Tensor, Tensor, Tensor, float], Tensor]:
    if device.type != "cuda":
        return norm_silu
    from training.norm_triton import norm_silu_triton  # CPU builds of PyTorch come without Triton.

    return norm_silu_triton


def make_pairs(rng: torch.Generator, vae: FrozenVAE, sharp: Tensor, scale: float, strength: Strength) -> Pairs:
    """Degrade sharp clips in [-1, 1] by one factor, and encode both kinds.

    The pipeline samples the condition from the posterior; so is it here, with all or part of its deviation, so that
    the posterior's mean is no stranger to the model either.
    """
    height, width = sharp.shape[-2:]
    low = degrade(rng, sharp, (round(height / scale), round(width / scale)), strength)
    stored = ((sharp + 1) * 127.5).round().to(torch.uint8)
    mean, deviation = vae.encode(torch.cat([enlarge(low, (height, width)), sharp]))
    count = len(sharp)
    noise = torch.randn(mean[:count].shape, generator=rng, device=rng.device)
    share = torch.rand((count, 1, 1, 1, 1), generator=rng, device=rng.device)
    condition = mean[:count] + share * deviation[:count] * noise
    # A clip that cannot be encoded must not stop a run; the latent zero is a grey one.
    return Pairs(condition.nan_to_num(0, 0, 0), mean[count:].nan_to_num(0, 0, 0), stored)


@dataclass(frozen=True)
class Source:
    """Where new pairs come from."""

    rng: torch.Generator
    """Of everything that is drawn on the device."""
    choices: random.Random
    """Of factors and strengths."""
    vae: FrozenVAE
    bank: SceneBank

    @torch.no_grad()
    def make(self, clips: ClipShape) -> Pairs:
        """As many new pairs as `clips` says, of scenes that are filmed now."""
        made = []
        for sharp in self.bank.film(clips).split(TOGETHER):
            scale = self.choices.choices([s for _, s in SCALES], [p for p, _ in SCALES])[0]
            strength = FULL if self.choices.random() < FULL_SHARE else MILD
            made.append(make_pairs(self.rng, self.vae, sharp, scale, strength))
        return Pairs(*(torch.cat(tensors) for tensors in zip(*map(parts, made), strict=True)))


class Pool:
    """Pairs of one shape; the newest replace the oldest."""

    def __init__(self, capacity: int) -> None:
        """capacity: clips that it holds."""
        self.capacity = capacity
        self.added = 0
        self.drawn = 0
        self.pairs: Pairs | None = None

    @property
    def filled(self) -> int:
        """Clips in the pool."""
        return min(self.added, self.capacity)

    @property
    def wear(self) -> float:
        """How often a clip has been trained on, on average."""
        return self.drawn / max(1, self.added)

    def add(self, fresh: Pairs) -> None:
        """Put clips in, in the place of the oldest; as many every time, and a whole number of times in the pool."""
        count = len(fresh.sharp)
        if self.pairs is None:
            assert self.capacity % count == 0
            self.pairs = Pairs(
                *(torch.empty((self.capacity, *t.shape[1:]), dtype=t.dtype, device=t.device) for t in parts(fresh))
            )
        place = self.added % self.capacity
        for stored, new in zip(parts(self.pairs), parts(fresh), strict=True):
            stored[place : place + count].copy_(new)
        self.added += count


def parts(pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """The tensors of pairs."""
    return pairs.condition, pairs.target, pairs.sharp


def pipeline_noise(seed: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """The noise (N, T, H, W, 16) that the pipeline starts from for `shape` (N, T, H, W), the same for every clip."""
    count, frames, height, width = shape
    return latent_noise(seed, range(frames), (height, width), device=device).expand(count, -1, -1, -1, -1)


@torch.no_grad()
def held_out_pairs(vae: FrozenVAE, sharp: Tensor, seed: int, strength: Strength) -> tuple[Pairs, Tensor]:
    """Pairs at the factor 2 to measure on, degraded the same way every time, and the enlarged clips in [-1, 1].

    A GPU draws other faults than a CPU.
    """
    height, width = sharp.shape[-2:]
    low = degrade(torch.Generator(sharp.device).manual_seed(seed), sharp, (height // 2, width // 2), strength)
    enlarged = enlarge(low, (height, width))
    mean, _ = vae.encode(torch.cat([enlarged, sharp]))
    stored = ((sharp + 1) * 127.5).round().to(torch.uint8)
    return Pairs(mean[: len(sharp)], mean[len(sharp) :], stored), enlarged
