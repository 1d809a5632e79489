"""Moving clips: a rotating bank of still canvases, filmed through moving layers, a camera and a lens.

Canvases are drawn, or cut from photographs where the user has some (`photographs`). Drawing one is slow, sampling
crops of it is fast. So the bank redraws one canvas at a time, and every
clip is a background and up to three masked objects, each a moving, zooming, turning crop of some canvas,
followed by what a camera adds: colour balance, exposure, defocus, flicker, cuts and grain.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.canvas import draw_canvas, draw_texture_canvas
from training.lines import draw_lines
from training.textures import log_uniform, texture_bank, uniform

LAYERS = 3
"""Objects in front of the background, each present with probability one half."""
FASTEST_PX = 40.0
"""Largest speed of the fast quarter of paths, in frame pixels a frame; the others have up to 12."""


@dataclass(frozen=True)
class ClipShape:
    """A batch of clips: `count` clips of `frames` frames of `height` x `width` pixels."""

    count: int
    frames: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Pixels of the whole batch, all frames counted."""
        return self.count * self.frames * self.height * self.width


@dataclass(frozen=True)
class Motion:
    """Path of N crops over T frames: where frame pixels lie on the canvas."""

    centre: Tensor
    """(N, T, 2), canvas pixels (x, y)."""
    scale: Tensor
    """(N, T), canvas pixels a frame pixel."""
    angle: Tensor
    """(N, T), radians."""

    def canvas_points(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Canvas coordinates of frame pixels x, y measured from the frame's centre; (N, T, H, W) each."""
        cos = (torch.cos(self.angle) * self.scale)[..., None, None]
        sin = (torch.sin(self.angle) * self.scale)[..., None, None]
        cx, cy = self.centre[..., 0, None, None], self.centre[..., 1, None, None]
        return cx + x * cos - y * sin, cy + x * sin + y * cos


class SceneBank:
    """Canvases and textures on one device, from which clips are filmed; seeded and renewable."""

    def __init__(
        self,
        rng: torch.Generator,
        *,
        canvases: int = 24,
        size_px: int = 1024,
        photographs: Sequence[Tensor] = (),
        fast: bool = False,
        lines: bool = False,
    ) -> None:
        """Draw the first `canvases` canvases of `size_px` pixels with `rng`, on the generator's device.

        photographs: uint8 (3, H, W); half of the canvases are cut from them. fast: a quarter of all paths is fast, and
        lights flash. lines: a third of the canvases has thin lines and letters drawn over it.
        """
        self.rng = rng
        self.size_px = size_px
        self.photographs = photographs
        self.fast = fast
        self.lines = lines
        self.textures = self._draw_textures()
        self.canvases = torch.stack([self._draw(i) for i in range(canvases)])
        self._next = 0

    def _draw_textures(self) -> Tensor:
        return texture_bank(self.rng, per_family=8, size_px=min(512, self.size_px))

    def _draw(self, index: int) -> Tensor:
        canvas = self._draw_plain(index)
        return draw_lines(self.rng, canvas, self.textures) if self.lines and index % 3 == 1 else canvas

    def _draw_plain(self, index: int) -> Tensor:
        if self.photographs and index % 2:
            choice = int(torch.randint(len(self.photographs), (), generator=self.rng, device=self.rng.device))
            return cut_canvas(self.rng, self.photographs[choice], self.size_px)
        if index % 6 == 5 or (self.photographs and index % 6 == 4):
            return draw_texture_canvas(self.rng, self.size_px)
        return draw_canvas(self.rng, self.size_px, self.textures)

    def renew(self) -> None:
        """Redraw the oldest canvas; after a whole round the textures are redrawn as well."""
        if self._next == len(self.canvases):
            self.textures = self._draw_textures()
            self._next = 0
        self.canvases[self._next] = self._draw(self._next)
        self._next += 1

    def film(self, shape: ClipShape) -> Tensor:
        """A batch of clips (N, 3, T, H, W), float32 in [-1, 1]."""
        video = self._layers(shape)
        video = develop(self.rng, video, flashes=self.fast)
        return video.clamp(0, 1) * 2 - 1

    def _layers(self, shape: ClipShape) -> Tensor:
        n, size = shape.count, float(self.size_px)
        device = self.rng.device
        x = torch.arange(shape.width, device=device) - (shape.width - 1) / 2
        y = torch.arange(shape.height, device=device)[:, None] - (shape.height - 1) / 2
        camera = random_motion(self.rng, shape, size, fast=self.fast)
        video = self._crop(camera.canvas_points(x, y))
        for _ in range(LAYERS):
            own = random_motion(self.rng, shape, size, fast=self.fast)
            # An object moves on its own half of the time, else it drifts with the camera at its own depth.
            free = (uniform(self.rng, (n, 1, 1)) < 0.5).float()
            own = Motion(
                centre=own.centre * free + (own.centre[:, :1] + camera.centre - camera.centre[:, :1]) * (1 - free),
                scale=own.scale,
                angle=own.angle,
            )
            points = own.canvas_points(x, y)
            mask = self._mask(own, points, shape)
            video = torch.lerp(video, self._crop(points), mask)
        return video

    def _crop(self, points: tuple[Tensor, Tensor]) -> Tensor:
        """Sample one random canvas per clip at canvas points (N, T, H, W); the result is (N, 3, T, H, W)."""
        n, frames, height, width = points[0].shape
        choice = torch.randint(0, len(self.canvases), (n,), generator=self.rng, device=self.rng.device)
        return sample_bilinear(self.canvases[choice], points).view(n, -1, frames, height, width)

    def _mask(self, motion: Motion, points: tuple[Tensor, Tensor], shape: ClipShape) -> Tensor:
        """Coverage in [0, 1] of one object per clip, fixed to the object's canvas; (N, 1, T, H, W)."""
        n, rng = shape.count, self.rng
        edge = min(shape.height, shape.width)
        spread = uniform(rng, (n, 1, 2), -0.4, 0.4) * torch.tensor([shape.width, shape.height], device=rng.device)
        middle = motion.centre[:, shape.frames // 2, None] + spread * motion.scale[:, :1, None]
        dx = points[0] - middle[..., 0, None, None]
        dy = points[1] - middle[..., 1, None, None]
        scale = motion.scale[:, :1, None, None]
        radius = log_uniform(rng, (n, 1, 1, 1), 0.06, 0.5) * edge * scale
        aspect = log_uniform(rng, (n, 1, 1, 1), 0.35, 1.0)
        box = uniform(rng, (n, 1, 1, 1)) < 0.35
        u, v = dx.abs(), dy.abs() / aspect
        distance = torch.where(box, torch.maximum(u, v), torch.sqrt(u * u + v * v))
        choice = torch.randint(0, len(self.textures), (n,), generator=rng, device=rng.device)
        rough = sample_bilinear(self.textures[choice, None], (points[0] * 0.5, points[1] * 0.5))[:, 0]
        roughness = uniform(rng, (n, 1, 1, 1), -0.15, 0.25).clamp_min(0)
        inside = radius - distance + rough.view_as(distance) * roughness * radius
        softness = log_uniform(rng, (n, 1, 1, 1), 0.7, 4.0) * scale
        present = uniform(rng, (n, 1, 1, 1)) < 0.5
        return (torch.sigmoid(inside / softness * 2) * present)[:, None]


def sample_bilinear(images: Tensor, points: tuple[Tensor, Tensor]) -> Tensor:
    """Sample images (N, C, P, P) at pixel points (N, T, H, W), mirrored at the edges; (N, C, T * H, W)."""
    size = images.shape[-1]
    grid = torch.stack(points, dim=-1).flatten(1, 2) * (2 / size) - 1
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def cut_canvas(rng: torch.Generator, photograph: Tensor, size_px: int) -> Tensor:
    """A photograph (uint8 (3, H, W)) made smaller, turned, and mirrored until it fills (3, size_px, size_px); [0, 1].

    Its shorter edge becomes 30 to 100 % of the canvas: a whole view has the fine detail that a close look has not.
    """
    height, width = photograph.shape[1:]
    factor = min(1.0, size_px * float(log_uniform(rng, (1,), 0.3, 1.0)) / min(height, width))
    small = (max(2, round(height * factor)), max(2, round(width * factor)))
    picture = photograph.to(rng.device, torch.float32)[None] / 255
    picture = F.interpolate(picture, size=small, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
    turns = int(torch.randint(8, (), generator=rng, device=rng.device))
    picture = torch.rot90(picture, turns % 4, (1, 2))
    picture = picture.flip(2) if turns > 3 else picture
    for dim in (1, 2):
        length = picture.shape[dim]
        start = int(torch.randint(2 * length, (), generator=rng, device=rng.device))
        at = (torch.arange(size_px, device=rng.device) + start) % (2 * length)
        picture = picture.index_select(dim, torch.minimum(at, 2 * length - 1 - at))
    return picture


def random_motion(rng: torch.Generator, shape: ClipShape, canvas_px: float, *, fast: bool = False) -> Motion:
    """Paths for the clips of `shape`: a fifth stand still, the others pan, bend, zoom, turn or shake.

    fast: a quarter of the paths has up to FASTEST_PX a frame, and half of those whip: they rest, dash, and rest again.
    """
    n, frames = shape.count, shape.frames
    time = torch.arange(frames, device=rng.device, dtype=torch.float32)[None, :]
    moving = (uniform(rng, (n, 1)) < 0.8).float()
    scale0 = log_uniform(rng, (n, 1), 0.5, 1.8)
    zoom = torch.randn((n, 1), generator=rng, device=rng.device) * 0.006 * moving
    turning = (uniform(rng, (n, 1)) < 0.4).float() * moving
    turn = torch.randn((n, 1), generator=rng, device=rng.device) * 0.012 * turning
    upright = (uniform(rng, (n, 1)) < 0.4).float()
    angle0 = uniform(rng, (n, 1), -math.pi, math.pi) * (1 - upright)
    speed = log_uniform(rng, (n, 1, 1), 0.08, 12.0) * moving[..., None]
    heading = uniform(rng, (n, 1), 0, 2 * math.pi)
    direction = torch.stack([torch.cos(heading), torch.sin(heading)], dim=-1)
    progress = time.expand(n, frames)
    if fast:
        quick = (uniform(rng, (n, 1)) < 0.25).float()
        speed = torch.lerp(speed, log_uniform(rng, (n, 1, 1), 6.0, FASTEST_PX), quick[..., None])
        whip = quick * (uniform(rng, (n, 1)) < 0.5).float()
        middle = uniform(rng, (n, 1), 0.1, 0.9) * frames
        dash = torch.sigmoid((time - middle) / log_uniform(rng, (n, 1), 0.5, 2.0)) * 6
        progress = torch.lerp(progress, dash, whip)
    bend = torch.randn((n, 1, 2), generator=rng, device=rng.device) * 0.03 * speed.clamp_max(12)
    shake = torch.randn((n, frames, 2), generator=rng, device=rng.device).cumsum(1)
    shake = shake * log_uniform(rng, (n, 1, 1), 0.02, 0.5) * (uniform(rng, (n, 1, 1)) < 0.3) * moving[..., None]
    path = direction * speed * progress[..., None] + bend * time[..., None].clamp_max(24) ** 2 + shake
    start = uniform(rng, (n, 1, 2), 0.15, 0.85) * canvas_px
    scale = scale0 * torch.exp(zoom * time)
    return Motion(start + path * scale0[..., None], scale, angle0 + turn * time)


def develop(rng: torch.Generator, video: Tensor, *, flashes: bool = False) -> Tensor:
    """What the camera does to a batch (N, 3, T, H, W) of [0, 1]: light, colour, lens, cuts, flicker, grain."""
    video = _expose(rng, video)
    if flashes:
        video = _flash(rng, video)
    video = _defocus(rng, video)
    video = _cut(rng, video)
    return _grain(rng, video)


def _some(rng: torch.Generator, count: int, probability: float) -> Tensor:
    """1.0 for about `probability` of the clips, else 0.0; (N, 1, 1, 1, 1)."""
    return (uniform(rng, (count, 1, 1, 1, 1)) < probability).float()


def _expose(rng: torch.Generator, video: Tensor) -> Tensor:
    n, _, frames, height, width = video.shape
    grey = video.mean(1, keepdim=True)
    saturation = 1 + _some(rng, n, 0.5) * uniform(rng, (n, 1, 1, 1, 1), -1.0, 0.9)
    video = grey + (video - grey) * saturation
    # Automatic exposure, not perfect: pulls the mean brightness most of the way to a target.
    target = uniform(rng, (n, 1, 1, 1, 1), 0.2, 0.62)
    video = video * (target / video.mean((1, 2, 3, 4), keepdim=True).clamp_min(0.02)) ** 0.8
    gamma = log_uniform(rng, (n, 1, 1, 1, 1), 0.7, 1.4)
    video = video.clamp(1e-4, 1) ** gamma
    balance = torch.exp(torch.randn((n, 3, 1, 1, 1), generator=rng, device=rng.device) * 0.08)
    exposure = torch.exp(torch.randn((n, 1, 1, 1, 1), generator=rng, device=rng.device) * 0.1)
    night = 1 - _some(rng, n, 0.1) * uniform(rng, (n, 1, 1, 1, 1), 0.4, 0.9)
    flicker = torch.randn((n, 1, frames, 1, 1), generator=rng, device=rng.device) * 0.05
    gain = balance * exposure * night * torch.exp(flicker * _some(rng, n, 0.08))
    x = torch.linspace(-1, 1, width, device=rng.device)
    y = torch.linspace(-1, 1, height, device=rng.device)[:, None]
    slope = torch.randn((2, n, 1, 1, 1, 1), generator=rng, device=rng.device) * 0.12
    vignette = _some(rng, n, 0.3) * uniform(rng, (n, 1, 1, 1, 1), 0.0, 0.35)
    light = torch.exp(slope[0] * x + slope[1] * y - vignette * (x * x + y * y))
    contrast = uniform(rng, (n, 1, 1, 1, 1), 0.75, 1.25)
    lifted = uniform(rng, (n, 1, 1, 1, 1), -0.06, 0.06)
    return ((video * gain * light - 0.4) * contrast + 0.4 + lifted).clamp(0, 1)


def _flash(rng: torch.Generator, video: Tensor) -> Tensor:
    """In a tenth of the clips one frame in eight is far brighter, or black."""
    n, _, frames = video.shape[:3]
    lit = _some(rng, n, 0.1) * (uniform(rng, (n, 1, frames, 1, 1)) < 0.125).float()
    gain = torch.where(uniform(rng, (n, 1, 1, 1, 1)) < 0.2, 0.0, log_uniform(rng, (n, 1, 1, 1, 1), 1.3, 4.0))
    return (video * (1 + lit * (gain - 1))).clamp(0, 1)


def _defocus(rng: torch.Generator, video: Tensor) -> Tensor:
    n, channels, frames, height, width = video.shape
    reach = 6
    sigma = log_uniform(rng, (n, 1), 0.5, 2.5) * (uniform(rng, (n, 1)) < 0.25) + 0.08
    axis = torch.arange(-reach, reach + 1, device=rng.device)
    kernel = torch.softmax(-((axis / sigma) ** 2) / 2, dim=1)[:, None, :]
    rows = video.transpose(0, 1).reshape(channels, n, frames * height, width)
    rows = F.conv2d(F.pad(rows, (reach, reach, 0, 0), mode="replicate"), kernel[:, :, None, :], groups=n)
    columns = rows.view(channels, n, frames, height, width).transpose(1, 2).reshape(-1, n, height, width)
    columns = F.conv2d(F.pad(columns, (0, 0, reach, reach), mode="replicate"), kernel[:, :, :, None], groups=n)
    return columns.view(channels, frames, n, height, width).permute(2, 0, 1, 3, 4)


def _cut(rng: torch.Generator, video: Tensor) -> Tensor:
    n, _, frames = video.shape[:3]
    if frames == 1:
        return video
    other = video.roll(1, dims=0)
    at = torch.randint(1, frames, (n, 1, 1, 1, 1), generator=rng, device=rng.device)
    after = (torch.arange(frames, device=rng.device).view(1, 1, -1, 1, 1) >= at).float()
    return torch.lerp(video, other, after * _some(rng, n, 0.06))


def _grain(rng: torch.Generator, video: Tensor) -> Tensor:
    n, channels, frames, height, width = video.shape
    white = torch.randn(video.shape, generator=rng, device=rng.device)
    soft = F.avg_pool2d(white.reshape(n * channels, frames, height, width), 3, 1, 1).view_as(white) * 2.5
    coarse = _some(rng, n, 0.5)
    strength = log_uniform(rng, (n, 1, 1, 1, 1), 0.002, 0.03) * _some(rng, n, 0.4)
    shade = 0.4 + 1.6 * video * (1 - video) * 2
    return video + torch.lerp(white, soft, coarse) * strength * shade
