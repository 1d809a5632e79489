"""From noise to latents: the schedule, the Euler steps, and the transformer's input.

Source: ByteDance-Seed/SeedVR, `common/diffusion` (schedule "lerp", prediction "v_lerp", timesteps "uniform_trailing").
A timestep runs from 1000 (noise) to 0 (clean). Latents are (..., T, H, W, 16), after the VAE's scaling factor.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ...errors import InvalidArgumentError

LAST_TIMESTEP = 1000.0
"""The timestep of pure noise, where the one-step models start."""

Velocity = Callable[[Tensor, float], Tensor]
"""(noisy latent, timestep) -> noise - clean, of the same shape."""


def timesteps(steps: int) -> list[float]:
    """The timesteps at which the model is called, from 1000 down in equal steps that end one step above 0."""
    if steps < 1:
        raise InvalidArgumentError(f"steps: expected at least 1, got {steps}.")
    return [LAST_TIMESTEP * (steps - i) / steps for i in range(steps)]


def interpolate(clean: Tensor, noise: Tensor, timestep: float) -> Tensor:
    """The noisy latent at a timestep: a straight line from `clean` at 0 to `noise` at 1000."""
    share = timestep / LAST_TIMESTEP
    return (1 - share) * clean + share * noise


def predict_ends(noisy: Tensor, velocity: Tensor, timestep: float) -> tuple[Tensor, Tensor]:
    """The clean latent and the noise that a velocity at a timestep points to."""
    share = timestep / LAST_TIMESTEP
    return noisy - share * velocity, noisy + (1 - share) * velocity


def sample(velocity: Velocity, noise: Tensor, steps: int = 1) -> Tensor:
    """Go from noise to the clean latent by Euler steps, in the dtype of `noise`.

    With one step, as the released models are meant, the model is called once and the result is noise - velocity.
    """
    times = timesteps(steps)
    x = noise
    for time, following in zip(times, [*times[1:], 0.0], strict=True):
        clean, end = predict_ends(x, velocity(x, time), time)
        x = interpolate(clean, end, following) if following else clean
    return x


def dit_input(noisy: Tensor, condition: Tensor) -> Tensor:
    """Join noisy and low-quality latents (..., T, H, W, 16) with a mask of ones to (..., T, H, W, 33).

    The mask says that every frame has a low-quality latent, as it always has in upscaling.
    """
    if noisy.shape != condition.shape:
        raise InvalidArgumentError(
            f"condition: expected the shape of the noisy latent {tuple(noisy.shape)}, got {tuple(condition.shape)}."
        )
    return torch.cat([noisy, condition, torch.ones_like(noisy[..., :1])], dim=-1)


def shift_timestep(timestep: float, latent_shape: tuple[int, int, int]) -> float:
    """Move a timestep towards noise, the further the larger the clip (T, H, W in latents) is.

    The factor grows linearly with the pixels: for a picture it is 1 at 256x256 and 3.2 at 1024x1024, for a clip 1 at
    37 frames of 256x256 and 5 at 145 frames of 1280x720; nothing is clamped.
    """
    latent_frames, height, width = latent_shape
    frames, area = 4 * (latent_frames - 1) + 1, 64 * height * width
    if frames == 1:
        factor = _line(area, (256**2, 1.0), (1024**2, 3.2))
    else:
        factor = _line(area * frames, (37 * 256**2, 1.0), (145 * 1280 * 720, 5.0))
    share = timestep / LAST_TIMESTEP
    return LAST_TIMESTEP * factor * share / (1 + (factor - 1) * share)


def noise_condition(latent: Tensor, noises: tuple[Tensor, Tensor], scale: float) -> Tensor:
    """Add noise to the low-quality latent (..., T, H, W, 16) before it goes into the transformer.

    noises: two independent normal tensors of that shape, mixed 0.1 to 0.05. scale: 0 (none) to 1 (nothing but noise).
    """
    if not 0 <= scale <= 1:
        raise InvalidArgumentError(f"latent noise: expected a scale from 0 to 1, got {scale}.")
    if scale == 0:
        return latent
    height, width, channels = latent.shape[-3:]
    # The reference hands (H, W, channels) over as (T, H, W); users know the strength of a scale from there.
    time = shift_timestep(LAST_TIMESTEP * scale, (height, width, channels))
    return interpolate(latent, 0.1 * noises[0] + 0.05 * noises[1], time)


def _line(x: float, start: tuple[float, float], end: tuple[float, float]) -> float:
    (x0, y0), (x1, y1) = start, end
    return y0 + (x - x0) * (y1 - y0) / (x1 - x0)
