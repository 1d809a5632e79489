"""Attention of every window's video tokens and the whole text, over each other.

Source: ByteDance-Seed/SeedVR, `models/dit_v2/attention.py` and `models/dit_v2/nablocks/attention/mmattn.py`.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...device import is_before_ampere
from .config import DiTConfig
from .rope import Rotation, rotary_frequencies, rotate
from .streams import PerStream, rms_norm
from .windows import WindowLayout

AttentionKind = Literal["sdpa", "torch-varlen", "flash-attn"]
"""How windows of different sizes are computed: one batch for each size, or all at once by a variable-length kernel."""


def choose_attention(device: torch.device, dtype: torch.dtype) -> AttentionKind:
    """The fastest kind that this installation has for the device and dtype of queries, keys and values."""
    half = dtype in (torch.float16, torch.bfloat16)
    # Both kernels are FlashAttention's, which starts at sm_80.
    if device.type == "cuda" and half and not is_before_ampere(device):
        if find_spec("flash_attn") is not None:
            return "flash-attn"
        if find_spec("torch.nn.attention.varlen") is not None:
            return "torch-varlen"
    return "sdpa"


def attend(q: Tensor, k: Tensor, v: Tensor, layout: WindowLayout, *, text_asks: bool, kind: AttentionKind) -> Tensor:
    """Full softmax attention inside every joint sequence of the layout.

    k, v: (joint tokens, heads, head width), all joint sequences one after the other. q: the same, or without
    `text_asks` the video tokens alone in window order. Returns the shape of q.
    """
    if kind == "sdpa" or len(layout.groups) == 1:
        return _attend_by_size(q, k, v, layout, text_asks=text_asks)
    bounds = layout.joint_bounds if text_asks else layout.video_bounds
    longest_joint = layout.longest + layout.text_tokens
    longest = longest_joint if text_asks else layout.longest
    if kind == "flash-attn":
        attend_ragged = import_module("flash_attn").flash_attn_varlen_func
    else:
        attend_ragged = import_module("torch.nn.attention.varlen").varlen_attn
    out: Tensor = attend_ragged(q, k, v, bounds, layout.joint_bounds, longest, longest_joint)
    return out


def _attend_by_size(q: Tensor, k: Tensor, v: Tensor, layout: WindowLayout, *, text_asks: bool) -> Tensor:
    parts = []
    q_begin = k_begin = 0
    for group in layout.groups:
        k_tokens = group.tokens + layout.text_tokens
        q_tokens = k_tokens if text_asks else group.tokens
        q_end, k_end = q_begin + group.windows * q_tokens, k_begin + group.windows * k_tokens
        out = F.scaled_dot_product_attention(
            _as_batch(q[q_begin:q_end], q_tokens),
            _as_batch(k[k_begin:k_end], k_tokens),
            _as_batch(v[k_begin:k_end], k_tokens),
        )
        parts.append(out.transpose(1, 2).flatten(0, 1))
        q_begin, k_begin = q_end, k_end
    return torch.cat(parts)


def _as_batch(x: Tensor, tokens: int) -> Tensor:
    """(windows * tokens, heads, head width) -> (windows, heads, tokens, head width)"""
    return x.reshape(-1, tokens, *x.shape[1:]).transpose(1, 2)


class RotaryFrequencies(nn.Module):
    """The frequencies as every public checkpoint carries them, once for each block.

    Nothing reads them: most files have them rounded, so they are computed anew (see `rope.py`).
    """

    freqs: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        # Computed on the CPU: what PyTorch does for the meta device here imports its compiler, which takes seconds.
        with torch.device("cpu"):
            frequencies = rotary_frequencies(config)
        self.register_buffer("freqs", frequencies.to(torch.get_default_device()))


class JointAttention(nn.Module):
    """Windowed attention of video and text; the text's result is its mean over all windows of its clip."""

    def __init__(self, config: DiTConfig, weight_sets: tuple[str, ...]) -> None:
        super().__init__()
        self.config = config
        width, inner = config.width, config.attention_width
        self.proj_qkv = PerStream(weight_sets, lambda: nn.Linear(width, 3 * inner, bias=False))
        self.proj_out = PerStream(weight_sets, lambda: nn.Linear(inner, width))
        self.norm_q = PerStream(weight_sets, lambda: nn.RMSNorm(config.head_width))
        self.norm_k = PerStream(weight_sets, lambda: nn.RMSNorm(config.head_width))
        self.rope = nn.ModuleDict({"rope": RotaryFrequencies(config)})

    def forward(
        self,
        video: Tensor,
        text: Tensor,
        layout: WindowLayout,
        rotations: tuple[Rotation, Rotation | None],
        *,
        text_asks: bool,
        kind: AttentionKind,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from video (tokens in window order, width) and text (clips * text tokens, width).

        rotations: those of the video in window order, and of the text. Without `text_asks` the text only answers,
        and its own result is None.
        """
        video_qkv = self._split(self.proj_qkv.of("vid")(video))
        text_weight = self.proj_qkv.of("txt").get_parameter("weight")
        # The queries come first in the weight.
        text_qkv = self._split(F.linear(text, text_weight if text_asks else text_weight[self.config.attention_width :]))
        q = self._norm_and_rotate(self.norm_q.of("vid"), video_qkv[:, 0], rotations[0])
        if text_asks:
            q = _join(q, self._norm_and_rotate(self.norm_q.of("txt"), text_qkv[:, 0], rotations[1]), layout)
        k = _join(
            self._norm_and_rotate(self.norm_k.of("vid"), video_qkv[:, -2], rotations[0]),
            self._norm_and_rotate(self.norm_k.of("txt"), text_qkv[:, -2], rotations[1]),
            layout,
        )
        v = _join(video_qkv[:, -1], text_qkv[:, -1], layout)
        out = attend(q, k, v, layout, text_asks=text_asks, kind=kind).flatten(1)
        if not text_asks:
            return self.proj_out.of("vid")(out), None
        video_out = out.index_select(0, layout.video_rows)
        text_rows = out.index_select(0, layout.text_rows.flatten())
        text_rows = text_rows.reshape(*layout.text_rows.shape, *out.shape[1:])
        text_out = text_rows.float().mean(dim=1).to(out.dtype).flatten(0, 1)
        return self.proj_out.of("vid")(video_out), self.proj_out.of("txt")(text_out)

    def _split(self, qkv: Tensor) -> Tensor:
        """(tokens, parts * heads * head width) -> (tokens, parts, heads, head width)"""
        return qkv.reshape(qkv.shape[0], -1, self.config.heads, self.config.head_width)

    def _norm_and_rotate(self, norm: nn.Module, x: Tensor, by: Rotation | None) -> Tensor:
        normed = rms_norm(x, self.config.norm_eps, norm.get_parameter("weight"))
        return (normed if by is None else rotate(normed, by)).to(x.dtype)


def _join(video: Tensor, text: Tensor, layout: WindowLayout) -> Tensor:
    """Video tokens in window order and text tokens -> the joint sequences."""
    return torch.cat([video, text]).index_select(0, layout.joint_rows)
