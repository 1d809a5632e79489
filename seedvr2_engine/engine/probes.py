"""Small procedural clips on which weights are measured when they are loaded; the same in every process."""

import torch
from torch import Tensor


def probe_clips(size: int = 192) -> Tensor:
    """Two procedural clips (2, 3, 5, size, size) in [-1, 1], FP32: a scene and a page."""
    return torch.cat([probe_clip(size), probe_page(size)])


def probe_clip(size: int = 192) -> Tensor:
    """A procedural clip (1, 3, 5, size, size) in [-1, 1], FP32: gradients, edges, texture, a dark corner, motion."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    texture = torch.rand(3, size // 2, size // 2, generator=torch.Generator().manual_seed(0))
    texture = texture.repeat_interleave(2, 1).repeat_interleave(2, 2)
    frames = []
    for t in range(5):
        shift = 3 * t
        stripes = ((rows + columns + shift) // 6 % 2).float()
        ramp = torch.stack([rows / size, columns / size, (rows + columns) / (2 * size)])
        inside = (((rows - 0.4 * size).square() + (columns - 0.3 * size - shift).square()).sqrt() < 0.25 * size).float()
        frame = ramp * (1 - inside) + inside * torch.stack([stripes, 1 - stripes, 0.3 + 0.4 * stripes])
        corner = ((rows > 0.6 * size) & (columns > 0.55 * size)).float()
        frame = frame * (1 - corner) + corner * (0.05 + 0.5 * texture.roll(shift, 2))
        frames.append(frame)
    return torch.stack(frames, dim=1)[None] * 2 - 1


def probe_page(size: int = 192) -> Tensor:
    """A clip (1, 3, 5, size, size) in [-1, 1] like print: lines of dark strokes on white, of three sizes, scrolling."""
    generator = torch.Generator().manual_seed(1)
    page = torch.ones(size, size + 8)
    top = 4
    for height in (8, 12, 20) * (size // 48):
        width = max(1, height // 6)
        strokes = torch.rand(height // width, page.shape[1] // width, generator=generator) < 0.4
        line = strokes.repeat_interleave(width, 0).repeat_interleave(width, 1)
        block = page[top : top + line.shape[0], : line.shape[1]]
        block[line[: block.shape[0]]] = 0.1
        top += height * 3 // 2
    frames = [page[:, 2 * t : 2 * t + size] for t in range(5)]
    return torch.stack(frames)[None, None].expand(1, 3, -1, -1, -1) * 2 - 1
