"""Made clips of every kind, with the frames at which shots begin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.shots.scenes import SIZE, Scenes, film


@dataclass(frozen=True)
class MadeClip:
    """Frames, and what is true of them."""

    frames: Tensor
    """uint8 (T,3,H,W)."""
    borders: tuple[tuple[int, int], ...] = ()
    """For every border the first and the last frame at which a shot may be said to begin."""


@dataclass
class _Cutting:
    """Pieces put one after the other."""

    pieces: list[Tensor] = field(default_factory=list)
    borders: list[tuple[int, int]] = field(default_factory=list)

    @property
    def length(self) -> int:
        return sum(map(len, self.pieces))

    def cut(self, piece: Tensor) -> None:
        """What follows is another shot."""
        if self.pieces:
            self.borders.append((self.length,) * 2)
        self.pieces.append(piece)

    def join(self, piece: Tensor) -> None:
        """What follows is still the same shot."""
        self.pieces.append(piece)

    def clip(self, scenes: Scenes, grain: float = 0.01) -> MadeClip:
        frames = torch.cat(self.pieces)
        frames = frames + torch.randn(frames.shape, generator=scenes.rng) * grain
        return MadeClip((frames * 255).round().clamp(0, 255).to(torch.uint8), tuple(self.borders))


def _still(scenes: Scenes, low: int = 14, high: int = 30, **how: float) -> Tensor:
    return film(scenes.pick(1)[0], scenes.drift(scenes.whole(low, high), **how))


def hard_cuts(scenes: Scenes) -> MadeClip:
    """Shots of different scenes."""
    made = _Cutting()
    for canvas in scenes.pick(6):
        made.cut(film(canvas, scenes.drift(scenes.whole(8, 30))))
    return made.clip(scenes)


def like_scenes(scenes: Scenes) -> MadeClip:
    """Other views of the same place: the same colours and textures."""
    made, canvas = _Cutting(), scenes.pick(1)[0]
    for x, y in ((140, 100), (480, 520), (150, 500), (500, 120)):
        path = scenes.drift(scenes.whole(10, 24))
        made.cut(film(canvas, type(path)(path.centre - path.centre[0] + torch.tensor([x, y]), path.scale)))
    return made.clip(scenes)


def moving_cuts(scenes: Scenes) -> MadeClip:
    """Cuts between fast pans."""
    made = _Cutting()
    for canvas in scenes.pick(5):
        made.cut(film(canvas, scenes.drift(scenes.whole(10, 24), speed_px=scenes.number(5, 14))))
    return made.clip(scenes)


def dark_cuts(scenes: Scenes) -> MadeClip:
    """Cuts in the dark: up to a tenth of white, with noise."""
    made = _Cutting()
    for canvas in scenes.pick(5):
        made.cut(film(canvas, scenes.drift(scenes.whole(8, 24))) * scenes.number(0.05, 0.1))
    return made.clip(scenes, grain=0.008)


def grainy_cuts(scenes: Scenes) -> MadeClip:
    """Cuts under heavy noise."""
    made = _Cutting()
    for canvas in scenes.pick(5):
        made.cut(film(canvas, scenes.drift(scenes.whole(8, 24))))
    return made.clip(scenes, grain=0.08)


def short_shots(scenes: Scenes) -> MadeClip:
    """Shots of two to six frames between longer ones."""
    made = _Cutting()
    for index, canvas in enumerate(scenes.pick(8)):
        made.cut(film(canvas, scenes.drift(scenes.whole(2, 6) if index % 2 else scenes.whole(8, 16))))
    return made.clip(scenes)


def single_frames(scenes: Scenes) -> MadeClip:
    """Shots of one frame between longer ones: each counts as the first frame of what follows."""
    made = _Cutting()
    for index, canvas in enumerate(scenes.pick(7)):
        piece = film(canvas, scenes.drift(1 if index % 2 else scenes.whole(10, 16)))
        if index and index % 2 == 0:
            made.join(piece)
        else:
            made.cut(piece)
    return made.clip(scenes)


def blended_cuts(scenes: Scenes) -> MadeClip:
    """Cuts with one frame mixed of both shots, as conversions of frame rates leave them."""
    made = _Cutting()
    for canvas in scenes.pick(5):
        piece = film(canvas, scenes.drift(scenes.whole(10, 20)))
        if made.pieces:
            piece[0] = torch.lerp(made.pieces[-1][-1], piece[0], scenes.number(0.3, 0.7))
            made.borders.append((made.length, made.length + 1))
            made.join(piece)
        else:
            made.cut(piece)
    return made.clip(scenes)


def text_cuts(scenes: Scenes) -> MadeClip:
    """Pages of text, each still, one after the other."""
    made = _Cutting()
    for index in range(5):
        made.cut(film(scenes.text[0], scenes.drift(scenes.whole(8, 20), speed_px=0.2 * (index % 2))))
    return made.clip(scenes)


def _faded(scenes: Scenes, level: float) -> MadeClip:
    made = _Cutting()
    for index, canvas in enumerate(scenes.pick(4)):
        piece = film(canvas, scenes.drift(scenes.whole(26, 36)))
        inwards, outwards = torch.ones(len(piece)), torch.ones(len(piece))
        ramp = scenes.whole(5, 12)
        if index:
            inwards[:ramp] = torch.linspace(0, 1, ramp)
        if index < 3:
            outwards[-ramp:] = torch.linspace(1, 0, ramp)
        piece = level + (piece - level) * (inwards * outwards)[:, None, None, None]
        if index:
            hold = scenes.whole(0, 10)
            made.borders.append((made.length - 2, made.length + hold + 1))
            made.join(torch.full((hold, 3, *SIZE), level))
        made.join(piece)
    return made.clip(scenes, grain=0.006)


def fades_black(scenes: Scenes) -> MadeClip:
    """Fades out to black and in again."""
    return _faded(scenes, 0.0)


def fades_white(scenes: Scenes) -> MadeClip:
    """The same with white."""
    return _faded(scenes, 1.0)


def black_between(scenes: Scenes) -> MadeClip:
    """Cuts to black, and out of it."""
    made = _Cutting()
    for canvas in scenes.pick(3):
        made.cut(film(canvas, scenes.drift(scenes.whole(10, 20))))
        made.cut(torch.zeros(scenes.whole(6, 14), 3, *SIZE))
    return made.clip(scenes, grain=0.006)


def cut_in_flash(scenes: Scenes) -> MadeClip:
    """A white frame between two shots: the first frame of the second."""
    made = _Cutting()
    for canvas in scenes.pick(5):
        if made.pieces:
            made.cut(torch.full((1, 3, *SIZE), scenes.number(0.9, 1)))
            made.join(film(canvas, scenes.drift(scenes.whole(10, 20))))
        else:
            made.cut(film(canvas, scenes.drift(scenes.whole(10, 20))))
    return made.clip(scenes)


def dissolves(scenes: Scenes) -> MadeClip:
    """One scene becomes another within 8 to 24 frames: one shot, for nothing ever ends."""
    made, before = _Cutting(), None
    for canvas in scenes.pick(4):
        piece = film(canvas, scenes.drift(40))
        length = scenes.whole(8, 24)
        if before is not None:
            shares = torch.linspace(0, 1, len(before))[:, None, None, None]
            made.join(torch.lerp(before, piece[: len(before)], shares))
            piece = piece[len(before) :]
        before = piece[len(piece) - min(length, len(piece) - 2) :]
        made.join(piece[: len(piece) - len(before)])
    return made.clip(scenes)


def flashes(scenes: Scenes) -> MadeClip:
    """Photographers' flashes of one to three frames, weak and strong, whole and from one side."""
    frames = _still(scenes, 60, 60)
    side = torch.linspace(0, 1, SIZE[1])
    for begin in range(6, 56, 8):
        count = scenes.whole(1, 3)
        strength = scenes.number(0.3, 3) * (side if scenes.whole(0, 1) else 1)
        frames[begin : begin + count] = frames[begin : begin + count] * (1 + strength) + 0.1 * strength
    return _Cutting([frames.clamp(0, 1)]).clip(scenes)


def white_flashes(scenes: Scenes) -> MadeClip:
    """One to three frames of white in one scene."""
    frames = _still(scenes, 48, 48)
    for begin in range(6, 44, 9):
        frames[begin : begin + scenes.whole(1, 3)] = scenes.number(0.92, 1)
    return _Cutting([frames]).clip(scenes)


def strobes(scenes: Scenes) -> MadeClip:
    """Light that goes on and off every one to three frames, in colours."""
    frames, period = _still(scenes, 48, 48), scenes.whole(1, 3)
    for index in range(len(frames)):
        if index // period % 2:
            color = torch.rand(3, generator=scenes.rng)[:, None, None]
            frames[index] = frames[index] * 0.15 * (1 + color)
    return _Cutting([frames]).clip(scenes)


def lights(scenes: Scenes) -> MadeClip:
    """Lamps that are switched on or off: brighter or darker from one frame on."""
    frames = _still(scenes, 48, 48)
    for begin in (16, 32):
        frames[begin:] = frames[begin:] * scenes.number(0.35, 0.6) if begin == 16 else frames[begin:] * 1.8
    return _Cutting([frames.clamp(0, 1)]).clip(scenes)


def pans(scenes: Scenes) -> MadeClip:
    """Even pans of 4 to 16 pixels a frame."""
    return _Cutting([_still(scenes, 30, 40, speed_px=scenes.number(4, 16))]).clip(scenes)


def zooms(scenes: Scenes) -> MadeClip:
    """Fast zooms, in and out."""
    zoom = scenes.number(0.02, 0.06) * (1 if scenes.whole(0, 1) else -1)
    return _Cutting([_still(scenes, 20, 24, zoom=zoom)]).clip(scenes)


def whips(scenes: Scenes) -> MadeClip:
    """A camera that rests, dashes 20 to 70 pixels a frame for 4 to 8 frames, blurred, and rests."""
    path = scenes.whipped(scenes.drift(36), 14, scenes.whole(4, 8), scenes.number(20, 70))
    return _Cutting([film(scenes.pick(1)[0], path, shutter=1.0)]).clip(scenes)


def shakes(scenes: Scenes) -> MadeClip:
    """A hand that shakes: up to 4 to 16 pixels anywhere from frame to frame."""
    path = scenes.shaken(scenes.drift(40), scenes.number(4, 16))
    return _Cutting([film(scenes.pick(1)[0], path)]).clip(scenes)


def crossings(scenes: Scenes) -> MadeClip:
    """Something large passes close to the camera within 5 to 9 frames."""
    canvas, near = scenes.pick(2)
    frames = film(canvas, scenes.drift(40, speed_px=0.5))
    count, width = scenes.whole(5, 9), scenes.number(0.4, 0.9) * SIZE[1]
    speed = (SIZE[1] + width) / count
    front = film(near, scenes.drift(count, speed_px=speed / 2))
    columns = torch.arange(SIZE[1])
    for index in range(count):
        left = -width + speed * (index + 0.5)
        inside = ((columns - left) / 12).clamp(0, 1) * ((left + width - columns) / 12).clamp(0, 1)
        frames[16 + index] = torch.lerp(frames[16 + index], front[index], inside)
    return _Cutting([frames]).clip(scenes)


def still_text(scenes: Scenes) -> MadeClip:
    """Text that stands still, and letters that come and go over a scene."""
    frames = _still(scenes, 40, 40, speed_px=0.5)
    page = film(scenes.text[1], scenes.drift(1))[0]
    letters = (page - 0.05).clamp(0, 1)
    letters[:, : SIZE[0] * 3 // 4] = 0
    frames[10:28] = torch.maximum(frames[10:28], letters)
    return _Cutting([frames]).clip(scenes)


KINDS: dict[str, Callable[[Scenes], MadeClip]] = {
    maker.__name__.replace("_", " "): maker
    for maker in (
        hard_cuts,
        like_scenes,
        moving_cuts,
        dark_cuts,
        grainy_cuts,
        short_shots,
        single_frames,
        blended_cuts,
        text_cuts,
        fades_black,
        fades_white,
        black_between,
        cut_in_flash,
        dissolves,
        flashes,
        white_flashes,
        strobes,
        lights,
        pans,
        zooms,
        whips,
        shakes,
        crossings,
        still_text,
    )
}
