"""Models under ComfyUI's memory management: made when they are used, given back when others need the memory."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

log = logging.getLogger(__name__)

T = TypeVar("T")
CPU = torch.device("cpu")


class ModelBody(torch.nn.Module):
    """What ComfyUI's books keep in place of the weights, which they must not move by themselves."""


class Resident(ModelPatcher, Generic[T]):
    """One model, or the room for it: whole on its device, or not there.

    ComfyUI loads it (`load_models_gpu`) and unloads it, for another model or by the unload button; the next use makes
    it again from its file.
    """

    # ComfyUI's attributes, which it gives no types.
    model: ModelBody
    load_device: torch.device

    def __init__(self, device: torch.device, size_bytes: int, build: Callable[[], T]) -> None:
        """size_bytes: what the weights will take, for making room before they are there."""
        self._build = build
        self._built: T | None = None
        super().__init__(ModelBody(), load_device=device, offload_device=CPU, size=max(1, size_bytes))

    @property
    def built(self) -> T | None:
        """The model, if it is there."""
        return self._built

    @abstractmethod
    def bytes_of(self, built: T) -> int:
        """Memory on the device that the model has now."""

    def shrink(self, built: T) -> None:
        """Give back memory that the model does not need while it rests."""

    def unload(self) -> None:
        """Give the model back."""
        if self._built is not None:
            self._built = None
            comfy.model_management.soft_empty_cache()

    def model_size(self) -> int:
        """Bytes that the model takes, or will take."""
        return max(int(self.size), self.loaded_size())

    def loaded_size(self) -> int:
        """Bytes that it takes now."""
        return 0 if self._built is None else self.bytes_of(self._built)

    def current_loaded_device(self) -> torch.device:
        """Where it is."""
        return CPU if self._built is None else self.load_device

    def clone(self, *_: Any, **__: Any) -> "Resident[T]":
        """Itself: there are no patches that a copy could have for itself, and one model is one entry in the books."""
        return self

    def model_patches_to(self, device: object) -> None:
        """Nothing: there are no patches."""

    def partially_load(
        self, device_to: torch.device, extra_memory: float = 0, force_patch_weights: bool = False
    ) -> int:
        """Make the model, all of it: none can be left out. Returns the bytes that were added."""
        before = self.loaded_size()
        if self._built is None:
            self._built = self._build()
        return self.loaded_size() - before

    def partially_unload(self, device_to: torch.device, memory_to_free: float = 0, **_: Any) -> int:
        """Give back working memory, not the weights; returns the bytes that became free."""
        if self._built is None:
            return 0
        before = self.loaded_size()
        self.shrink(self._built)
        return before - self.loaded_size()

    def detach(self, unpatch_all: bool = True) -> ModelBody:
        """Unload, unless ComfyUI only hands the model from one entry of its books to another."""
        if unpatch_all:
            self.unload()
        return self.model


def bring(residents: Sequence[Resident[Any]], *, working_bytes: int = 0) -> None:
    """Make sure that these models are there together, with room for their work beside them."""
    comfy.model_management.load_models_gpu(list(residents), memory_required=working_bytes)


def make_room(residents: Sequence[Resident[Any]], device: torch.device, working_bytes: int) -> None:
    """Unload other models until so many bytes are free on a GPU."""
    if device.type == "cpu":
        return
    loaded = comfy.model_management.current_loaded_models
    keep = [entry for entry in loaded if any(entry.model is resident for resident in residents)]
    comfy.model_management.free_memory(working_bytes, device, keep_loaded=keep)
