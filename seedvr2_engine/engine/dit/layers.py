"""The transformer's layers in few passes: matrix products, and between them one kernel each.

Video and text rows stand in one tensor, so that every kernel serves both, and so does a product whose weights they
share. Tokens stay in raster order: attention takes its windows' rows from there, and puts its results back there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.tokens.operands import Activation, EightBitQKV, GatedSum, JoinStep, Operand, StreamVectors, TokenStep
from ...models.dit.attention import AttentionKind, attend
from ...models.dit.blocks import Block, GatedMLP, PlainMLP
from ...models.dit.config import DiTConfig
from ...models.dit.model import Conditioning
from ...models.dit.streams import PerStream
from ...quant.block_scaled import BLOCKS
from ...quant.quantize import BlockScaledTensor, QuantizedTensor
from .backend import QKV, TokenBackend
from .quantized import DATA_TYPES, BlockFormat, Quantized, QuantizedLinear
from .tables import JointTables, PaddedWork

MLP_ROWS = 32768
"""Rows at most that pass the MLP at a time: its inner activations are the largest tensor, and more are no faster."""


@dataclass(frozen=True)
class ForwardPass:
    """One run through all layers."""

    config: DiTConfig
    conditioning: Conditioning
    tables: tuple[JointTables, JointTables]
    video_rows: int
    """Rows of the video."""
    head: tuple[Tensor, Tensor] | None
    """Scale and shift, (width,) float32 each, of the norm before the head; None: there is none."""
    attention: AttentionKind
    backend: TokenBackend
    formats: tuple[BlockFormat, ...]
    """The number formats of each block's products."""
    attention_format: str | None = None
    """Of queries and keys where attention is computed in 8 bits; its values are FP8 then."""

    def run(self, tokens: Tensor, blocks: Iterable[Block]) -> Tensor:
        """Pass tokens (video rows in raster order, then text; width), which are overwritten.

        Returns what the head takes, (video rows, width).
        """
        normed = self._step(tokens, self._into_attention(0), out=self._operand(tokens, self.formats[0].qkv))
        for layer, block in enumerate(blocks):
            tokens, change = self._attention(block, normed, tokens)
            step, number = self._into_mlp(layer, change), self.formats[layer].mlp_in
            normed = self._step(tokens, step, out=self._operand(tokens, number, normed))
            # Here memory is at its peak.
            del change, step
            change = self._mlp(block, normed, tokens)
            if block.is_last:
                out = self._operand(tokens, None, normed)
                normed = self._step(tokens, self._into_head(change), out=out)
                break
            step, number = self._into_attention(layer + 1, change), self.formats[layer + 1].qkv
            normed = self._step(tokens, step, out=self._operand(tokens, number, normed))
            del change, step
        return cast(Tensor, normed)

    def _step(self, tokens: Tensor, step: TokenStep, *, out: Operand) -> Operand:
        """Add a change, if there is one, and normalise in the format of the product that comes next."""
        self.backend.step_tokens(tokens, step, kept=None if step.change is None else tokens, out=out)
        return out

    def _operand(self, like: Tensor, format: str | None, free: Operand | None = None) -> Operand:
        """Room for rows as many and as wide, in a format (their own for None); `free`, where it has that format."""
        rows, width = like.shape
        if format is None:
            return free[:rows] if isinstance(free, Tensor) else torch.empty_like(like)
        kind, number = BlockScaledTensor if format in BLOCKS else QuantizedTensor, DATA_TYPES[format]
        if isinstance(free, kind) and free.data.dtype == number:
            return _rows(free, slice(0, rows))
        data = like.new_empty(rows, width // 2 if number == torch.uint8 else width, dtype=number)
        scale = like.new_empty(rows, dtype=torch.float32)
        if format not in BLOCKS:
            return QuantizedTensor(data, scale)
        return BlockScaledTensor(data, scale, like.new_empty(rows, width // BLOCKS[format], dtype=torch.uint8))

    def _new(self, *shape: int) -> Tensor:
        """Room for values in the tokens' format."""
        return self.conditioning.text.new_empty(shape)

    def _quantized(self, x: Tensor, activation: Activation, format: str) -> Quantized:
        like = x.chunk(2, dim=1)[0] if activation == "gated silu" else x
        out = cast(Quantized, self._operand(like, format))
        self.backend.quantize_rows(x, activation, out)
        return out

    def _into_mlp(self, layer: int, change: Tensor | None) -> TokenStep:
        by = self.conditioning.blocks[layer]
        return TokenStep(
            self.video_rows,
            change,
            self._attention_gate(layer),
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
            eps=self.config.norm_eps,
        )

    def _into_head(self, change: Tensor | None) -> TokenStep:
        scale, shift = self.head or (None, None)
        return TokenStep(
            self.video_rows,
            change,
            self._mlp_gate(self.config.layers - 1),
            None if scale is None else StreamVectors(scale, scale),
            None if shift is None else StreamVectors(shift, shift),
            eps=self.config.norm_eps,
        )

    def _attention_gate(self, layer: int) -> StreamVectors:
        by = self.conditioning.blocks[layer]
        return StreamVectors(by.video.attention.gate, by.text.attention.gate)

    def _mlp_gate(self, layer: int) -> StreamVectors:
        by = self.conditioning.blocks[layer]
        return StreamVectors(by.video.mlp.gate, by.text.mlp.gate)

    def _attention(self, block: Block, x: Operand, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """The tokens that remain, in the last layer the video's alone, and what is still to be added to them."""
        out = self._attended(block, x, self.tables[block.layer % 2])
        number = self.formats[block.layer].out
        tokens = tokens[: len(out)]
        inner = out if number is None else self._quantized(out, "none", number)
        del out
        into = self._into(tokens, number)
        gate = self._attention_gate(block.layer)
        for rows, layer in self._shares(block.attn.proj_out, len(tokens)):
            self._add(layer, _rows(inner, rows), rows, gate, into)
        return tokens, None if into is tokens else into

    def _attended(self, block: Block, x: Operand, tables: JointTables) -> Tensor:
        """What attention makes of the rows of x, or in the last layer of the video's alone."""
        config, attention = self.config, block.attn
        qkv = self._new(row_count(x), 3 * config.attention_width)
        self._project(attention.proj_qkv, x, qkv)
        norm_q, norm_k = _vectors(attention.norm_q), _vectors(attention.norm_k)
        step = JoinStep(
            self.video_rows, config.heads, tables.rows, norm_q, norm_k, tables.cos, tables.sin, config.norm_eps
        )  # fmt: skip
        if tables.padded is not None and not block.is_last:
            number = DATA_TYPES[self.attention_format or "int8"]
            rounded = EightBitQKV.empty(len(tables.padded.rows), config.heads, config.head_width, number, qkv.device)
            self.backend.join_parts_8bit(qkv, replace(step, rows=tables.padded.rows), rounded)
            del qkv
            return self._attend_8bit(rounded, tables, tables.padded)
        shape = (len(tables.rows), config.heads, config.head_width)
        q = self._new(self.video_rows if block.is_last else shape[0], *shape[1:])
        k, v = self._new(*shape), self._new(*shape)
        if block.is_last:
            self.backend.join_parts(qkv, replace(step, rows=tables.layout.order), (q, None, None))
            self.backend.join_parts(qkv, step, (None, k, v))
        else:
            self.backend.join_parts(qkv, step, (q, k, v))
        del qkv
        return self._attend((q, k, v), tables, text_asks=not block.is_last)

    def _attend_8bit(self, x: EightBitQKV, tables: JointTables, padded: PaddedWork) -> Tensor:
        """As `_attend`, of all rows."""
        work = tables.work
        assert work is not None
        rows = self.video_rows + tables.places.text_rows[:, 0].numel()
        out = self._new(rows + tables.places.text_rows.numel(), self.config.attention_width)
        self.backend.attend_windows_8bit(x, padded.work, padded.places, out, work.config)
        self.backend.collect_rows(out, work.text, out[self.video_rows : rows])
        return out[:rows]

    def _attend(self, qkv: QKV, tables: JointTables, *, text_asks: bool) -> Tensor:
        """(rows, attention width): the rows of the video, and the text's where it asks."""
        work, width = tables.work, self.config.attention_width
        rows = self.video_rows + text_asks * tables.places.text_rows[:, 0].numel()
        if work is None:
            out = attend(*qkv, tables.layout, text_asks=text_asks, kind=self.attention).flatten(1)
            if not text_asks:
                return out[tables.ranks]
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

    def _mlp(self, block: Block, x: Operand, tokens: Tensor) -> Tensor | None:
        """What is still to be added to the tokens."""
        number = self.formats[block.layer].mlp_out
        into, gate = self._into(tokens, number), self._mlp_gate(block.layer)
        for part, sets in self._shares(block.mlp, len(tokens)):
            step = -(-(part.stop - part.start) // -(-(part.stop - part.start) // MLP_ROWS))
            for begin in range(part.start, part.stop, step):
                rows = slice(begin, min(begin + step, part.stop))
                inner = self._inner(sets, _rows(x, rows), number)
                self._add(sets.get_submodule("proj_out"), inner, rows, gate, into)
                del inner
        return None if into is tokens else into

    def _into(self, tokens: Tensor, number: str | None) -> Tensor:
        """Where a product's result goes that is added to the tokens: to them, or into a change of its own."""
        return tokens if number is not None and self.backend.adds(number, tokens.device) else torch.empty_like(tokens)

    def _add(self, layer: nn.Module, x: Operand, rows: slice, gate: StreamVectors, into: Tensor) -> None:
        """Put a product into its rows of a change, or add it times its gate to the tokens."""
        if not (isinstance(layer, QuantizedLinear) and self.backend.adds(layer.format, into.device)):
            self._product(layer, x, into[rows])
            return
        end = GatedSum(into[rows], gate, max(0, self.video_rows - rows.start))
        self.backend.add_product(cast(Quantized, x), layer.matrix, layer.bias, end, into[rows])

    def _inner(self, mlp: nn.Module, x: Operand, number: str | None) -> Operand:
        """What the MLP's last product takes, in the format that is asked for."""
        rows, width = row_count(x), self.config.mlp_width
        if isinstance(mlp, GatedMLP):
            gate = mlp.proj_in_gate
            if isinstance(gate, QuantizedLinear) and self.backend.gates(gate.format, gate.weight.device):
                inner = self._new(rows, width)
                self.backend.multiply_gated(cast(Quantized, x), _gate_and_up(mlp), inner)
                return inner if number is None else self._quantized(inner, "none", number)
            gate_up = self._gate_and_up(mlp, x)
            if number is not None:
                return self._quantized(gate_up, "gated silu", number)
            inner = self._new(rows, width)
            self.backend.gate_silu(gate_up, inner)
            return inner
        inner = self._new(rows, width)
        layer = cast(PlainMLP, mlp).proj_in
        if number is None and isinstance(layer, nn.Linear) and isinstance(x, Tensor):
            self.backend.project_gelu(x, layer.weight, layer.bias, inner)
            return inner
        self._product(layer, x, inner)
        return F.gelu(inner, approximate="tanh") if number is None else self._quantized(inner, "gelu", number)

    def _gate_and_up(self, mlp: GatedMLP, x: Operand) -> Tensor:
        gate_up = self._new(row_count(x), 2 * self.config.mlp_width)
        gate, up = mlp.proj_in_gate, mlp.proj_in
        both = joined_rows(gate.weight, up.weight)
        if isinstance(gate, QuantizedLinear) and isinstance(up, QuantizedLinear):
            self.backend.multiply(cast(Quantized, x), _gate_and_up(mlp), None, gate_up)
        elif both is not None:
            torch.mm(cast(Tensor, x), both.t(), out=gate_up)
        else:
            for layer, part in zip((gate, up), gate_up.chunk(2, dim=1), strict=True):
                torch.mm(cast(Tensor, x), layer.weight.t(), out=part)
        return gate_up

    def _project(self, layers: PerStream, x: Operand, out: Tensor) -> None:
        for rows, layer in self._shares(layers, row_count(x)):
            self._product(layer, _rows(x, rows), out[rows])

    def _product(self, layer: nn.Module, x: Operand, out: Tensor) -> None:
        if isinstance(layer, QuantizedLinear):
            self.backend.multiply(cast(Quantized, x), layer.matrix, layer.bias, out)
            return
        plain, linear = cast(Tensor, x), cast(nn.Linear, layer)
        if linear.bias is None:
            torch.mm(plain, linear.weight.t(), out=out)
        else:
            torch.addmm(linear.bias, plain, linear.weight.t(), out=out)

    def _shares(self, modules: PerStream, rows: int) -> list[tuple[slice, nn.Module]]:
        """Which of so many rows each set of weights serves."""
        if "all" in modules or rows == self.video_rows:
            return [(slice(0, rows), modules.of("vid"))]
        return [(slice(0, self.video_rows), modules["vid"]), (slice(self.video_rows, rows), modules["txt"])]


def joined_rows(first: Tensor, second: Tensor) -> Tensor | None:
    """Two matrices of one width, or two vectors, as one, if the second follows the first in memory; else None."""
    follows = first.data_ptr() + first.nbytes == second.data_ptr()
    if not (follows and first.is_contiguous() and second.is_contiguous() and first.shape[1:] == second.shape[1:]):
        return None
    if first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr():
        return None
    shape = (len(first) + len(second), *first.shape[1:])
    return first.as_strided(shape, first.stride(), first.storage_offset())


def _gate_and_up(mlp: GatedMLP) -> Quantized:
    """Both matrices as one, the gate's rows first."""
    gate, up = mlp.proj_in_gate, mlp.proj_in
    return _joined(cast(QuantizedLinear, gate).matrix, cast(QuantizedLinear, up).matrix)


def _joined(first: Quantized, second: Quantized) -> Quantized:
    """Two matrices as one."""
    parts = [
        joined_rows(a, b) if joined_rows(a, b) is not None else torch.cat([a, b])
        for a, b in zip(first, second, strict=True)
    ]
    return type(first)(*cast(list[Tensor], parts))


def row_count(x: Operand) -> int:
    """How many rows a product takes."""
    return len(x.data)


def _rows(x: Operand, rows: slice) -> Operand:
    return x[rows] if isinstance(x, Tensor) else type(x)(*(part[rows] for part in x))


def _vectors(norms: PerStream) -> StreamVectors:
    return StreamVectors(norms.of("vid").get_parameter("weight"), norms.of("txt").get_parameter("weight"))
