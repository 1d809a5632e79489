"""What comes in from outside: checked, and cut into the steps of a clip."""

from collections.abc import Iterable, Iterator

from torch import Tensor

from ...errors import InvalidArgumentError
from ...plan.execution_plan import FRAMES_PER_STEP


def check_slices(slice_frames: int | None) -> None:
    """Raise InvalidArgumentError unless `slice_frames` is what the plain model takes."""
    if slice_frames is not None and (slice_frames < FRAMES_PER_STEP or slice_frames % FRAMES_PER_STEP):
        raise InvalidArgumentError(
            f"slice_frames: expected a positive multiple of {FRAMES_PER_STEP} (or None), got {slice_frames}."
        )


def check_frames(frames: int) -> None:
    """Raise InvalidArgumentError unless a clip has 4n+1 frames."""
    if frames % FRAMES_PER_STEP != 1:
        raise InvalidArgumentError(
            f"video: expected 4n+1 frames (1, 5, 9, ...), got {frames}; repeat the last frame to fill up."
        )


def batches(frames: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The first frame, then four at a time; the last may be fewer."""
    batch: list[Tensor] = []
    size = 1
    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield batch
            batch, size = [], FRAMES_PER_STEP
    if batch:
        yield batch


def check_input(name: str, x: Tensor, channels: int) -> None:
    if x.ndim != 5 or x.shape[1] != channels or 0 in x.shape:
        raise InvalidArgumentError(
            f"{name}: expected shape (N, {channels}, T, H, W) without empty axes, got {tuple(x.shape)}."
        )
    if not x.is_floating_point():
        raise InvalidArgumentError(f"{name}: expected floating-point numbers, got {x.dtype}; convert it first.")
