"""The large weights of one transformer block as one piece of memory, which can be moved in a single copy.

A weight lies there in the model's own number format, or packed as its file has it: GGML's blocks, FP8, INT8, MXFP8 or
NVFP4. What is packed is unpacked where the block runs, in float32 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from ...checkpoint.base import PackedTensor
from ...checkpoint.containers.unpack import UNPACKED_TYPES, unpack
from ...quant.block_scaled import BLOCKS
from ...quant.quantize import BlockScaledTensor, QuantizedTensor
from ...quant.scale_tiles import untile
from .quantized import DATA_TYPES, Quantized

_ALIGNMENT = 256
SCALES = "scales"
"""What stands for a format where an image has the scales of a weight's blocks."""
_DATA_TYPES = DATA_TYPES | {SCALES: torch.uint8}
_NUMBERS = {"F8_E4M3": "fp8", "INT8": "int8", "MXFP8": "mxfp8", "NVFP4": "nvfp4"}
"""The stored types that products take as they are."""
PACKED_TYPES = UNPACKED_TYPES
"""The stored types that an image can keep packed."""


class Weight(NamedTuple):
    """One weight that goes into an image."""

    name: str
    """Its name inside the block."""
    shape: tuple[int, ...]
    data: Tensor
    """Its values in the compute dtype, or the packed bytes."""
    type: str | None = None
    """None for values, else one of `PACKED_TYPES`."""
    scale: Tensor | None = None
    """The factor of FP8 and INT8 values, float32: one, or one for each row."""
    packed: PackedTensor | None = None
    """What else there is to know of packed bytes; where blocks have scales, these are in `data`, after the values."""
    number: str | None = None
    """The format in 8 or 4 bits of values that are computed with as they are; None: the compute dtype, or packed."""

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...], packed: PackedTensor) -> Weight:
        """A weight that stays packed."""
        if packed.shape is None or packed.scale is None:
            return cls(name, shape, packed.data, packed.type, packed.scale, packed)
        data = torch.cat([packed.data, packed.scale.flatten().view(torch.uint8)])
        return cls(name, shape, data, packed.type, None, packed)


@dataclass(frozen=True)
class Place:
    """Where one weight lies in an image."""

    name: str
    shape: tuple[int, ...]
    type: str | None
    begin: int
    nbytes: int
    packed: PackedTensor | None
    number: str | None


@dataclass(frozen=True)
class BlockImage:
    """One block's large weights, in memory and on the way to where they are used."""

    places: tuple[Place, ...]
    data: Tensor
    """All bytes, flat uint8."""

    @classmethod
    def of(cls, weights: Iterable[Weight], device: torch.device, *, pinned: bool) -> BlockImage:
        """Lay weights out one after the other, on `device` or in page-locked memory of the host.

        Scales of tensors and of rows always lie on `device`, because they are small.
        """
        found = list(weights)
        sizes = [weight.data.nbytes for weight in found]
        ends = list(accumulate((size + -size % _ALIGNMENT for size in sizes), initial=0))
        where = torch.device("cpu") if pinned else device
        data = torch.empty(ends[-1], dtype=torch.uint8, device=where, pin_memory=pinned and device.type == "cuda")
        places = []
        for weight, begin, size in zip(found, ends, sizes, strict=False):
            data[begin : begin + size].copy_(weight.data.contiguous().flatten().view(torch.uint8))
            packed = _described(weight, device)
            places.append(Place(weight.name, weight.shape, weight.type, begin, size, packed, weight.number))
        return cls(tuple(places), data)

    @property
    def nbytes(self) -> int:
        """Bytes of the image."""
        return self.data.nbytes

    def unpacked_bytes(self, dtype: torch.dtype) -> int:
        """Bytes that `weights` allocates beside the image."""
        return sum(math.prod(place.shape) * dtype.itemsize for place in self.places if place.type is not None)

    def weights(self, dtype: torch.dtype, data: Tensor | None = None) -> dict[str, Tensor]:
        """The weights by name, in `dtype`, on the device of the image: views of it, but for those that are packed.

        data: a copy of the image's bytes somewhere else, to be used instead. What is unpacked stands one after the
        other in one tensor, so that neighbours can be used as one matrix.
        """
        stored = self.data if data is None else data
        unpacked = torch.empty(self.unpacked_bytes(dtype) // dtype.itemsize, dtype=dtype, device=stored.device)
        rooms = iter(unpacked.split([math.prod(place.shape) for place in self.places if place.type is not None]))
        return {
            place.name: (
                _value(place, stored, dtype)
                if place.type is None
                else next(rooms).view(place.shape).copy_(_value(place, stored, dtype))
            )
            for place in self.places
        }

    def as_stored(self, name: str, format: str) -> Quantized | None:
        """A packed weight as a product in `format` takes it, if its bytes are that; None where they are not.

        FP8 and INT8 with one scale, with one for each row, or with none; MXFP8 and NVFP4 whose columns need no filling.
        It is where the image is. Weights that are rotated, or were scaled for their inputs, would want such inputs.
        """
        place = next(place for place in self.places if place.name == name)
        packed, (rows, columns) = place.packed, place.shape
        is_other = packed is None or _NUMBERS.get(place.type or "") != format
        if packed is None or is_other or packed.rotation or packed.pre_scale is not None:
            return None
        stored, number = self.data[place.begin : place.begin + place.nbytes], DATA_TYPES[format]
        if packed.shape is None or packed.scale is None:
            scale = torch.ones(1) if packed.scale is None else packed.scale
            return QuantizedTensor(stored.view(number).view(place.shape), _of_rows(scale, rows))
        if columns % BLOCKS[format]:
            return None
        values, scales = stored.split([len(stored) - packed.scale.nbytes, packed.scale.nbytes])
        in_bytes = columns * packed.shape[0] * values.numel() // math.prod(packed.shape) // packed.shape[0]
        data = values.view(packed.shape[0], -1)[:rows, :in_bytes].contiguous().view(number)
        tiles = scales.view(packed.scale.shape)
        blocks = untile(tiles, rows, columns // BLOCKS[format]).contiguous()
        scale = torch.ones(1) if packed.tensor_scale is None else packed.tensor_scale
        return BlockScaledTensor(data, _of_rows(scale, rows), blocks)


def _of_rows(scale: Tensor, rows: int) -> Tensor:
    return scale.float().flatten().expand(rows).contiguous()


def largest_image_bytes(images: Sequence[BlockImage]) -> int:
    """Bytes of the largest image."""
    return max((image.nbytes for image in images), default=0)


def _value(place: Place, data: Tensor, dtype: torch.dtype) -> Tensor:
    stored = data[place.begin : place.begin + place.nbytes]
    if place.type is None:
        return stored.view(dtype if place.number is None else _DATA_TYPES[place.number]).view(place.shape)
    packed = place.packed
    assert packed is not None
    if packed.shape is not None and packed.scale is not None:
        values, scales = stored.split([len(stored) - packed.scale.nbytes, packed.scale.nbytes])
        scale = scales.view(packed.scale.dtype).view(packed.scale.shape)
        return unpack(packed._replace(data=values, scale=scale), place.shape, dtype)
    return unpack(packed._replace(data=stored), place.shape, dtype)


def _described(weight: Weight, device: torch.device) -> PackedTensor | None:
    """What unpacking needs beside the bytes, which are in the image, on the device."""
    if weight.type is None:
        return None
    packed = weight.packed or PackedTensor(weight.data, weight.type, weight.scale)
    nothing = torch.empty(0, dtype=torch.uint8)

    def moved(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device)

    # Scales of blocks are in the image too; only their type and shape are still needed.
    in_image = packed.shape is not None and packed.scale is not None
    scale = packed.scale.to("meta") if in_image and packed.scale is not None else moved(packed.scale)
    return packed._replace(
        data=nothing,
        scale=scale,
        tensor_scale=moved(packed.tensor_scale),
        pre_scale=moved(packed.pre_scale),
        input_scale=moved(packed.input_scale),
    )


class _Lane:
    """How copies to the device and work there wait for each other; where there is one queue only, they need not."""

    def begin_copy(self, slot: int, source: Tensor, target: Tensor) -> None:
        """Copy into a slot once the work that uses what is in it has been done."""
        target.copy_(source)

    def await_copy(self, slot: int) -> None:
        """Let work that is asked for from now on wait for the slot's copy."""

    def end_use(self, slot: int) -> None:
        """Note that the work on a slot has been asked for."""


class _CudaLane(_Lane):
    """A stream for copies beside the current one, and events between the two."""

    def __init__(self, device: torch.device, slots: int) -> None:
        self._device = device
        self._copies = torch.cuda.Stream(device)
        self._copied = [torch.cuda.Event() for _ in range(slots)]
        self._used: list[torch.cuda.Event | None] = [None] * slots

    def begin_copy(self, slot: int, source: Tensor, target: Tensor) -> None:
        used = self._used[slot]
        if used is None:
            # The memory may have been freed by work that is still queued.
            self._copies.wait_stream(torch.cuda.current_stream(self._device))
        else:
            self._copies.wait_event(used)
        with torch.cuda.stream(self._copies):
            target.copy_(source, non_blocking=True)
            self._copied[slot].record(self._copies)
        target.record_stream(self._copies)

    def await_copy(self, slot: int) -> None:
        torch.cuda.current_stream(self._device).wait_event(self._copied[slot])

    def end_use(self, slot: int) -> None:
        event = self._used[slot] or torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        self._used[slot] = event


class ImagePrefetch:
    """Brings images from the host to a device, one ahead of the one in use, into two buffers that take turns."""

    SLOTS = 2

    def __init__(self, images: Sequence[BlockImage], device: torch.device, lane: _Lane | None = None) -> None:
        self._images = images
        self._device = device
        self._lane = lane or (_CudaLane(device, self.SLOTS) if device.type == "cuda" else _Lane())
        size = largest_image_bytes(images)
        self._buffers = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(self.SLOTS)]

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def __iter__(self) -> Iterator[Tensor]:
        """The images' bytes on the device, each valid until the next is asked for."""
        for index, image in enumerate(self._images):
            slot = index % self.SLOTS
            if index == 0:
                self._begin(0)
            self._begin(index + 1)
            self._lane.await_copy(slot)
            try:
                yield self._buffers[slot][: image.nbytes]
            finally:
                self._lane.end_use(slot)

    def _begin(self, index: int) -> None:
        if index < len(self._images):
            image, slot = self._images[index], index % self.SLOTS
            self._lane.begin_copy(slot, image.data, self._buffers[slot][: image.nbytes])
