"""Convolutions that look only backwards in time, and the memory that lets a clip pass through them in slices."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .convolution import convolve_frames, takes_frames


class CausalCache:
    """The last input frames of every causal convolution, carried from one slice of a clip to the next.

    One cache belongs to one clip (and, with spatial tiles, to one tile of it). It is empty at the start of the
    clip; each convolution reads its own entry and replaces it. The entries have the activations' dtype and device.
    """

    def __init__(self) -> None:
        self._tails: dict[nn.Module, Tensor] = {}

    def __contains__(self, conv: nn.Module) -> bool:
        return conv in self._tails

    def __getitem__(self, conv: nn.Module) -> Tensor:
        return self._tails[conv]

    def __setitem__(self, conv: nn.Module, tail: Tensor) -> None:
        self._tails[conv] = tail

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self._tails)

    def __len__(self) -> int:
        return len(self._tails)

    @property
    def nbytes(self) -> int:
        """Bytes held by all tails together."""
        return sum(tail.nbytes for tail in self._tails.values())


class CausalConv3d(nn.Conv3d):
    """A 3-D convolution (N, C, T, H, W) whose output frame k depends on no input frame after k * stride.

    Before the first frame of a clip stand `kernel_t - 1` copies of it (of this convolution's own input, not of
    the picture); in a later slice stands the tail of the slice before. Space is padded with zeros as usual.
    A kernel of one frame needs no past and keeps no tail. `convolution` says which implementation runs where.
    """

    frames_per_latent = 1
    """How many frames of its input, but for a clip's first, belong to one latent at least."""

    def forward(self, x: Tensor, cache: CausalCache | None = None) -> Tensor:
        """Convolve a whole clip (no cache), or its next slice (the cache is read and updated)."""
        if takes_frames(self, x):
            return self._by_frames(x, cache)
        kernel_t, stride_t = self.kernel_size[0], self.stride[0]
        if kernel_t > 1:
            if cache is not None and self in cache:
                past = cache[self]
            else:
                past = x[:, :, :1].expand(-1, -1, kernel_t - 1, -1, -1)
            x = torch.cat([past, x], dim=2)
            if cache is not None:
                # A view would keep the whole slice alive.
                cache[self] = x[:, :, stride_t - kernel_t :].clone()
        return super().forward(x)

    def _by_frames(self, x: Tensor, cache: CausalCache | None) -> Tensor:
        tail_frames = self.kernel_size[0] - self.stride[0]
        past = cache[self] if cache is not None and self in cache else None
        y = convolve_frames(self, past, x, by_fours=self.frames_per_latent == 4)
        if cache is not None and self.kernel_size[0] > 1:
            recent = x[:, :, -tail_frames:]
            if recent.shape[2] < tail_frames:
                older = x[:, :, :1].expand(-1, -1, tail_frames, -1, -1) if past is None else past
                recent = torch.cat([older, recent], dim=2)[:, :, -tail_frames:]
            # A view would keep the whole slice alive.
            cache[self] = recent.clone()
        return y


def causal_conv3x3x3(channels_in: int, channels_out: int) -> CausalConv3d:
    """The VAE's ordinary convolution: 3x3x3, stride 1, same size in space and time."""
    return CausalConv3d(channels_in, channels_out, kernel_size=3, padding=(0, 1, 1))


def give_four_frames_a_latent(*modules: nn.Module) -> None:
    """Tell the convolutions in `modules` that they work at the picture's frame rate."""
    for module in modules:
        for conv in module.modules():
            if isinstance(conv, CausalConv3d):
                conv.frames_per_latent = 4
