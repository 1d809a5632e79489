"""Say what a checkpoint file is, without reading its weights."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from ..models.dit.config import DiTConfig
from ..models.vae.config import VAEConfig
from .base import Checkpoint, TensorInfo
from .containers.gguf import ORIGINAL_SHAPE_KEY
from .containers.quantised import HEADER_NOTES
from .detect import detect_vae, is_dit, is_vae, vae_tensor_names
from .detect_dit import detect_dit, dit_tensor_names
from .opening import open_checkpoint
from .quoting import quoted


@dataclass(frozen=True)
class TypeUse:
    """How much of a file is stored in one type."""

    type: str
    """The file format's word: "F16", "Q8_0", ..."""
    tensors: int
    """Number of tensors."""
    parameters: int
    """Number of values."""
    nbytes: int
    """Bytes of these values in the file."""


@dataclass(frozen=True)
class CheckpointDescription:
    """What a checkpoint file is and holds; every text in it is printable."""

    path: Path
    """The file."""
    format: str
    """The container: "safetensors" or "gguf"."""
    file_bytes: int
    """Size of the file."""
    architecture: str
    """"SeedVR2 VAE", "SeedVR2 DiT" or "unknown", by the tensors alone."""
    vae: VAEConfig | None
    """The configuration, if this is a VAE whose widths can be told."""
    dit: DiTConfig | None
    """The configuration, if this is a transformer whose sizes can be told."""
    tensors: int
    """Number of tensors."""
    parameters: int
    """Number of values."""
    types: tuple[TypeUse, ...]
    """The types in use, the largest share of bytes first."""
    layouts: tuple[str, ...]
    """How shapes are kept: "native", "reshaped" (metadata names the shape), "collapsed" (nothing names it)."""
    quantised: tuple[TypeUse, ...]
    """How weights are quantised, in words (such as "INT8, a scale a row, rotated by 256"), the largest share first."""
    metadata: Mapping[str, str]
    """The file's own remarks, without original shapes and notes about single layers."""
    problems: tuple[str, ...]
    """Sentences that say why the model in the file cannot be loaded; none if names and shapes are right."""

    def to_json(self) -> str:
        """Return all of it as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str)


def describe_checkpoint(path: Path | str) -> CheckpointDescription:
    """Open the file, look at names, shapes and types, and close it; raises CheckpointError or ModelFileError."""
    with open_checkpoint(path) as checkpoint:
        architecture = "SeedVR2 DiT" if is_dit(checkpoint) else "SeedVR2 VAE" if is_vae(checkpoint) else "unknown"
        config, names, problems = _model_of(checkpoint) if architecture != "unknown" else (None, {}, ())
        shapes = {stored: config.tensor_shapes()[name] for name, stored in names.items()} if config else {}
        infos = checkpoint.tensors.values()
        return CheckpointDescription(
            path=checkpoint.path,
            format=checkpoint.format,
            file_bytes=checkpoint.path.stat().st_size,
            architecture=architecture,
            vae=config if isinstance(config, VAEConfig) else None,
            dit=config if isinstance(config, DiTConfig) else None,
            tensors=len(infos),
            parameters=sum(info.count for info in infos),
            types=_uses((info.type, info) for info in infos),
            layouts=tuple(sorted({_layout(info, shapes.get(info.name)) for info in infos})),
            quantised=_uses((info.quantisation, info) for info in infos if info.quantisation is not None),
            metadata={
                quoted(key): quoted(text)
                for key, text in checkpoint.metadata.items()
                if not key.startswith(ORIGINAL_SHAPE_KEY) and key != HEADER_NOTES
            },
            problems=problems,
        )


def _model_of(
    checkpoint: Checkpoint,
) -> tuple[VAEConfig | DiTConfig | None, Mapping[str, str], tuple[str, ...]]:
    """Return the configuration if it can be told, the tensor names if all are there, and what is wrong."""
    config: VAEConfig | DiTConfig | None = None
    try:
        if is_dit(checkpoint):
            config = detect_dit(checkpoint)
            return config, dit_tensor_names(checkpoint, config), ()
        config = detect_vae(checkpoint)
        return config, vae_tensor_names(checkpoint, config), ()
    except CheckpointError as error:
        return config, {}, (str(error),)


def _uses(infos: Iterable[tuple[str, TensorInfo]]) -> tuple[TypeUse, ...]:
    """Tensors counted by the words beside them."""
    uses: dict[str, TypeUse] = {}
    for word, info in infos:
        use = uses.get(word, TypeUse(quoted(word), 0, 0, 0))
        uses[word] = TypeUse(use.type, use.tensors + 1, use.parameters + info.count, use.nbytes + info.nbytes)
    return tuple(sorted(uses.values(), key=lambda use: (-use.nbytes, use.type)))


def _layout(info: TensorInfo, shape: tuple[int, ...] | None) -> str:
    if info.original_shape is not None and info.original_shape != info.shape:
        return "reshaped"
    return "native" if shape is None or info.shape == shape else "collapsed"
