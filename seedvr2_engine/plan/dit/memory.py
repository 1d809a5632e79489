"""How much memory the transformer takes, by number format, from its configuration alone."""

import math

from ...models.dit.config import DiTConfig

STORED_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "mxfp8": 33 / 32, "nvfp4": 9 / 16}
"""Bytes of one weight of a block's matrices in each format, scales of blocks included; those of rows are beside it."""


def weight_bytes(config: DiTConfig, format: str) -> int:
    """Bytes of a transformer whose blocks' matrices are all in `format`, everything else in 16 bits."""
    total = 0.0
    for name, shape in config.tensor_shapes().items():
        numbers = math.prod(shape)
        if not is_product(name, len(shape)):
            total += 2 * numbers
            continue
        total += STORED_BYTES[format] * numbers
        # One float32 scale a row.
        total += 0 if format in ("bf16", "fp16") else 4 * shape[0]
    return round(total)


def block_bytes(config: DiTConfig, format: str) -> int:
    """Bytes of the largest block's matrices: two such pieces are on the GPU when the blocks wait on the host."""
    blocks = [0.0] * config.layers
    for name, shape in config.tensor_shapes().items():
        if is_product(name, len(shape)):
            blocks[int(name.split(".")[1])] += STORED_BYTES[format] * math.prod(shape)
    return round(max(blocks))


def is_product(name: str, dimensions: int) -> bool:
    """Whether a tensor of a checkpoint is one of the matrices that the formats are for."""
    return name.startswith("blocks.") and dimensions == 2


def activation_bytes(config: DiTConfig, element_bytes: int, tokens: int) -> int:
    """Activations of one block: either attention's, with FP32 norms and rotations, or the MLP's."""
    streams = 2 * config.width * element_bytes
    attention = config.attention_width * (5.3 * element_bytes + 16)
    mlp = config.mlp_width * element_bytes * (4 if config.family == "3b" else 3)
    return round(tokens * (streams + max(attention, mlp, 12 * config.width)))
