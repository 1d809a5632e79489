"""What computes: the Triton kernels on a GPU, or their FP32 references anywhere."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from ...kernels import reference
from ...kernels.configs import AttentionConfig, ConvConfig, ConvProblem
from ...kernels.conv.operands import (
    Additions,
    AttentionOperands,
    ConvOutput,
    ConvWeights,
    FrameTarget,
    FrameWindow,
    NormOperands,
    NormSpec,
)


class Backend(NamedTuple):
    """The functions that a plan's operations call; `kernels.reference` says what each computes."""

    name: str
    conv3d: Callable[[FrameWindow, ConvWeights, Additions, ConvOutput, ConvProblem, ConvConfig], None]
    paired_conv3d: Callable[[FrameWindow, ConvWeights, Additions, ConvOutput, ConvProblem, ConvConfig], None]
    combine: Callable[[Tensor, Tensor, Tensor], None]
    finish_statistics: Callable[[Tensor, Tensor, NormOperands, NormSpec, Tensor], None]
    normalize: Callable[[Tensor, Tensor, NormOperands, NormSpec, FrameTarget], None]
    normalize_pair: Callable[[Tensor, Tensor, NormOperands, NormSpec, FrameTarget, FrameTarget], None]
    attend: Callable[[Tensor, Tensor, AttentionConfig], None]
    quantize_attention: Callable[[Tensor, AttentionOperands, AttentionConfig], None]
    attend_8bit: Callable[[AttentionOperands, Tensor, AttentionConfig], None]
    unfold: Callable[[Tensor, Tensor], None]
    fold: Callable[[Tensor, Tensor, Tensor], None]
    compile: Callable[[Iterable[Callable[[], object]]], None]
    """Compiles what calls of the functions above need, all side by side, and runs none of it."""


def reference_backend() -> Backend:
    """The FP32 references: slow, and independent of any GPU."""
    return Backend(
        "reference",
        reference.conv3d,
        reference.paired_conv3d,
        reference.combine,
        reference.finish_statistics,
        reference.normalize,
        reference.normalize_pair,
        reference.attend,
        reference.quantize_attention,
        reference.attend_8bit,
        reference.unfold,
        reference.fold,
        lambda calls: None,
    )


def triton_backend() -> Backend:
    """The kernels; raises ImportError where Triton is missing."""
    from ...kernels import groupnorm, launch
    from ...kernels.attention import eight_bit, flash, quantize
    from ...kernels.conv import conv3d, image, paired

    return Backend(
        "Triton",
        conv3d.conv3d,
        paired.paired_conv3d,
        groupnorm.combine,
        groupnorm.finish_statistics,
        groupnorm.normalize,
        groupnorm.normalize_pair,
        flash.attend,
        quantize.quantize_attention,
        eight_bit.attend_8bit,
        image.unfold,
        image.fold,
        launch.compile_ahead,
    )


def attend_with_torch(qkv: Tensor, y: Tensor) -> None:
    """Attention as PyTorch computes it; qkv (T, L, 3 D) -> y (T, L, D)."""
    q, k, v = (part[:, None] for part in qkv.chunk(3, dim=-1))
    y.copy_(F.scaled_dot_product_attention(q, k, v)[:, 0])
