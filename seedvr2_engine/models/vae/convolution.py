"""Which implementation of a causal convolution runs where.

- With gradients, on a GPU, or in another format than FP32: PyTorch's own 3-D convolution over a window of frames.
- On a CPU in FP32 without gradients: `convolve_frames`. For small tensors PyTorch would take `slow_conv3d`, a sixth as
  fast as oneDNN, and for large ones it changes the layout before and after every call; so bits would depend on how many
  frames come at once. Here all frames lie channels last, each tap in time is a 2-D convolution whose result is added to
  those before, and no window is put together. Where four frames belong to one latent, `_four_frames` needs six 2-D
  convolutions instead of twelve. On x86 with AVX they are oneDNN's, called directly; elsewhere PyTorch's, a frame at a
  time.

Both compute the same sums in another order, so they differ by FP32 rounding.
"""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEWEST_CHANNELS = 16
"""With fewer, the transforms of `_four_frames` cost more than the convolutions that they save."""
_LARGE_VALUES = 1 << 14
"""Values of one frame from which on it is worth to be taken apart."""
_BAND_VALUES = 1 << 17
"""Values of one frame that `_four_frames` takes at a time."""
_CACHED_VALUES = 1 << 15
"""Values of each frame that `_combine` takes at a time, so that six frames and their sums stay in a core's cache."""

# Winograd's F(4, 3) along time, at the points 0, 1, -1, 2, -2 and infinity.
# Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308.
_FRAMES_TO_POINTS = (
    (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
    (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
    (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
    (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
)
_TAPS_TO_POINTS = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
_POINTS_TO_FRAMES = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, -1.0, 2.0, -2.0, 0.0),
    (0.0, 1.0, 1.0, 4.0, 4.0, 0.0),
    (0.0, 1.0, -1.0, 8.0, -8.0, 1.0),
)
_BIAS_POINT = 1
"""The point whose column in `_POINTS_TO_FRAMES` is all ones: a bias added there reaches every frame once."""


@cache
def _has_onednn() -> bool:
    """Whether oneDNN's x86 kernels are there, and the calls of them that PyTorch's own compiler makes."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    )


def takes_frames(conv: nn.Conv3d, x: Tensor) -> bool:
    """Whether `convolve_frames` is the one for this convolution and input (N, C, T, H, W)."""
    return x.device.type == "cpu" and x.dtype == conv.weight.dtype == torch.float32 and not torch.is_grad_enabled()


def is_large(x: Tensor) -> bool:
    """Whether one frame of (N, C, T, H, W) is work enough for many calls; below, the calls would take the time."""
    return x.shape[1] * x.shape[3] * x.shape[4] >= _LARGE_VALUES


def keeps_channels_last(x: Tensor) -> bool:
    """Whether (N, C, T, H, W) comes from `convolve_frames` and goes to it again: then its layout is to be kept."""
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and x.is_contiguous(memory_format=torch.channels_last_3d)
        and not x.is_contiguous()
    )


def convolve_frames(conv: nn.Conv3d, past: Tensor | None, x: Tensor, *, by_fours: bool) -> Tensor:
    """Convolve (N, C, T, H, W), which comes after the frames `past` (N, C, kernel_t - stride_t, H, W).

    past: None at the start of a clip, whose first frame then stands for it.
    by_fours: whether each four frames, but for a clip's first, belong to one latent. Such four are computed together
    and no others, so that a result depends neither on how the clip is cut nor on what follows. It is channels last.
    """
    by_fours = by_fours and conv.in_channels >= _FEWEST_CHANNELS and is_large(x)
    samples = [
        _sample(conv, None if past is None else _frames(past[n]), _frames(x[n]), by_fours) for n in range(len(x))
    ]
    # [N, T', H', W', Co]
    y = samples[0][None] if len(samples) == 1 else torch.stack(samples)
    return y.permute(0, 4, 1, 2, 3)


def _frames(x: Tensor) -> Tensor:
    """(C, T, H, W) -> (T, H, W, C), contiguous."""
    return x.permute(1, 2, 3, 0).contiguous()


def _sample(conv: nn.Conv3d, past: Tensor | None, x: Tensor, by_fours: bool) -> Tensor:
    """Convolve the frames (T, H, W, C) of one sample to (T', H', W', Co), all contiguous."""
    kernel_t, stride_t = conv.kernel_size[0], conv.stride[0]
    if kernel_t == 1:
        return _convolve_2d(conv, x, conv.weight[:, :, 0], conv.bias)
    at_start = past is None
    before = x[:1].expand(kernel_t - 1, *x.shape[1:]) if past is None else past
    if stride_t > 1:
        return _skipping(conv, torch.cat([before, x]))
    if by_fours and len(x) >= 4:
        return _by_fours(conv, before, x, at_start=at_start)
    return _tap_by_tap(conv, before, x)


def _skipping(conv: nn.Conv3d, window: Tensor) -> Tensor:
    """A stride in time: `window` begins with the first output's oldest frame."""
    kernel_t, stride_t = conv.kernel_size[0], conv.stride[0]
    count = (len(window) - kernel_t) // stride_t + 1
    seen = [window[k : k + (count - 1) * stride_t + 1 : stride_t] for k in range(kernel_t)]
    out = _convolve_2d(conv, seen[0], conv.weight[:, :, 0], conv.bias)
    for k in range(1, kernel_t):
        _add_2d(conv, seen[k], conv.weight[:, :, k], out)
    return out


def _tap_by_tap(conv: nn.Conv3d, before: Tensor, x: Tensor) -> Tensor:
    """Every tap over the frames that it sees, added to the outputs that see them."""
    newest = conv.kernel_size[0] - 1
    out = _convolve_2d(conv, x, conv.weight[:, :, newest], conv.bias)
    for age in range(1, newest + 1):
        tap = conv.weight[:, :, newest - age]
        _add_2d(conv, before[newest - age :][: len(x)], tap, out[:age])
        _add_2d(conv, x[:-age], tap, out[age:])
    return out


def _by_fours(conv: nn.Conv3d, before: Tensor, x: Tensor, *, at_start: bool) -> Tensor:
    """Groups of four frames as far as they go, which a clip's first frame does not count to."""
    first = _convolve_2d(conv, x[:1], conv.weight.sum(2), conv.bias) if at_start else None
    done = 0 if first is None else 1
    shape = (first if first is not None else x).shape
    out = x.new_empty(len(x), *shape[1:3], conv.out_channels)
    if first is not None:
        out[0] = first[0]
    weights = torch.tensordot(torch.tensor(_TAPS_TO_POINTS), conv.weight, dims=([1], [2]))
    frames = [*before, *x]
    for t in range(done, len(x) - 3, 4):
        _four_frames(conv, weights, frames[t : t + 6], out[t : t + 4])
        done = t + 4
    if done < len(x):
        out[done:] = _tap_by_tap(conv, torch.stack(frames[done : done + 2]), x[done:])
    return out


def _four_frames(conv: nn.Conv3d, weights: Tensor, frames: Sequence[Tensor], out: Tensor) -> None:
    """Write four frames (4, H, W, Co) from six of (H, W, C); weights: (6, Co, C, kh, kw) at the points.

    A band of rows goes all the way before the next one, so that what lies between stays in the cache.
    """
    height, width, channels = frames[0].shape
    rows, edge = max(8, _BAND_VALUES // (width * channels)), conv.kernel_size[1] // 2
    seen = frames[0].new_empty(6, rows + 2 * edge, width, channels)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        above, below = max(0, top - edge), min(height, bottom + edge)
        # Where the picture ends within the band's reach, zeros stand for what is beyond.
        start = above - (top - edge)
        stop = start + below - above
        seen[:, :start] = 0
        seen[:, stop : bottom - top + 2 * edge] = 0
        _combine(_FRAMES_TO_POINTS, [frame[above:below] for frame in frames], seen[:, start:stop])
        band = seen[:, None, : bottom - top + 2 * edge]
        points = [
            _convolve_2d(
                conv, band[point], weights[point], conv.bias if point == _BIAS_POINT else None, pads_rows=False
            )
            for point in range(6)
        ]
        _combine(_POINTS_TO_FRAMES, points, out[:, top:bottom])


def _combine(matrix: Sequence[Sequence[float]], frames: Sequence[Tensor], out: Tensor) -> None:
    """Write the linear combinations of pieces of one size that the rows of a matrix ask for."""
    factors = torch.tensor(matrix)
    rows, sums = [frame.flatten() for frame in frames], out.flatten(1)
    for start in range(0, sums.shape[1], _CACHED_VALUES):
        part = slice(start, start + _CACHED_VALUES)
        torch.mm(factors, torch.stack([row[part] for row in rows]), out=sums[:, part])


def _convolve_2d(
    conv: nn.Conv3d, frames: Tensor, weight: Tensor, bias: Tensor | None, *, pads_rows: bool = True
) -> Tensor:
    """Convolve (T, H, W, C) with one tap (Co, C, kh, kw) to (T, H', W', Co)."""
    padding, stride, dilation, groups = _geometry(conv)
    if not pads_rows:
        padding = (0, padding[1])
    seen = frames.permute(0, 3, 1, 2)
    if _has_onednn():
        geometry = (padding, stride, dilation, groups)
        y = torch.ops.mkldnn._convolution_pointwise(seen, weight, bias, *geometry, "none", [], "")
    else:
        y = torch.cat([F.conv2d(frame, weight, bias, stride, padding, dilation, groups) for frame in seen.split(1)])
    # PyTorch's own may come in another layout.
    result: Tensor = y.permute(0, 2, 3, 1).contiguous()
    return result


def _add_2d(conv: nn.Conv3d, frames: Tensor, weight: Tensor, y: Tensor) -> None:
    """Add what `_convolve_2d` gives, without a bias, to y in its place."""
    if len(frames) and not _has_onednn():
        y += _convolve_2d(conv, frames, weight, None)
    elif len(frames):
        torch.ops.mkldnn._convolution_pointwise_(
            y.permute(0, 3, 1, 2),
            frames.permute(0, 3, 1, 2),
            weight,
            None,
            *_geometry(conv),
            "add",
            None,
            None,
            [],
            None,
        )


def _geometry(conv: nn.Conv3d) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
    """Padding, stride, dilation and groups of one tap."""
    assert not isinstance(conv.padding, str)
    return conv.padding[1:], conv.stride[1:], conv.dilation[1:], conv.groups
