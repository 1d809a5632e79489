"""What comes in from outside, for the plain model and the engine alike: checked, and cut into slices of time."""

from collections.abc import Iterable, Iterator

from torch import Tensor

from ...errors import InvalidArgumentError


def check_input(name: str, x: Tensor, channels: int) -> None:
    """Raise InvalidArgumentError unless x is (N, channels, T, H, W), floating, without empty axes."""
    if x.ndim != 5 or x.shape[1] != channels or 0 in x.shape:
        raise InvalidArgumentError(
            f"{name}: expected shape (N, {channels}, T, H, W) without empty axes, got {tuple(x.shape)}."
        )
    if not x.is_floating_point():
        raise InvalidArgumentError(f"{name}: expected floating-point numbers, got {x.dtype}; convert it first.")


def check_frames(frames: int, compression: int) -> None:
    """Raise InvalidArgumentError unless a clip has one frame and then whole latent frames of `compression`."""
    if frames % compression != 1:
        raise InvalidArgumentError(
            f"video: expected 4n+1 frames (1, 5, 9, ...), got {frames}; repeat the last frame to fill up."
        )


def check_slices(slice_frames: int | None, compression: int) -> None:
    """Raise InvalidArgumentError unless slices hold whole latent frames of `compression`; None is the whole clip."""
    if slice_frames is not None and (slice_frames < compression or slice_frames % compression):
        raise InvalidArgumentError(
            f"slice_frames: expected a positive multiple of {compression} (or None), got {slice_frames}."
        )


def batches(items: Iterable[Tensor], *, first: int, rest: int) -> Iterator[list[Tensor]]:
    """The first so many items, then as many at a time as the rest; the last batch may hold fewer."""
    batch: list[Tensor] = []
    size = first
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch, size = [], rest
    if batch:
        yield batch
