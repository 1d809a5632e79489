"""The stub models of the golden whole-pipeline cases."""

import torch
from torch import Tensor


class StubVAE:
    """Latents are averages of 8x8 pixels of every fourth frame, decoded by repeating them."""

    device = torch.device("cpu")
    dtype = torch.float32
    gains = 1 + 0.05 * torch.arange(16)

    def stream_encode(self, frames, *, slice_frames, tile):
        for index, frame in enumerate(frames):
            if index % 4 == 0:
                small = torch.nn.functional.avg_pool2d(frame, 8)
                yield torch.stack([small[:, k % 3] * self.gains[k] for k in range(16)], dim=1)

    def stream_decode(self, latents, *, slice_frames, tile):
        for index, latent in enumerate(latents):
            plain = latent / self.gains[:, None, None]
            rgb = torch.stack([plain[:, c::3].mean(1) for c in range(3)], dim=1)
            big = rgb.repeat_interleave(8, -1).repeat_interleave(8, -2)
            yield from [big] * (4 if index else 1)


class StubDiT:
    """v = x - (a x + 0.9 condition + 0.01 mask), so that the result is a * noise + 0.9 * condition + 0.01."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, noise_share: float) -> None:
        self.noise_share = noise_share
        self.inputs: list[Tensor] = []

    def conditioning(self, text, timestep):
        return timestep

    def geometry(self, shape, text_tokens):
        return shape

    def velocity(self, video: Tensor, geometry, timestep: float) -> Tensor:
        assert tuple(video.shape[:-1]) == geometry
        self.inputs.append(video)
        x, condition, mask = video.split([16, 16, 1], dim=-1)
        return x - (self.noise_share * x + 0.9 * condition + 0.01 * mask * timestep / 1000)


EMPTY_TEXT = torch.zeros(1, 1)
