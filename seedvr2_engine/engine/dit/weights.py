"""From a checkpoint to a transformer whose large weights are kept packed or on the host."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...checkpoint.base import Checkpoint
from ...checkpoint.detect import load_finite
from ...checkpoint.detect_dit import dit_tensor_names
from ...errors import CheckpointError
from ...models.dit.config import DiTConfig
from ...models.dit.model import NaDiT
from ...models.vae.config import Shape
from ...quant.quantize import BlockScaledTensor
from .block_images import PACKED_TYPES, SCALES, BlockImage, Weight
from .quantized import BlockFormat, matrix_of, quantize
from .streamed import StreamedDiT

LARGEST_SHARE = 0.35
"""Of a GPU's memory; a transformer that takes more leaves its blocks on the host without being asked. A larger share is
worth more to the activations: 7 GB of blocks pass a PCIe 4 bus in 0.3 s a chunk."""


def is_packed(checkpoint: Checkpoint) -> bool:
    """Whether the file holds weights that can be kept packed."""
    return any(info.type in PACKED_TYPES for info in checkpoint.tensors.values())


def device_bytes(checkpoint: Checkpoint, config: DiTConfig, dtype: torch.dtype, *, offload: bool, packed: bool) -> int:
    """Bytes that the weights of a transformer will take on its device, from the file's header alone."""
    names = dit_tensor_names(checkpoint, config)
    small = kept = unpacked = largest = 0
    blocks = [0] * config.layers
    for name, shape in config.tensor_shapes().items():
        info, dense = checkpoint.tensors[names[name]], math.prod(shape) * dtype.itemsize
        if not (name.startswith("blocks.") and len(shape) == 2):
            small += dense
            continue
        is_kept = packed and info.type in PACKED_TYPES
        layer = int(name.split(".")[1])
        blocks[layer] += info.nbytes if is_kept else dense
        kept += info.nbytes if is_kept else dense
        unpacked += dense if is_kept else 0
        largest = max(largest, blocks[layer])
    return small + (2 * largest if offload else kept) + unpacked // config.layers


def load_streamed(
    checkpoint: Checkpoint, config: DiTConfig, device: torch.device, dtype: torch.dtype, *, offload: bool, packed: bool
) -> tuple[StreamedDiT, dict[str, Tensor]]:
    """Load a complete transformer: the model with its blocks' matrices, and all other tensors by name, on `device`.

    Raises CheckpointError for an incomplete file, and for values that are not finite in `dtype`.
    """
    names = dit_tensor_names(checkpoint, config)
    shapes = config.tensor_shapes()
    images = []
    for layer in range(config.layers):
        block = f"blocks.{layer}."
        large = {name: shapes[name] for name in shapes if name.startswith(block) and len(shapes[name]) == 2}
        weights = _weights(checkpoint, names, large, dtype, packed=packed)
        image = BlockImage.of(
            (weight._replace(name=weight.name.removeprefix(block)) for weight in weights), device, pinned=offload
        )
        _check_finite(checkpoint, block, image, device, dtype)
        images.append(image)
    small = {
        name: load_finite(checkpoint, names[name], shape, dtype).to(device)
        for name, shape in shapes.items()
        if not (name.startswith("blocks.") and len(shape) == 2)
    }
    return StreamedDiT(config, images, offloaded=offload), small


def streamed(dit: NaDiT) -> StreamedDiT:
    """The same model with its blocks' matrices on the host; block after block leaves the device."""
    images: list[BlockImage] = []
    small: dict[str, Tensor] = {}
    for layer, block in enumerate(dit.blocks):
        large = {name: tensor for name, tensor in block.state_dict().items() if tensor.ndim == 2}
        weights = (Weight(name, tuple(tensor.shape), tensor) for name, tensor in large.items())
        images.append(BlockImage.of(weights, dit.device, pinned=True))
        small |= {f"blocks.{layer}.{n}": t for n, t in block.state_dict().items() if n not in large}
        block.to("meta")
    small |= {name: tensor for name, tensor in dit.state_dict().items() if not name.startswith("blocks.")}
    out = StreamedDiT(dit.config, images, offloaded=True)
    out.load_state_dict(small, strict=False, assign=True)
    return out.requires_grad_(False).eval()


def quantized(dit: NaDiT, formats: Sequence[BlockFormat], *, offload: bool = False, frees: bool = False) -> StreamedDiT:
    """The same model with the matrices of its blocks in 8 bits, those that `formats` names; the others as they are.

    What lies packed in the very format, as its file has it, is taken over byte by byte.
    offload: keep the blocks on the host. frees: block after block of `dit` leaves the device, which ends its use.
    """
    images: list[BlockImage] = []
    small = {name: tensor for name, tensor in dit.state_dict().items() if not name.startswith("blocks.")}
    for layer, block in enumerate(dit.loaded_blocks()):
        weights, blocks, scales = [], [], {}
        for name, tensor in block.state_dict().items():
            matrix = matrix_of(name) if tensor.ndim == 2 else None
            number = None if matrix is None else getattr(formats[layer], matrix)
            if number is not None:
                stored = dit.as_stored(layer, name, number) if isinstance(dit, StreamedDiT) else None
                found = stored or quantize(tensor.float(), number)
                stem = name.removesuffix("weight")
                scales[stem + "scale"] = found.scale
                weights.append(Weight(name, tuple(found.data.shape), found.data, number=number))
                if isinstance(found, BlockScaledTensor):
                    blocks.append(Weight(stem + "blocks", tuple(found.blocks.shape), found.blocks, number=SCALES))
            elif tensor.ndim == 2:
                weights.append(Weight(name, tuple(tensor.shape), tensor))
            else:
                small[f"blocks.{layer}.{name}"] = tensor
        small |= {f"blocks.{layer}.{name}": scale for name, scale in _joined_scales(scales).items()}
        # A gate and what it gates stand one after the other, and so do their blocks.
        images.append(BlockImage.of([*weights, *blocks], dit.device, pinned=offload))
        if frees:
            block.to("meta")
    out = StreamedDiT(dit.config, images, offloaded=offload)
    out.load_state_dict(small, strict=False, assign=True)
    return out.requires_grad_(False).eval()


def _joined_scales(scales: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, those of a gate and of what it gates as two parts of one tensor: they are used as one."""
    joined = dict(scales)
    for name in scales:
        if ".proj_in_gate." in name:
            up = name.replace("proj_in_gate", "proj_in")
            both = torch.cat([scales[name], scales[up]])
            joined[name], joined[up] = both[: len(scales[name])], both[len(scales[name]) :]
    return joined


def _weights(
    checkpoint: Checkpoint, names: dict[str, str], shapes: dict[str, Shape], dtype: torch.dtype, *, packed: bool
) -> Iterator[Weight]:
    for name, shape in shapes.items():
        stored = checkpoint.load_packed(names[name]) if packed else None
        if stored is not None and stored.type in PACKED_TYPES:
            yield Weight.of(name, shape, stored)
        else:
            yield Weight(name, shape, load_finite(checkpoint, names[name], shape, dtype))


def _check_finite(
    checkpoint: Checkpoint, block: str, image: BlockImage, device: torch.device, dtype: torch.dtype
) -> None:
    if image.unpacked_bytes(dtype) == 0:
        return
    for name, values in image.weights(dtype, image.data.to(device)).items():
        if not all(math.isfinite(extreme) for extreme in torch.aminmax(values)):
            raise CheckpointError(
                f"{block}{name} in {checkpoint.path}: expected finite weights in {dtype}, found NaN or infinity; the "
                "file is damaged or needs another precision."
            )
