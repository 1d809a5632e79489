"""The transformer behind ComfyUI's memory management, and its text."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint.detect import model_names
from ..checkpoint.detect_dit import POSITIVE_TEXT
from ..checkpoint.opening import open_checkpoint
from ..checkpoint.text_embedding import PUBLIC_TEXT, load_text_embedding
from ..device import resolve_dit_dtype
from ..models.dit.model import NaDiT
from ..pipeline.setup import plan_dit
from .devices import device_of, resolve_offload
from .model_files import OnBytes, locate
from .residency import Resident

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DiTRequest:
    """What a loader node was asked for; the names are its inputs'."""

    model: str
    device: str
    offload_device: str = "none"
    cache_model: bool = False
    blocks_to_swap: int = 0
    swap_io_components: bool = False
    attention_mode: str = "sdpa"

    @staticmethod
    def of(config: Mapping[str, Any]) -> "DiTRequest":
        """From a configuration as the loader node, or the public pack's, hands it on."""
        known = DiTRequest.__dataclass_fields__
        return DiTRequest(**{key: value for key, value in config.items() if key in known})


class ResidentDiT(Resident[NaDiT]):
    """The transformer in ComfyUI's books."""

    def bytes_of(self, built: NaDiT) -> int:
        """Weights on the device."""
        tensors = [*built.parameters(), *built.buffers()]
        return sum(tensor.nbytes for tensor in tensors) + built.resident_bytes


@dataclass(frozen=True, eq=False)
class ManagedDiT:
    """A transformer, its place in ComfyUI's books, and the text that it runs with."""

    resident: ResidentDiT
    path: Path

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.resident.load_device

    def text(self, on_bytes: OnBytes | None = None) -> Tensor:
        """The embedding (tokens, text width): the checkpoint's own, or the public one, downloaded if need be."""
        with open_checkpoint(self.path) as checkpoint:
            has_text = POSITIVE_TEXT in model_names(checkpoint)
        return load_text_embedding(self.path if has_text else locate(PUBLIC_TEXT, "text", on_bytes))


def find_dit_model(request: DiTRequest, on_bytes: OnBytes | None = None) -> ManagedDiT:
    """Find or download a transformer and read its header; the weights are loaded when they are first used."""
    resolve_offload(request.offload_device, keeps=request.cache_model)
    device = device_of(request.device)
    path = locate(request.model, "dit", on_bytes)
    wants_offload = request.blocks_to_swap > 0 and device.type == "cuda"
    setup = plan_dit(path, device, resolve_dit_dtype("auto", device), "blocks" if wants_offload else "auto")
    if setup.offload:
        asked = f"{request.blocks_to_swap} were asked for" if wants_offload else "it is too large for this GPU"
        log.info("[SeedVR2] %s: all %d blocks stay on the host (%s)", request.model, setup.config.layers, asked)
    if request.attention_mode != "sdpa":
        log.info("[SeedVR2] attention_mode %s: the fastest attention that is here is used", request.attention_mode)

    def build() -> NaDiT:
        log.info("[SeedVR2] Loading %s on %s (%.2f GB)", request.model, device, setup.weights_bytes / 1e9)
        return setup.load()

    return ManagedDiT(ResidentDiT(device, setup.weights_bytes, build), path)
