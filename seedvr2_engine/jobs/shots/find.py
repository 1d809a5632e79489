"""Find where shots begin: cuts and fades told from flashes, light, shakes, whips, dissolves and whatever moves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..shot import Border, Shot, divided
from .likeness import change, is_faded, moved_by, new_share
from .small import SmallFrame

FLASH_FRAMES = 5
"""What returns to the same scene within so many frames was no shot of its own, but a flash or something passing by."""
NEW = 0.65
"""Share of new things at a cut, where it differs by ABOVE from what is new from frame to frame on either side."""
ABOVE = 0.25
NEW_IN_REST = 0.4
"""The same where the difference of the pictures is PEAK times that on either side."""
PEAK = 2.5
LEAST_CHANGE_LEVELS = 1.0
"""Difference of two frames in 8-bit levels below which nothing is a cut: noise, and what nobody sees."""
EMPTY_LEVELS = 1.5
"""Spread of a picture in 8-bit levels below which it is empty: black, white, one colour."""
HARD = 2.0
"""An empty frame is cut to, not faded to, if the picture changes by so many times more than on the far side."""
CLEAR = 0.6
"""Beside an empty picture those count that have this part of the spread of the one that has most."""
DASH = 0.08
"""A picture that moves by more than this part of its longer edge from frame to frame dashes: of a cut just before or
after it nothing would be seen, for blur hides it."""
SHORTEST_FRAMES = 2
"""A shorter shot, which is one frame, joins the one that follows: there it is the first frame, which the VAE keeps in a
latent of its own."""


_KEPT = 2 * FLASH_FRAMES + 4


@dataclass
class _Window:
    """The last few frames, by their number, and what they have to do with each other; computed once, when asked."""

    count: int = 0
    """Frames so far."""
    _frames: deque[tuple[SmallFrame, float, bool]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _shares: dict[tuple[int, int], float] = field(default_factory=dict)

    def add(self, frame: SmallFrame) -> None:
        before = self._frames[-1][0] if self._frames else frame
        self._frames.append((frame, change(before, frame), frame.spread < EMPTY_LEVELS))
        self.count += 1
        self._shares = {pair: share for pair, share in self._shares.items() if pair[0] >= self.first}

    @property
    def first(self) -> int:
        """Number of the oldest frame that is still here."""
        return self.count - len(self._frames)

    def has(self, *frames: int) -> bool:
        return all(self.first <= frame < self.count for frame in frames)

    def frame(self, frame: int) -> SmallFrame:
        return self._frames[frame - self.first][0]

    def change(self, frame: int) -> float:
        """From the frame before to this one, in 8-bit levels; 0 beyond the ends."""
        return self._frames[frame - self.first][1] if self.has(frame) else 0.0

    def is_empty(self, frame: int) -> bool:
        return self.has(frame) and self._frames[frame - self.first][2]

    def share(self, before: int, after: int) -> float:
        """What is new in one of two frames beside the other."""
        pair = before, after
        if pair not in self._shares:
            self._shares[pair] = new_share(self.frame(before), self.frame(after))
        return self._shares[pair]

    def dashes(self, frame: int) -> bool:
        """Whether the picture dashes just before a frame or from it on."""
        for pair in ((frame - 2, frame - 1), (frame, frame + 1)):
            if self.has(*pair) and self.share(*pair) < NEW_IN_REST:
                before, after = map(self.frame, pair)
                if max(map(abs, moved_by(before, after))) > DASH * max(before.planes.shape):
                    return True
        return False

    def unrest(self, frame: int) -> float:
        """What is new from frame to frame in the calmest place before a frame, or after it, where there is more."""
        sides = range(frame - FLASH_FRAMES, frame), range(frame + 1, frame + 1 + FLASH_FRAMES)
        return max(min((self.share(at - 1, at) for at in side if self.has(at - 1, at)), default=0.0) for side in sides)


@dataclass
class _Empty:
    """A run of empty frames that has begun."""

    start: int
    is_hard: bool
    """Whether it was cut to."""
    before: tuple[SmallFrame, ...]
    """The clearest frames before it."""
    spread: float
    """The smallest so far."""


@dataclass
class ShotFinder:
    """Takes small frames one by one, remembers a few of them, and says in the end where shots begin."""

    _window: _Window = field(default_factory=_Window)
    _borders: dict[int, Border] = field(default_factory=dict)
    _run: _Empty | None = None

    def add(self, frame: SmallFrame) -> None:
        """Take the next frame."""
        self._window.add(frame)
        self._judge(self._window.count - 1 - FLASH_FRAMES)

    def finish(self) -> tuple[Shot, ...]:
        """Return the shots of all frames, of which there must be one."""
        count = self._window.count
        for frame in range(max(0, count - FLASH_FRAMES), count):
            self._judge(frame)
        if self._run is not None and self._run.is_hard:
            self._borders[self._run.start] = "cut"
        kept: list[tuple[int, Border]] = []
        for frame, border in sorted(self._borders.items()):
            if not kept or frame - kept[-1][0] >= SHORTEST_FRAMES:
                kept.append((frame, border))
        return divided(count, kept)

    def _judge(self, frame: int) -> None:
        """Decide whether a shot begins at a frame, for which FLASH_FRAMES more are there, or all there are."""
        window = self._window
        if frame < 0:
            return
        is_empty, was_empty = window.is_empty(frame), window.is_empty(frame - 1)
        if is_empty and self._run is not None:
            self._run.spread = min(self._run.spread, window.frame(frame).spread)
        if is_empty and not was_empty:
            before = _clearest(window.frame(at) for at in range(max(window.first, frame - FLASH_FRAMES), frame))
            is_hard = frame > 0 and _is_hard(window.change(frame), window.change(frame - 1))
            self._run = _Empty(frame, is_hard, before, window.frame(frame).spread)
        elif was_empty and not is_empty:
            self._end_run(frame)
        elif frame > 0 and self._is_cut(frame):
            self._borders[frame] = "cut"

    def _is_cut(self, frame: int) -> bool:
        window, here = self._window, self._window.change(frame)
        if here < LEAST_CHANGE_LEVELS:
            return False
        is_peak = here > PEAK * max(window.change(frame - 1), window.change(frame + 1))
        needed = NEW_IN_REST if is_peak else NEW
        share = window.share(frame - 1, frame)
        is_ramp = not is_peak and is_faded(window.frame(frame - 1), window.frame(frame))
        if is_ramp or share < needed or (not is_peak and share - window.unrest(frame) < ABOVE):
            return self._is_between(frame)
        return not window.dashes(frame) and self._differ(frame, frame)

    def _is_between(self, frame: int) -> bool:
        """Whether a frame stands alone between two shots at rest: mixed of both, or neither."""
        window = self._window
        steps = window.change(frame), window.change(frame + 1)
        rest = max(window.change(frame - 1), window.change(frame + 2), LEAST_CHANGE_LEVELS)
        return window.has(frame - 1, frame + 1) and min(steps) > PEAK * rest and self._differ(frame, frame + 1)

    def _differ(self, first: int, second: int) -> bool:
        """Whether the frames just before `first` differ from those from `second` on: nothing returns."""
        window = self._window
        pairs = [(first - 1, second + on) for on in range(FLASH_FRAMES + 1)]
        pairs += [(first - back, second) for back in range(2, FLASH_FRAMES + 2)] + [(first - 3, second + 2)]
        known = [pair for pair in pairs if window.has(*pair) and not any(map(window.is_empty, pair))]
        return all(window.share(*pair) >= NEW_IN_REST for pair in known)

    def _end_run(self, stop: int) -> None:
        """Decide on a run of empty frames that ends before `stop`."""
        window, run = self._window, self._run
        assert run is not None
        self._run = None
        is_hard = _is_hard(window.change(stop), window.change(stop + 1))
        if run.start > 0 and stop - run.start <= FLASH_FRAMES:
            after = _clearest(window.frame(at) for at in range(stop, min(stop + FLASH_FRAMES, window.count)))
            if min(new_share(one, other) for one in run.before for other in after) < NEW_IN_REST:
                return  # A flash, or a blink.
            if run.is_hard or is_hard:
                self._borders[run.start if run.is_hard else stop] = "cut"
                return
        if run.is_hard:
            self._borders[run.start] = "cut"
        if is_hard:
            self._borders[stop] = "cut"
        # What is empty is no clearer before where it is night, which nothing fades to.
        clearest = max((frame.spread for frame in run.before), default=0.0)
        if run.spread < CLEAR * clearest and not (run.is_hard or is_hard):
            self._borders[(run.start + stop) // 2] = "fade"


def _is_hard(here: float, beyond: float) -> bool:
    """Whether a picture changes at once, and not in a row of changes."""
    return here > max(LEAST_CHANGE_LEVELS, HARD * beyond)


def _clearest(frames: Iterable[SmallFrame]) -> tuple[SmallFrame, ...]:
    """The frames that show most, at most three: at the dark end of a fade little can be told."""
    several = list(frames)
    most = max((frame.spread for frame in several), default=0.0)
    clear = [frame for frame in several if frame.spread >= CLEAR * most]
    return tuple(clear[:: max(1, len(clear) // 2)])
