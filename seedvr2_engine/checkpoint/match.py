"""Compare a checkpoint's tensors with the names and shapes that a model needs."""

from collections.abc import Mapping, Sequence
from math import prod

from ..errors import CheckpointError
from ..models.vae.config import Shape
from .base import Checkpoint, TensorInfo
from .quoting import quoted

_LISTED = 10  # names in one message


def match_tensors(
    checkpoint: Checkpoint, names: Mapping[str, str], shapes: Mapping[str, Shape], model: str
) -> dict[str, str]:
    """Map every name in `shapes` to the name in the file, and nothing else.

    names: the model's name of each of the file's tensors -> its name in the file. model: what the shapes belong to, for
    messages. Raises CheckpointError that names what is missing, what is too much, and what has another shape. In a
    GGUF file a tensor may have fewer axes than the model's: any such shape of the right element count will do, because
    collapsing keeps the order of the values.
    """
    missing = [name for name in shapes if name not in names]
    extra = [quoted(stored) for name, stored in names.items() if name not in shapes]
    wrong = []
    for name, shape in shapes.items():
        if name in names and not _fits(info := checkpoint.tensors[names[name]], shape, checkpoint.format):
            wrong.append(f"{name}: expected {shape}, got {info.original_shape or info.shape}")
    problems = [
        f"{len(items)} {what} ({listed(items, separator)})"
        for items, what, separator in (
            (missing, "missing", ", "),
            (extra, "unknown", ", "),
            (wrong, "of another shape", "; "),
        )
        if items
    ]
    if problems:
        raise CheckpointError(
            f"{checkpoint.path}: expected the {len(shapes)} tensors of {model}, found {', '.join(problems)}; "
            "the file is incomplete or holds another model."
        )
    return {name: names[name] for name in shapes}


def listed(items: Sequence[str], separator: str = ", ") -> str:
    """The first few items, and how many more there are."""
    more = len(items) - _LISTED
    return separator.join(items[:_LISTED]) + (f"{separator}and {more} more" if more > 0 else "")


def _fits(info: TensorInfo, shape: Shape, file_format: str) -> bool:
    stored = info.original_shape or info.shape
    collapsed = file_format == "gguf" and info.original_shape is None and len(stored) < len(shape)
    return stored == shape or (collapsed and prod(stored) == prod(shape))
