"""Everything a training run needs to go on after an interruption, in files of bounded size, without pickle."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

SHARD_BYTES = 16_000_000
"""Largest file."""
STORED_AS = {"average": torch.float16, "momentum": torch.bfloat16, "square": torch.bfloat16}
"""Vectors that are kept with less precision than FP32; the weights are not among them."""


@dataclass
class Progress:
    """Where the schedule stands, and what has been measured on the way."""

    step: int = 0
    """Updates made."""
    seconds: float = 0.0
    """Training time spent, over all calls."""
    rows: list[dict[str, float]] = field(default_factory=list)
    """The learning curve: one row a report."""


def save_state(
    folder: Path, vectors: dict[str, Tensor], progress: Progress, *, stored_as: Mapping[str, torch.dtype] = STORED_AS
) -> None:
    """Write flat vectors as sharded safetensors, and the progress as JSON, into `folder`.

    stored_as: number formats by a vector's name; FP32 for the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, vector in vectors.items():
        stored = vector.detach().cpu().to(stored_as.get(name, torch.float32))
        for index, shard in enumerate(stored.split(SHARD_BYTES // stored.element_size())):
            save_file({name: shard.clone()}, folder / f"{name}-{index}.safetensors")
    (folder / "progress.json").write_text(json.dumps(asdict(progress)))


def load_state(folder: Path, vectors: dict[str, Tensor]) -> Progress:
    """Fill `vectors` in place from `folder` and return the progress.

    Raises FileNotFoundError if `folder` holds no state, RuntimeError if it is another model's.
    """
    progress = Progress(**json.loads((folder / "progress.json").read_text()))
    for name, vector in vectors.items():
        shards = sorted(folder.glob(f"{name}-*.safetensors"))
        if not shards:
            raise FileNotFoundError(f"{folder}: expected files {name}-*.safetensors, found none.")
        vector.copy_(torch.cat([load_file(path)[name] for path in shards]))
    return progress
