"""The composed upsampler: 1x1x1 convolution, pixel shuffle and 3x3x3 convolution as one convolution per output phase.

An output pixel's three rows of the enlarged picture lie in two rows of the small one, and so do its columns; with
time, its three frames lie in two. So 27 taps of a four- or eightfold tensor become 8 taps (2 x 2 x 2), or 12
(3 x 2 x 2) where only space is doubled, of the small tensor, which is never enlarged. The result is exact, the
picture's border and the start of the clip included; weights are composed in FP64.

At the start of a clip the second phase of the first frame is dropped, so the first two steps have kernels of their own:
output frame 0 sees only low-resolution frame 0; the two frames of low-resolution frame 1 see frame 0 in place of what
was dropped. All later frames share one pair of kernels.
"""

from typing import NamedTuple

import torch
from torch import Tensor

Term = tuple[int, int]
"""For one temporal tap of the 3x3x3 convolution: the low-resolution tap it falls on, and the time phase it sees."""

FIRST: tuple[Term, Term, Term] = ((0, 0), (0, 0), (0, 0))
STEADY: tuple[tuple[Term, Term, Term], ...] = (((0, 0), (0, 1), (1, 0)), ((0, 1), (1, 0), (1, 1)))
SECOND: tuple[tuple[Term, Term, Term], ...] = (((0, 0), (0, 0), (1, 0)), ((0, 0), (1, 0), (1, 1)))
SPACE_ONLY: tuple[Term, Term, Term] = ((0, 0), (1, 0), (2, 0))

SET_OF_SECOND = 2
"""Weight set of the first of the two frames made from low-resolution frame 1; the steady sets are 0 and 1."""


class ComposedUpsampler(NamedTuple):
    """Kernels of a composed upsampler, FP64; phase = 2 * row phase + column phase."""

    first: Tensor
    """(1, 4, C, C, 1, 2, 2): output frame 0 of a clip."""
    first_bias: Tensor
    """(1, 4, 4, C): inside, border row, border column, corner."""
    later: Tensor
    """(4, 4, C, C, 2, 2, 2) with time: steady first and second frame, then those of low-resolution frame 1;
    (1, 4, C, C, 3, 2, 2) without."""
    later_bias: Tensor
    """(4 or 1, 4, 4, C)."""


def compose_upsampler(upscale: Tensor, upscale_bias: Tensor, weight: Tensor, bias: Tensor) -> ComposedUpsampler:
    """Compose `upscale_conv` (4 r C, C[, 1, 1, 1]) and `conv` (C, C, 3, 3, 3); r is 2 if time doubles, else 1."""
    channels = weight.shape[0]
    time_factor = upscale.shape[0] // (4 * channels)
    # [row phase, column phase, time phase, C, C]
    phases = upscale.double().reshape(2, 2, time_factor, channels, channels)
    phase_bias = upscale_bias.double().reshape(2, 2, time_factor, channels)
    operands = (phases, phase_bias, weight.double(), bias.double())
    later_terms = (*STEADY, *SECOND) if time_factor == 2 else (SPACE_ONLY,)
    first, first_bias = _compose(operands, FIRST)
    later = [_compose(operands, terms) for terms in later_terms]
    return ComposedUpsampler(
        first[None],
        first_bias[None],
        torch.stack([kernels for kernels, _ in later]),
        torch.stack([biases for _, biases in later]),
    )


def _compose(operands: tuple[Tensor, Tensor, Tensor, Tensor], terms: tuple[Term, Term, Term]) -> tuple[Tensor, Tensor]:
    """The kernels (4, C, C, kt, 2, 2) and biases (4, 4, C) of the four spatial phases of one output frame."""
    phases, phase_bias, weight, bias = operands
    channels, depth = weight.shape[0], max(low for low, _ in terms) + 1
    kernels = weight.new_zeros(4, channels, channels, depth, 2, 2)
    # What the upsampling's bias adds through each spatial tap.
    tap_bias = weight.new_zeros(4, channels, 2, 2)
    for phase in range(4):
        for kt, (low, z) in enumerate(terms):
            for kh in range(3):
                for kw in range(3):
                    h, row = _low_resolution(phase // 2, kh)
                    w, column = _low_resolution(phase % 2, kw)
                    tap = weight[:, :, kt, kh, kw]
                    kernels[phase, :, :, low, h, w] += tap @ phases[row, column, z]
                    tap_bias[phase, :, h, w] += tap @ phase_bias[row, column, z]
    return kernels, torch.stack([_border_biases(tap_bias[phase], phase, bias) for phase in range(4)])


def _low_resolution(phase: int, tap: int) -> tuple[int, int]:
    """Where tap 0..2 of the 3-tap kernel of an output phase falls: low-resolution tap 0..1, and the phase it sees."""
    enlarged = phase + tap - 1
    return enlarged // 2 - (phase - 1), enlarged % 2


def _border_biases(tap_bias: Tensor, phase: int, bias: Tensor) -> Tensor:
    """(C, 2, 2) -> (4, C): the bias inside, and what the border row, the border column and their corner add to it.

    Phase 0 looks one pixel up (left) of the image in its first row (column), phase 1 one pixel down (right) of it in
    its last.
    """
    outside_row = tap_bias[:, phase // 2]
    outside_column = tap_bias[:, :, phase % 2]
    corner = tap_bias[:, phase // 2, phase % 2]
    return torch.stack([bias + tap_bias.sum((1, 2)), -outside_row.sum(1), -outside_column.sum(1), corner])
