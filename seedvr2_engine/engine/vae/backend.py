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
        name="reference",
        conv3d=reference.conv3d,
        paired_conv3d=reference.paired_conv3d,
        combine=reference.combine,
        finish_statistics=reference.finish_statistics,
        normalize=reference.normalize,
        normalize_pair=reference.normalize_pair,
        attend=reference.attend,
        quantize_attention=reference.quantize_attention,
        attend_8bit=reference.attend_8bit,
        unfold=reference.unfold,
        fold=reference.fold,
        compile=lambda calls: None,
    )


def triton_backend() -> Backend:
    """The kernels; raises ImportError where Triton is missing."""
    from ...kernels import groupnorm, launch
    from ...kernels.attention import eight_bit, flash, quantize
    from ...kernels.conv import conv3d, image, paired
    from ...kernels.packed.using import use_packed_kernels

    use_packed_kernels()
    return Backend(
        name="Triton",
        conv3d=conv3d.conv3d,
        paired_conv3d=paired.paired_conv3d,
        combine=groupnorm.combine,
        finish_statistics=groupnorm.finish_statistics,
        normalize=groupnorm.normalize,
        normalize_pair=groupnorm.normalize_pair,
        attend=flash.attend,
        quantize_attention=quantize.quantize_attention,
        attend_8bit=eight_bit.attend_8bit,
        unfold=image.unfold,
        fold=image.fold,
        compile=launch.compile_ahead,
    )


def attend_with_torch(qkv: Tensor, y: Tensor) -> None:
    """Attention as PyTorch computes it; qkv (T, L, 3 D) -> y (T, L, D)."""
    q, k, v = (part[:, None] for part in qkv.chunk(3, dim=-1))
    y.copy_(F.scaled_dot_product_attention(q, k, v)[:, 0])
