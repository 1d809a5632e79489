"""Every kernel's reference in plain FP32 PyTorch, with the same signature: slow, readable, and what the tests trust."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..quant import LIMITS
from .configs import AttentionConfig, ConvConfig, ConvProblem
from .conv.operands import (
    BOUND,
    CENTER,
    GAIN,
    HIGH,
    LOW,
    M2,
    MEAN,
    OFFSET,
    WINOGRAD_INPUTS,
    WINOGRAD_OUTPUTS,
    Additions,
    AttentionOperands,
    ConvOutput,
    ConvWeights,
    FrameTarget,
    FrameWindow,
    NormOperands,
    NormSpec,
)
from .layout import LARGEST_NORM, value_order

LOG2_E = 1.4426950408889634


def conv3d(
    window: FrameWindow,
    weights: ConvWeights,
    additions: Additions,
    out: ConvOutput,
    problem: ConvProblem,
    config: ConvConfig,
) -> None:
    """Reference of `conv3d.conv3d`."""
    frames = window_values(window)
    kernels = weight_values(weights, problem)
    for t, (*seen, weight_set) in enumerate(window.table.tolist()):
        # [1, Ci, kt, H, W]
        x = frames[seen].permute(3, 0, 1, 2)[None]
        for phase in range(problem.phases):
            index = weight_set * problem.phases + phase
            y = F.conv3d(pad_window(x, problem, phase), kernels[index], stride=(1, problem.stride, problem.stride))
            y = y[0, :, 0].permute(1, 2, 0) + border_bias(weights.bias[index], problem, phase)
            place = phase_slice(out.y[t], problem, phase)
            if additions.shortcut is not None and additions.shortcut_weight is not None:
                y = y + phase_slice(additions.shortcut[t], problem, phase).float() @ additions.shortcut_weight.float().T
            if additions.residual is not None:
                y = y + phase_slice(additions.residual[t], problem, phase).float()
            place.copy_(y.to(out.y.dtype))
    if out.partials is not None:
        out.partials.copy_(partial_statistics(out.y, problem, config))


def paired_conv3d(
    window: FrameWindow,
    weights: ConvWeights,
    additions: Additions,
    out: ConvOutput,
    problem: ConvProblem,
    config: ConvConfig,
) -> None:
    """Reference of `paired.paired_conv3d`: as a convolution of four taps, once for each frame."""
    data = weights.data.view(-1, 4, weights.data.shape[1] // 4).float()
    for t, signs in enumerate(WINOGRAD_OUTPUTS):
        signed = data * torch.tensor(signs, device=data.device)[None, :, None]
        table = torch.tensor([[0, 1, 2, 3, 0]], dtype=torch.int32)
        residual, shortcut = (None if x is None else x[t : t + 1] for x in (additions.residual, additions.shortcut))
        conv3d(
            FrameWindow(window.frames, window.exponents, table),
            weights._replace(data=signed.view_as(weights.data)),
            Additions(residual, shortcut, additions.shortcut_weight),
            ConvOutput(out.y[t : t + 1], None),
            problem,
            config,
        )
    if out.partials is not None:
        out.partials.copy_(partial_statistics(out.y, problem, config))


def window_values(window: FrameWindow) -> Tensor:
    """(F, H, W, Ci) float32: the frames with their exponents applied."""
    frames = window.frames.float()
    if window.exponents is None:
        return frames
    return frames * torch.exp2(window.exponents.float())[:, None, None, None]


def weight_values(weights: ConvWeights, problem: ConvProblem) -> Tensor:
    """(sets * phases, Co, Ci, kt, kh, kw) float32: the weights with their scales applied."""
    data = weights.data.float()
    if weights.scale is not None:
        data = data * weights.scale[:, None]
    data = data.reshape(-1, problem.channels_out, *problem.kernel, problem.channels_in)
    return data.permute(0, 1, 5, 2, 3, 4)


def pad_window(x: Tensor, problem: ConvProblem, phase: int) -> Tensor:
    """Zero-pad (..., H, W) so that an unpadded convolution gives the grid of one phase."""
    _, kh, kw = problem.kernel
    if problem.stride == 2:
        return F.pad(x, (0, 1, 0, 1))[..., : x.shape[-2] // 2 * 2 + 1, : x.shape[-1] // 2 * 2 + 1]
    if problem.phases == 4:
        row, column = divmod(phase, 2)
        return F.pad(x, (1 - column, column, 1 - row, row))
    return F.pad(x, (kw // 2, kw // 2, kh // 2, kh // 2))


def border_bias(bias: Tensor, problem: ConvProblem, phase: int) -> Tensor:
    """(borders, Co) -> what is added at each position of one phase's grid, broadcastable to (grid_h, grid_w, Co)."""
    if problem.phases == 1:
        return bias[0]
    height, width = problem.grid_px
    row, column = divmod(phase, 2)
    grid = bias[0].repeat(height, width, 1)
    at_row, at_column = (height - 1) * row, (width - 1) * column
    grid[at_row] += bias[1]
    grid[:, at_column] += bias[2]
    grid[at_row, at_column] += bias[3]
    return grid


def phase_slice(frame: Tensor, problem: ConvProblem, phase: int) -> Tensor:
    """The view of a frame (Ho, Wo, C) that one phase writes."""
    if problem.phases == 1:
        return frame
    row, column = divmod(phase, 2)
    return frame[row::2, column::2]


def partial_statistics(y: Tensor, problem: ConvProblem, config: ConvConfig) -> Tensor:
    """(T, tiles, rows, Co) float32: mean, M2 and perhaps smallest and largest value of every tile of `y`."""
    height, width = problem.grid_px
    tiles = []
    for phase in range(problem.phases):
        grid = torch.stack([phase_slice(frame, problem, phase) for frame in y]).float()
        for h in range(0, height, config.tile_h):
            for w in range(0, width, config.tile_w):
                tile = grid[:, h : h + config.tile_h, w : w + config.tile_w].flatten(1, 2)
                mean = tile.mean(dim=1)
                rows = {
                    MEAN: mean,
                    M2: (tile - mean[:, None]).square().sum(dim=1),
                    LOW: tile.amin(dim=1),
                    HIGH: tile.amax(dim=1),
                }
                tiles.append(torch.stack([rows[i] for i in range(problem.statistic_rows)], dim=1))
    return torch.stack(tiles, dim=1)


def combine(partials: Tensor, counts: Tensor, combined: Tensor) -> None:
    """Reference of `groupnorm.combine`."""
    per_chunk = -(-partials.shape[1] // combined.shape[1])
    for i, (part, n) in enumerate(zip(partials.split(per_chunk, 1), counts.split(per_chunk), strict=True)):
        combined[:, i] = _merge(part, n)


def _merge(partials: Tensor, counts: Tensor) -> Tensor:
    """(T, tiles, 2 or 4, C) -> (T, 4, C): the statistics of all tiles together."""
    if partials.shape[2] == 2:
        reach = partials[:, :, M2].sqrt()
        partials = torch.cat(
            [partials, torch.stack([partials[:, :, MEAN] - reach, partials[:, :, MEAN] + reach], 2)], 2
        )
    n = counts.float()[None, :, None]
    mean = (n * partials[:, :, MEAN]).sum(1) / n.sum()
    m2 = (partials[:, :, M2] + n * (partials[:, :, MEAN] - mean[:, None]).square()).sum(1)
    return torch.stack([mean, m2, partials[:, :, LOW].amin(1), partials[:, :, HIGH].amax(1)], dim=1)


def finish_statistics(combined: Tensor, counts: Tensor, operands: NormOperands, spec: NormSpec, affine: Tensor) -> None:
    """Reference of `groupnorm.finish_statistics`."""
    mean, m2, low, high = _merge(combined, counts).unbind(1)
    affine.copy_(affine.new_tensor([0, 1, 0, 0])[:, None].expand_as(affine))
    if operands.weight is not None and operands.bias is not None and spec.normalises:
        count = counts.sum().float()
        means = mean.unflatten(1, (spec.groups, -1))
        group_mean = means.mean(-1, keepdim=True)
        squares = m2.unflatten(1, (spec.groups, -1)) + count * (means - group_mean).square()
        inverse = (squares.mean(-1, keepdim=True) / count + spec.eps).rsqrt()
        affine[:, CENTER] = group_mean.expand_as(means).flatten(1)
        affine[:, GAIN] = operands.weight * inverse.expand_as(means).flatten(1)
        affine[:, OFFSET] = operands.bias
    ends = (torch.stack([low, high]) - affine[:, CENTER]) * affine[:, GAIN] + affine[:, OFFSET]
    top, bottom = ends.amax(0), ends.amin(0)
    if spec.activates:
        bound = torch.maximum(F.silu(top), torch.where(bottom < 0, 0.2784646, 0.0))
    else:
        bound = torch.maximum(top.abs(), bottom.abs())
    if operands.inverse_smoothing is not None:
        bound = bound * operands.inverse_smoothing
    affine[:, BOUND] = bound


def normalize(x: Tensor, affine: Tensor, operands: NormOperands, spec: NormSpec, target: FrameTarget) -> None:
    """Reference of `groupnorm.normalize`."""
    slots = target.slots.long()
    center, gain, offset, bound = affine[:, :, None, None].unbind(1)
    value = (x.float() - center) * gain + offset
    if spec.activates:
        value = F.silu(value)
    if operands.inverse_smoothing is not None:
        value = value * operands.inverse_smoothing
    if target.exponents is not None:
        mantissa, exponent = torch.frexp((bound.amax((1, 2, 3)) / (spec.limit * spec.reach)).clamp(min=1e-30))
        # frexp's mantissa is in [0.5, 1).
        target.exponents[slots] = (exponent - (mantissa == 0.5).int()).clamp(min=spec.exponent_floor)
        value = value * torch.exp2(-target.exponents[slots].float())[:, None, None, None]
        if target.frames.dtype == torch.int8:
            value = (value + 0.5).floor().clamp(-spec.limit, spec.limit)
    # index_put has no FP8 kernels; one frame at a time is a plain copy.
    for slot, frame in zip(slots.tolist(), value, strict=True):
        target.frames[slot].copy_(frame.to(target.frames.dtype))


def normalize_pair(
    x: Tensor, affine: Tensor, operands: NormOperands, spec: NormSpec, target: FrameTarget, winograd: FrameTarget
) -> None:
    """Reference of `groupnorm.normalize_pair`."""
    before, last, first, second = target.slots.tolist()
    past = FrameWindow(target.frames[[before, last]], None, target.slots)
    exponents = target.exponents
    if exponents is not None:
        past = past._replace(exponents=exponents[[before, last]])
    old = window_values(past)
    slots = target.slots[2:]
    # The values themselves: FP32 frames without exponents.
    new = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    plain = FrameTarget(new, None, torch.arange(2, dtype=torch.int32))
    normalize(x, affine, operands, spec, plain)
    normalize(x, affine, operands, spec, FrameTarget(target.frames, exponents, slots))
    values = torch.einsum("pf,fhwc->phwc", torch.tensor(WINOGRAD_INPUTS, device=x.device), torch.cat([old, new]))
    if exponents is not None:
        assert winograd.exponents is not None
        is_integer = target.frames.dtype == torch.int8
        assert past.exponents is not None
        largest = int(torch.cat([past.exponents, exponents[[first, second]]]).max())
        winograd.exponents.fill_(largest + (0 if is_integer and spec.activates else 1))
        values = values * torch.exp2(-winograd.exponents.float())[:, None, None, None]
        values = (values + 0.5).floor().clamp(-spec.limit, spec.limit) if is_integer else values
    for place, frame in zip(winograd.frames, values, strict=True):
        place.copy_(frame.to(winograd.frames.dtype))


def attend(qkv: Tensor, y: Tensor, config: AttentionConfig) -> None:
    """Reference of `flash.attend`; the configuration changes nothing here."""
    q, k, v = qkv.float().chunk(3, dim=-1)
    scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
    y.copy_((scores.softmax(dim=-1) @ v).to(y.dtype))


def quantize_attention(qkv: Tensor, operands: AttentionOperands, config: AttentionConfig) -> None:
    """Reference of `quantize.quantize_attention`; it leaves no partial statistics."""
    q, k, v = qkv.float().chunk(3, dim=-1)
    k_mean, v_mean = k.mean(1), v.mean(1)
    v_scale = (v - v_mean[:, None]).abs().amax(1).clamp(min=1e-20) / LIMITS[torch.float8_e4m3fn]
    operands.common.copy_(torch.stack([k_mean, v_mean, v_scale], dim=1))
    tokens = (
        (q, operands.q, operands.q_scale, math.log2(math.e) * q.shape[-1] ** -0.5),
        (k - k_mean[:, None], operands.k, operands.k_scale, 1.0),
    )
    for x, data, scale, factor in tokens:
        integer = data.dtype == torch.int8
        step = x.abs().amax(-1, keepdim=True).clamp(min=1e-20) / LIMITS[data.dtype]
        if integer:
            step = step.maximum(x.norm(dim=-1, keepdim=True) / LARGEST_NORM)
        data.copy_(((x / step + 0.5).floor() if integer else x / step).to(data.dtype))
        scale.copy_(step[..., 0] * factor)
    rows = ((v - v_mean[:, None]) / v_scale[:, None]).transpose(1, 2)
    rows = F.pad(rows, (0, operands.v.shape[2] - v.shape[1]))
    if config.overlaps:
        rows = rows[..., value_order(rows.shape[2]).to(rows.device)]
    operands.v.copy_(rows.to(operands.v.dtype))


def attend_8bit(operands: AttentionOperands, y: Tensor, config: AttentionConfig) -> None:
    """Reference of `eight_bit.attend_8bit`; of the configuration only the order of the values matters here.

    Probabilities are rounded as the kernel rounds them, relative to a power of two.
    """
    q = operands.q.float() * operands.q_scale[..., None]
    k = operands.k.float() * operands.k_scale[..., None]
    scores = q @ k.transpose(1, 2)
    p = torch.exp2(scores - scores.amax(-1, keepdim=True).ceil().clamp(min=0) + 8)
    _, v_mean, v_scale = operands.common[:, :, None].unbind(1)
    v = operands.v.float().transpose(1, 2)
    if config.overlaps:
        v = v[:, value_order(v.shape[1]).argsort().to(v.device)]
    v = v[:, : k.shape[1]]
    weighed = p.to(torch.float8_e4m3fn).float() @ v / p.sum(-1, keepdim=True)
    y.copy_((weighed * v_scale + v_mean).to(y.dtype))


def unfold(picture: Tensor, y: Tensor) -> None:
    """Reference of `image.unfold`."""
    colors, _, height, width = picture.shape
    # [T, C * 9, H * W] -> [T, H, W, 9 * C]
    patches = F.unfold(picture.float().transpose(0, 1), 3, padding=1).unflatten(1, (colors, 9))
    rows = patches.transpose(1, 2).flatten(1, 2).unflatten(-1, (height, width)).permute(0, 2, 3, 1)
    y.copy_(F.pad(rows, (0, y.shape[-1] - rows.shape[-1])).to(y.dtype))


def fold(taps: Tensor, bias: Tensor, picture: Tensor) -> None:
    """Reference of `image.fold`."""
    colors, _, height, width = picture.shape
    padded = F.pad(taps.float(), (0, 0, 1, 1, 1, 1))
    total = bias.float()[:, None, None, None].expand(picture.shape).clone()
    for tap in range(9):
        kh, kw = divmod(tap, 3)
        shown = padded[:, kh : kh + height, kw : kw + width, tap * colors : (tap + 1) * colors]
        total += shown.permute(3, 0, 1, 2)
    picture.copy_(total.to(picture.dtype))
