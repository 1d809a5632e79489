"""A transformer whose large weights are not parameters: packed, in the host's memory, or both.

Everything small (norms, biases, modulations, the first and the last layers) stays on the device; a block's matrices
become ready just before it runs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import cast

import torch
from torch import Tensor

from ...models.dit.blocks import Block
from ...models.dit.config import DiTConfig
from ...models.dit.model import NaDiT
from ...quant.block_scaled import BLOCKS
from .block_images import BlockImage, ImagePrefetch, largest_image_bytes
from .quantized import DATA_TYPES, Quantized, replace_linear


class StreamedDiT(NaDiT):
    """A NaDiT that gets its blocks' matrices from images, one block at a time.

    The same numbers as the plain model's: what runs, and in which order, is the same.
    """

    def __init__(self, config: DiTConfig, images: Sequence[BlockImage], *, offloaded: bool) -> None:
        """Make the model on the meta device; `load_state_dict(..., strict=False, assign=True)` gives the small weights.

        images: one for each block. offloaded: the images are on the host and are copied to the device as they are
        needed, one block ahead.
        """
        with torch.device("meta"):
            super().__init__(config)
        self.requires_grad_(False)
        for block, image in zip(self.blocks, images, strict=True):
            for place in image.places:
                if place.number in DATA_TYPES:
                    weight = torch.empty(place.shape, dtype=DATA_TYPES[place.number], device="meta")
                    blocks = weight.new_empty(0, dtype=torch.uint8) if place.number in BLOCKS else None
                    scale = weight.new_empty(len(weight), dtype=torch.float32)
                    replace_linear(cast(Block, block), place.name, weight, scale, blocks)
        self._images = images
        self._offloaded = offloaded
        self._prefetch: ImagePrefetch | None = None
        self._absent = [
            {place.name: cast(Block, block).get_parameter(place.name) for place in image.places}
            for block, image in zip(self.blocks, images, strict=True)
        ]

    @property
    def is_offloaded(self) -> bool:
        """Whether the blocks' matrices are on the host."""
        return self._offloaded

    @property
    def resident_bytes(self) -> int:
        """Bytes on the device beside the parameters: the images or the two buffers, and one block unpacked."""
        largest = largest_image_bytes(self._images)
        images = ImagePrefetch.SLOTS * largest if self._offloaded else sum(image.nbytes for image in self._images)
        return images + max((image.unpacked_bytes(self.dtype) for image in self._images), default=0)

    def as_stored(self, layer: int, name: str, format: str) -> Quantized | None:
        """A weight of a block as its file has it, on this model's device, if a product in `format` takes that."""
        stored = self._images[layer].as_stored(name, format)
        return stored and type(stored)(*(part.to(self.device) for part in stored))

    def loaded_blocks(self) -> Iterator[Block]:
        """The blocks in order, each with its matrices until the next one is asked for."""
        with closing(self._images_on_device()) as images:
            for block, image, absent, data in zip(self.blocks, self._images, self._absent, images, strict=True):
                _assign(cast(Block, block), image.weights(self.dtype, data))
                try:
                    yield cast(Block, block)
                finally:
                    _assign(cast(Block, block), absent)

    def _images_on_device(self) -> Generator[Tensor]:
        if not self._offloaded:
            yield from (image.data for image in self._images)
            return
        if self._prefetch is None:
            self._prefetch = ImagePrefetch(self._images, self.device)
        yield from self._prefetch


def _assign(block: Block, weights: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        owner, _, attribute = name.rpartition(".")
        parameter = weight if isinstance(weight, torch.nn.Parameter) else torch.nn.Parameter(weight, False)
        setattr(block.get_submodule(owner), attribute, parameter)
