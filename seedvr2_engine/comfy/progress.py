"""The progress bar of a node, its preview pictures, and the interrupt button."""

import time
from collections.abc import Mapping

import comfy.model_management
import comfy.utils
from PIL import Image
from torch import Tensor

PREVIEW_PX = 512
PREVIEW_SECONDS = 0.5
"""The least time between two previews: each is a JPEG that every open browser gets."""
_STEPS = 1000


def check_interrupted() -> None:
    """Raise ComfyUI's exception if the user has pressed the button."""
    comfy.model_management.throw_exception_if_processing_interrupted()


class NodeProgress:
    """One node's bar over stages that advance side by side; every report also looks at the interrupt button."""

    def __init__(self, total: int, shares: Mapping[str, float] | None = None) -> None:
        """total: frames (or bytes) that each stage passes. shares: of the bar, for each stage; they add up to 1."""
        self._total = max(1, total)
        self._shares = shares or {"": 1.0}
        self._done = dict.fromkeys(self._shares, 0)
        self._bar = comfy.utils.ProgressBar(_STEPS)
        self._shown = 0.0
        self._next_preview = 0.0

    @property
    def share_done(self) -> float:
        """From 0 to 1."""
        return sum(self._shares[name] * min(1.0, done / self._total) for name, done in self._done.items())

    def step(self, done: int, stage: str = "", picture: Tensor | None = None) -> None:
        """Report that a stage has come so far. picture: (3, H, W) in [0, 1], shown now and then."""
        check_interrupted()
        self._done[stage] = max(self._done[stage], done)
        now = time.monotonic()
        preview = None
        if picture is not None and now >= self._next_preview:
            self._next_preview = now + PREVIEW_SECONDS
            preview = ("JPEG", _image(picture), PREVIEW_PX)
        self._bar.update_absolute(round(_STEPS * self.share_done), _STEPS, preview)

    def advance(self, picture: Tensor | None = None) -> None:
        """Report one more frame of the only stage; picture as in `step`."""
        self.step(self._done[""] + 1, picture=picture)

    def on_bytes(self, done: int, total: int) -> None:
        """The same for a download, whose size only its server knows."""
        self._total = max(1, total)
        self.step(done)


def _image(picture: Tensor) -> Image.Image:
    # Every so many pixels suffice: ComfyUI makes it smaller anyway.
    stride = max(1, max(picture.shape[1:]) // (2 * PREVIEW_PX))
    small = picture[:3, ::stride, ::stride].movedim(0, -1)
    return Image.fromarray((small.clamp(0, 1) * 255).byte().cpu().numpy())
