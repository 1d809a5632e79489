"""The references of the transformer's kernels: the same signatures in FP32 PyTorch."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...quant.block_scaled import dequantize_blocks, quantize_blocks
from ...quant.quantize import LIMITS, BlockScaledTensor, QuantizedTensor
from ..layout import value_order
from .operands import Activation, EightBitQKV, GatedSum, JoinStep, Operand, Placement, StreamVectors, TokenStep

LOG2_E = 1.4426950408889634


def step_tokens(x: Tensor, step: TokenStep, *, kept: Tensor | None, out: Operand | None) -> None:
    """Reference of `gates.step_tokens`."""
    data = out if out is None or isinstance(out, Tensor) else out.data
    rows = torch.arange(_rows_out(kept, data), device=x.device)
    is_text = (rows >= step.video_rows)[:, None]
    value = x[rows].float()
    if step.change is not None and step.gate is not None:
        value = value + step.change[rows].float() * _of_rows(step.gate, is_text)
    value = value.to(x.dtype)
    if kept is not None:
        kept.copy_(value)
    if out is not None:
        if step.scale is not None and step.shift is not None:
            normed = F.rms_norm(value.float(), value.shape[-1:], None, step.eps)
            value = normed * _of_rows(step.scale, is_text) + _of_rows(step.shift, is_text)
        if isinstance(out, Tensor):
            out.copy_(value)
        else:
            quantize_rows(value, "none", out)


def join_parts(qkv: Tensor, step: JoinStep, outs: tuple[Tensor | None, Tensor | None, Tensor | None]) -> None:
    """Reference of `joint.join_parts`."""
    count = next(len(out) for out in outs if out is not None)
    rows = torch.arange(count, device=qkv.device) if step.rows is None else step.rows
    is_text = (rows >= step.video_rows)[:, None, None]
    norms = step.norm_q, step.norm_k, None
    for part, out, norm in zip(qkv.unflatten(1, (3, step.heads, -1)).unbind(1), outs, norms, strict=True):
        if out is None:
            continue
        value = part[rows].float()
        if norm is not None:
            normed = F.rms_norm(value, value.shape[-1:], None, step.eps) * _of_rows(norm, is_text)
            a, b = normed.unflatten(-1, (-1, 2)).unbind(-1)
            cos, sin = step.cos[rows][:, None], step.sin[rows][:, None]
            value = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
        out.copy_(value)


def collect_rows(joint: Tensor, places: Placement, out: Tensor) -> None:
    """Reference of `joint.collect_rows`."""
    video = len(places.video_rows)
    out[:video] = joint[places.video_rows]
    out[video:] = joint[places.text_rows].float().mean(dim=1).flatten(0, 1).to(out.dtype)


def gate_silu(gate_up: Tensor, out: Tensor) -> None:
    """Reference of `gates.gate_silu`."""
    gate, up = gate_up.float().chunk(2, dim=1)
    out.copy_(F.silu(gate) * up)


def quantize_rows(x: Tensor, activation: Activation, out: QuantizedTensor | BlockScaledTensor) -> None:
    """Reference of `rows.quantize_rows`."""
    value = x.float()
    if activation == "gated silu":
        gate, up = value.chunk(2, dim=1)
        value = F.silu(gate) * up
    elif activation == "gelu":
        value = F.gelu(value, approximate="tanh")
    if isinstance(out, BlockScaledTensor):
        found = quantize_blocks(value.float(), "mxfp8" if out.data.is_floating_point() else "nvfp4")
        for part, result in zip(out, found, strict=True):
            part.copy_(result)
        return
    limit = LIMITS[out.data.dtype]
    largest = value.abs().amax(dim=1)
    scale = torch.where(largest > 0, largest / limit, 1.0)
    scaled = value * (1.0 / scale)[:, None]
    if out.data.dtype == torch.int8:
        scaled = (scaled + 0.5).floor()
    out.scale.copy_(scale)
    out.data.copy_(scaled.clamp(-limit, limit).to(out.data.dtype))


def multiply(
    x: QuantizedTensor | BlockScaledTensor,
    weight: QuantizedTensor | BlockScaledTensor,
    bias: Tensor | None,
    out: Tensor,
    _config: object,
) -> None:
    """Reference of both `multiply`: exact products and sums in FP64, as INT32 sums are, then scaled in float32."""
    if isinstance(x, BlockScaledTensor) and isinstance(weight, BlockScaledTensor):
        whole = (dequantize_blocks(x).double() @ dequantize_blocks(weight).double().t()).float()
        out.copy_(whole if bias is None else whole + bias.float())
        return
    sums = (x.data.double() @ weight.data.double().t()).float()
    value = sums * x.scale[:, None] * weight.scale
    out.copy_(value if bias is None else value + bias.float())


def add_product(
    x: QuantizedTensor | BlockScaledTensor,
    weight: QuantizedTensor | BlockScaledTensor,
    bias: Tensor | None,
    end: GatedSum,
    out: Tensor,
    _config: object,
) -> None:
    """Reference of `product_ends.add_product`."""
    change = torch.empty(out.shape, device=out.device)
    multiply(x, weight, bias, change, None)
    is_text = (torch.arange(len(out), device=out.device) >= end.video_rows)[:, None]
    out.copy_(end.tokens.float() + change * _of_rows(end.gate, is_text))


def multiply_gated(
    x: QuantizedTensor | BlockScaledTensor, weight: QuantizedTensor | BlockScaledTensor, out: Tensor, _config: object
) -> None:
    """Reference of `product_ends.multiply_gated`."""
    both = torch.empty(len(out), 2 * out.shape[1], device=out.device)
    multiply(x, weight, None, both, None)
    gate_silu(both, out)


def _of_rows(vectors: StreamVectors, is_text: Tensor) -> Tensor:
    return torch.where(is_text, vectors.text, vectors.video)


def _rows_out(kept: Tensor | None, out: Tensor | None) -> int:
    return next(len(tensor) for tensor in (kept, out) if tensor is not None)


def attend_windows(
    qkv: tuple[Tensor, Tensor, Tensor], work: Tensor, places: Tensor, out: Tensor, _config: object = None
) -> None:
    """Reference of `windows.attend_windows`."""
    for first, last, begin, end in work.tolist():
        q, k, v = (
            x[rows].float().transpose(0, 1)
            for x, rows in zip(qkv, (slice(first, last), slice(begin, end), slice(begin, end)), strict=True)
        )
        scores = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(dim=-1)
        out[places[first:last].long()] = (scores @ v).transpose(0, 1).flatten(1).to(out.dtype)


def join_parts_8bit(qkv: Tensor, step: JoinStep, out: EightBitQKV) -> None:
    """Reference of `windows_8bit.join_parts_8bit`."""
    assert step.rows is not None
    shape, absent = out.q.shape, (step.rows < 0)[:, None, None]
    q, k, v = (qkv.new_empty(shape, dtype=torch.float32) for _ in range(3))
    join_parts(qkv, replace(step, rows=step.rows.clamp(min=0)), (q, k, v))
    q, k, v = (x.masked_fill(absent, 0) for x in (q, k, v))
    limit = LIMITS[out.q.dtype]

    def rounded(x: Tensor, scale: Tensor, target: Tensor) -> None:
        scaled = x * (1 / scale)
        if target.dtype == torch.int8:
            scaled = (scaled + 0.5).floor()
        target.copy_(scaled.clamp(-limit, limit).to(target.dtype))

    of_queries = _positive(q.abs().amax(2) / limit)
    of_keys = _positive(k.unflatten(0, (-1, 64)).abs().amax((1, 3)) / limit)
    rounded(q, of_queries[..., None], out.q)
    rounded(k, of_keys.repeat_interleave(64, 0)[..., None], out.k)
    out.q_scale.copy_(of_queries.t() * (LOG2_E * shape[2] ** -0.5))
    out.k_scale.copy_(of_keys.t())
    largest = v.unflatten(0, (-1, 64)).abs().amax((1, 3))
    power = torch.where(largest > 0, (largest / 448).log2().ceil(), 0.0)
    out.v_power.copy_(power.t())
    values = (v * torch.exp2(-power).repeat_interleave(64, 0)[..., None]).clamp(-448, 448)
    turned = values.unflatten(0, (-1, 64))[:, value_order(64).to(v.device)].flatten(0, 1)
    out.v.copy_(turned.flatten(1).t().to(out.v.dtype))


def attend_windows_8bit(x: EightBitQKV, work: Tensor, places: Tensor, out: Tensor, _config: object = None) -> None:
    """Reference of `windows_8bit.attend_windows_8bit`; the probabilities stay in float32."""
    heads, width = x.q.shape[1:]
    order = value_order(64).argsort().to(out.device)
    q = x.q.float() * x.q_scale.t()[..., None]
    k = x.k.float() * x.k_scale.t().repeat_interleave(64, 0)[..., None]
    v = x.v.float().t().unflatten(0, (-1, 64))[:, order].flatten(0, 1).unflatten(1, (heads, width))
    v = v * torch.exp2(x.v_power).t().repeat_interleave(64, 0)[..., None]
    for first, last, begin, end in work.tolist():
        scores = torch.einsum("mhd,nhd->hmn", q[first:last], k[begin:end]) / LOG2_E
        found = torch.einsum("hmn,nhd->mhd", scores.softmax(dim=-1), v[begin:end])
        out[places[first:last].long()] = found.flatten(1).to(out.dtype)


def _positive(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, 1.0)
