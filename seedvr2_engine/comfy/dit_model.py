"""The transformer behind ComfyUI's memory management, and its text."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint.detect import model_names
from ..checkpoint.detect_dit import POSITIVE_TEXT
from ..checkpoint.opening import open_checkpoint
from ..checkpoint.text_embedding import PUBLIC_TEXT, load_text_embedding
from ..device import resolve_dit_dtype
from ..engine.optimize_dit import Codec, DitPrecision, optimize_dit
from ..models.dit.model import NaDiT
from ..pipeline.setup import DiTSetup, plan_dit
from .devices import device_of
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
    """The transformer in ComfyUI's books, and the format in which it computes while it is there."""

    def __init__(self, setup: DiTSetup, build: Callable[[DiTSetup], NaDiT]) -> None:
        """setup: how it is loaded when nothing else is asked for."""
        self._setup = setup
        self._precision: DitPrecision = "auto"
        self._is_served = False
        super().__init__(setup.device, setup.weights_bytes, lambda: build(self._wanted()))

    def ask(self, precision: DitPrecision) -> None:
        """Ask for a format before the model is brought; one that is there in another is made again from its file."""
        if precision != self._precision:
            self.unload()
        self._precision = precision

    @property
    def check_bytes(self) -> int:
        """What is wanted beside the model until it is served: a second one in 8 bits."""
        in_16_bits = self._precision in ("bf16", "fp16") or self._setup.device.type != "cuda"
        return 0 if self._is_served or in_16_bits else self._setup.weights_bytes // 2

    def serve(self, vae: Codec, text: Tensor) -> NaDiT:
        """The model that is there, in the format that was asked for; as `optimize_dit`, which may refuse it."""
        assert self._built is not None
        if not self._is_served:
            self._built, report = optimize_dit(
                self._built, vae, text, precision=self._precision, offload=self._setup.offload
            )
            self._is_served = True
            log.info("[SeedVR2] %s", report.describe())
        return self._built

    def unload(self) -> None:
        """Give the model back."""
        self._is_served = False
        super().unload()

    def _wanted(self) -> DiTSetup:
        named = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self._precision)
        if named is None or self._setup.device.type != "cuda":
            return self._setup
        return replace(self._setup, dtype=named)

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
    device = device_of(request.device)
    path = locate(request.model, "dit", on_bytes)
    wants_offload = request.blocks_to_swap > 0 and device.type == "cuda"
    setup = plan_dit(path, device, resolve_dit_dtype("auto", device), "blocks" if wants_offload else "auto")
    if setup.offload:
        asked = f"{request.blocks_to_swap} were asked for" if wants_offload else "it is too large for this GPU"
        log.info("[SeedVR2] %s: all %d blocks stay on the host (%s)", request.model, setup.config.layers, asked)
    if request.attention_mode != "sdpa":
        log.info("[SeedVR2] attention_mode %s: the fastest attention that is here is used", request.attention_mode)

    def build(setup: DiTSetup) -> NaDiT:
        log.info("[SeedVR2] Loading %s on %s (%.2f GB)", request.model, device, setup.weights_bytes / 1e9)
        return setup.load()

    return ManagedDiT(ResidentDiT(setup, build), path)
