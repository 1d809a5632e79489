"""The transformer's layers in few passes: matrix products, and between them one kernel each.

Video and text rows stand in one tensor, so that every kernel serves both, and so does a product whose weights they
share. Tokens move to the next layer's window order where the change of the layer before is added.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ...kernels.tokens.operands import JoinStep, StreamVectors, TokenStep
from ...models.dit.attention import AttentionKind, attend
from ...models.dit.blocks import Block, GatedMLP, PlainMLP
from ...models.dit.config import DiTConfig
from ...models.dit.model import Conditioning
from ...models.dit.streams import PerStream
from .backend import QKV, TokenBackend
from .tables import JointTables

MLP_ROWS = 32768
"""Rows at most that pass the MLP at a time: its inner activations are the largest tensor, and more are no faster."""


@dataclass(frozen=True)
class Walk:
    """One run through all layers."""

    config: DiTConfig
    conditioning: Conditioning
    tables: tuple[JointTables, JointTables]
    restore: Tensor
    """(video rows,): the row of the last layer's order for each row of the raster."""
    head: tuple[Tensor, Tensor] | None
    """Scale and shift, (width,) float32 each, of the norm before the head; None: there is none."""
    attention: AttentionKind
    backend: TokenBackend

    @property
    def video_rows(self) -> int:
        """Rows of the video."""
        return len(self.restore)

    def through(self, tokens: Tensor, blocks: Iterable[Block]) -> Tensor:
        """Pass tokens (video rows in the first layer's order, then text; width); they may be overwritten.

        Returns what the head takes, (video rows, width) in raster order.
        """
        normed = torch.empty_like(tokens)
        self.backend.step_tokens(tokens, self._into_attention(0), kept=None, out=normed)
        for layer, block in enumerate(blocks):
            change = self._attention(block, normed)
            # The text's rows end with the last attention.
            tokens, normed = tokens[: len(change)], normed[: len(change)]
            self.backend.step_tokens(tokens, self._into_mlp(layer, change), kept=tokens, out=normed)
            # Here memory is at its peak.
            del change
            change = self._mlp(block.mlp, normed)
            if block.is_last:
                self.backend.step_tokens(tokens, self._into_head(change), kept=None, out=normed)
                break
            step = self._into_attention(layer + 1, change)
            kept = tokens if step.order is None else torch.empty_like(tokens)
            self.backend.step_tokens(tokens, step, kept=kept, out=normed)
            tokens = kept
            del change, step, kept
        return normed

    def _into_mlp(self, layer: int, change: Tensor) -> TokenStep:
        by = self.conditioning.blocks[layer]
        return TokenStep(
            self.video_rows,
            change,
            StreamVectors(by.video.attention.gate, by.text.attention.gate),
            StreamVectors(by.video.mlp.scale, by.text.mlp.scale),
            StreamVectors(by.video.mlp.shift, by.text.mlp.shift),
            eps=self.config.norm_eps,
        )

    def _into_attention(self, layer: int, change: Tensor | None = None) -> TokenStep:
        """change: what the layer before gave, None before the first."""
        by = self.conditioning.blocks[layer]
        video, text = by.video.attention, by.text.attention
        text_scale, text_shift = text.scale, text.shift
        if self.config.family == "3b" and layer == self.config.layers - 1:
            text_scale, text_shift = torch.ones_like(text_scale), torch.zeros_like(text_shift)
        return TokenStep(
            self.video_rows,
            change,
            None if change is None else self._mlp_gate(layer - 1),
            StreamVectors(video.scale, text_scale),
            StreamVectors(video.shift, text_shift),
            order=self.tables[layer % 2].order if layer > 0 else None,
            eps=self.config.norm_eps,
        )

    def _into_head(self, change: Tensor) -> TokenStep:
        scale, shift = self.head or (None, None)
        return TokenStep(
            self.video_rows,
            change,
            self._mlp_gate(self.config.layers - 1),
            None if scale is None else StreamVectors(scale, scale),
            None if shift is None else StreamVectors(shift, shift),
            order=self.restore,
            eps=self.config.norm_eps,
        )

    def _mlp_gate(self, layer: int) -> StreamVectors:
        by = self.conditioning.blocks[layer]
        return StreamVectors(by.video.mlp.gate, by.text.mlp.gate)

    def _attention(self, block: Block, x: Tensor) -> Tensor:
        """What attention adds to the rows of x, or in the last layer to the video's alone."""
        config, tables, attention = self.config, self.tables[block.layer % 2], block.attn
        qkv = x.new_empty(len(x), 3 * config.attention_width)
        self._project(attention.proj_qkv, x, qkv)
        shape = (len(tables.layout.joint_rows), config.heads, config.head_width)
        q = x.new_empty(self.video_rows if block.is_last else shape[0], *shape[1:])
        k, v = x.new_empty(shape), x.new_empty(shape)
        norm_q, norm_k = _vectors(attention.norm_q), _vectors(attention.norm_k)
        step = JoinStep(
            self.video_rows, config.heads, tables.layout.joint_rows, norm_q, norm_k, tables.cos, tables.sin,
            config.norm_eps,
        )  # fmt: skip
        if block.is_last:
            own = JoinStep(self.video_rows, config.heads, None, norm_q, norm_k, tables.cos, tables.sin, config.norm_eps)
            self.backend.join_parts(qkv, own, (q, None, None))
            self.backend.join_parts(qkv, step, (None, k, v))
        else:
            self.backend.join_parts(qkv, step, (q, k, v))
        del qkv
        out = self._attend((q, k, v), tables, text_asks=not block.is_last)
        del q, k, v
        change = x.new_empty(len(out), config.width)
        self._project(attention.proj_out, out, change)
        return change

    def _attend(self, qkv: QKV, tables: JointTables, *, text_asks: bool) -> Tensor:
        """(rows, attention width): the rows of the video, and the text's where it asks."""
        work, width = tables.work, self.config.attention_width
        rows = self.video_rows + text_asks * tables.places.text_rows[:, 0].numel()
        if work is None:
            out = attend(*qkv, tables.layout, text_asks=text_asks, kind=self.attention).flatten(1)
            if not text_asks:
                return out
            collected = out.new_empty(rows, width)
            self.backend.collect_rows(out, tables.places, collected)
            return collected
        if not text_asks:
            out = qkv[0].new_empty(rows, width)
            self.backend.attend_windows(qkv, work.video, work.video_places, out, work.config)
            return out
        out = qkv[0].new_empty(rows + tables.places.text_rows.numel(), width)
        self.backend.attend_windows(qkv, work.joint, work.joint_places, out, work.config)
        self.backend.collect_rows(out, work.text, out[self.video_rows : rows])
        return out[:rows]

    def _mlp(self, mlp: PerStream, x: Tensor) -> Tensor:
        change = torch.empty_like(x)
        for part, sets in self._shares(mlp, len(x)):
            count = part.stop - part.start
            step = -(-count // -(-count // MLP_ROWS))
            for begin in range(part.start, part.stop, step):
                rows = slice(begin, min(begin + step, part.stop))
                self._through_mlp(sets, x[rows], change[rows])
        return change

    def _through_mlp(self, mlp: nn.Module, x: Tensor, change: Tensor) -> None:
        inner = x.new_empty(len(x), self.config.mlp_width)
        if isinstance(mlp, GatedMLP):
            gate_up = x.new_empty(len(x), 2 * self.config.mlp_width)
            gate, up = mlp.proj_in_gate.weight, mlp.proj_in.weight
            both = joined_rows(gate, up)
            if both is not None:
                torch.mm(x, both.t(), out=gate_up)
            else:
                torch.mm(x, gate.t(), out=gate_up[:, : len(gate)])
                torch.mm(x, up.t(), out=gate_up[:, len(gate) :])
            self.backend.gate_silu(gate_up, inner)
            del gate_up
            torch.mm(inner, mlp.proj_out.weight.t(), out=change)
        elif isinstance(mlp, PlainMLP):
            self.backend.project_gelu(x, mlp.proj_in.weight, mlp.proj_in.bias, inner)
            torch.addmm(mlp.proj_out.bias, inner, mlp.proj_out.weight.t(), out=change)

    def _project(self, layers: PerStream, x: Tensor, out: Tensor) -> None:
        for rows, module in self._shares(layers, len(x)):
            layer = cast(nn.Linear, module)
            if layer.bias is None:
                torch.mm(x[rows], layer.weight.t(), out=out[rows])
            else:
                torch.addmm(layer.bias, x[rows], layer.weight.t(), out=out[rows])

    def _shares(self, modules: PerStream, rows: int) -> list[tuple[slice, nn.Module]]:
        """Which of so many rows each set of weights serves."""
        if "all" in modules or rows == self.video_rows:
            return [(slice(0, rows), modules.of("vid"))]
        return [(slice(0, self.video_rows), modules["vid"]), (slice(self.video_rows, rows), modules["txt"])]


def joined_rows(first: Tensor, second: Tensor) -> Tensor | None:
    """Two matrices of one width as one, if the second's rows follow the first's in memory; else None."""
    follows = first.data_ptr() + first.nbytes == second.data_ptr()
    if not (follows and first.is_contiguous() and second.is_contiguous() and first.shape[1] == second.shape[1]):
        return None
    if first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr():
        return None
    return first.as_strided((len(first) + len(second), first.shape[1]), first.stride(), first.storage_offset())


def _vectors(norms: PerStream) -> StreamVectors:
    return StreamVectors(norms.of("vid").get_parameter("weight"), norms.of("txt").get_parameter("weight"))
