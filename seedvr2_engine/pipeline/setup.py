"""What will run on this machine: device, number formats, what waits on the host, and with which memory.

It is decided once, from the files' headers and before anything is loaded. `seedvr2 upscale --plan` prints it, a run
loads its models by it, and ComfyUI's loaders decide by the same functions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch

from ..checkpoint.detect import detect_vae
from ..checkpoint.detect_dit import detect_dit
from ..checkpoint.opening import open_checkpoint
from ..checkpoint.text_embedding import load_text_embedding
from ..device import DeviceSpec, resolve_dit_dtype, resolve_dtype, total_memory_bytes
from ..engine.dit.quantized import DATA_TYPES
from ..engine.dit.weights import LARGEST_SHARE, device_bytes
from ..engine.optimize import optimize_3d_vae_for_blackwell
from ..engine.optimize_dit import DIT_PRECISIONS, DitPrecision, optimize_dit
from ..engine.served_vae import engine_of
from ..errors import InvalidArgumentError
from ..loading import load_vae
from ..loading_dit import load_dit
from ..models.dit.config import DiTConfig
from ..models.dit.model import NaDiT
from ..plan.choices import PRECISION_CHOICES
from ..spans import span
from .memory import ClipPlan, Sizes, plan_clip
from .options import UpscaleOptions
from .prefetch import Begun
from .reconstruct import VideoCodec
from .resize import Size
from .upscaler import Upscaler

log = logging.getLogger(__name__)

_DIT_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
PLAIN_DTYPES = ("float32", "float16", "bfloat16")
Offload = Literal["auto", "none", "blocks"]
"""Whether the transformer's blocks wait on the host; auto: where a GPU is too small for them."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of one upscaling."""

    dit: Path
    vae: Path
    text: Path
    """A checkpoint that carries a text embedding, or the public embedding."""

    def describe(self) -> str:
        """One line for people."""
        text = "its own text embedding" if self.text == self.dit else f"text embedding {self.text.name}"
        return f"transformer {self.dit.name} with {text}, VAE {self.vae.name}"


@dataclass(frozen=True)
class Formats:
    """The number formats of both models on a device."""

    device: torch.device
    precision: str
    """The VAE's, as the engine names it; `reference` is the plain model."""
    vae_dtype: torch.dtype
    """Of the plain VAE."""
    dit_dtype: torch.dtype
    """Of the transformer's tokens, and of its matrix products unless they are in 8 bits."""
    dit_precision: DitPrecision = "bf16"
    """Of the transformer's matrix products; "auto": the fastest that its weights bear."""

    @property
    def uses_engine(self) -> bool:
        """Whether the VAE's kernels are to serve."""
        return self.precision != "reference" and (self.device.type == "cuda" or self.precision != "auto")

    def describe(self) -> str:
        """A few words for people."""
        plain, transformer = (str(dtype).removeprefix("torch.") for dtype in (self.vae_dtype, self.dit_dtype))
        vae = f"VAE engine ({self.precision})" if self.uses_engine else f"VAE in {plain}"
        products = {"auto": f", its products in 8 bits where its weights bear it (from {transformer})"}
        named = f", its products in {self.dit_precision}" if self.dit_precision in DATA_TYPES else ""
        return f"{self.device}, {vae}, transformer in {transformer}{products.get(self.dit_precision, named)}"


def choose_formats(
    device: torch.device, precision: str, dit_precision: str = "auto", *, is_here: bool = True
) -> Formats:
    """The formats that a precision means: one of the engine's, a dtype of the plain VAE, or `auto`, by the device.

    dit_precision: of the transformer's matrix products; `auto` leaves 16 bits only where the precision does so too, and
    where the GPU has 8-bit products. is_here: whether the device can be asked. Raises InvalidArgumentError for anything
    else.
    """
    if dit_precision not in DIT_PRECISIONS:
        raise InvalidArgumentError(
            f"dit precision: expected one of {', '.join(DIT_PRECISIONS)}, got {dit_precision!r}."
        )
    if precision not in (*PRECISION_CHOICES, *PLAIN_DTYPES):
        known = ", ".join((*PRECISION_CHOICES, *PLAIN_DTYPES))
        raise InvalidArgumentError(f"precision: expected one of {known}, got {precision!r}.")
    is_plain = precision in ("reference", *PLAIN_DTYPES)
    leaves_16_bits = device.type == "cuda" and not is_plain and precision not in ("fp16", "bf16")
    return Formats(
        device,
        "reference" if is_plain else precision,
        resolve_dtype(precision if precision in PLAIN_DTYPES else "auto", device),
        _DIT_DTYPES.get(dit_precision) or resolve_dit_dtype(precision, device, is_here=is_here),
        dit_precision if dit_precision != "auto" or leaves_16_bits else "bf16",
    )


@dataclass(frozen=True)
class DiTSetup:
    """Where the weights of a transformer will lie."""

    path: Path
    config: DiTConfig
    device: torch.device
    dtype: torch.dtype
    offload: bool
    """Whether its blocks stay on the host, and are copied while the block before computes."""
    weights_bytes: int
    """What it will take on the device."""

    def load(self, on_tensor: Callable[[], object] = lambda: None) -> NaDiT:
        """Load it; raises ModelFileError or CheckpointError. on_tensor: called before every tensor; raise to stop."""
        with span("weights"):
            return load_dit(self.path, device=self.device, dtype=self.dtype, offload=self.offload, on_tensor=on_tensor)


def plan_dit(
    path: Path, device: torch.device, dtype: torch.dtype, offload: str = "auto", memory_bytes: int | None = None
) -> DiTSetup:
    """Decide by a file's header whether its blocks stay on the host; raises InvalidArgumentError for another offload.

    auto: they do where the weights would take more than LARGEST_SHARE of a GPU's memory. memory_bytes: the GPU's; it is
    asked if not given.
    """
    if offload not in get_args(Offload):
        raise InvalidArgumentError(f"offload: expected one of {', '.join(get_args(Offload))}, got {offload!r}.")
    is_gpu = device.type == "cuda"
    with open_checkpoint(path) as checkpoint:
        config = detect_dit(checkpoint)

        def taken(offload: bool) -> int:
            # Packed on GPUs, as `load_dit` decides it.
            return device_bytes(checkpoint, config, dtype, offload=offload, packed=is_gpu)

        whole = taken(offload=False)
        waits = offload == "blocks"
        if offload == "auto" and is_gpu:
            room = total_memory_bytes(device) if memory_bytes is None else memory_bytes
            waits = whole > LARGEST_SHARE * room
        return DiTSetup(path, config, device, dtype, waits, taken(offload=True) if waits else whole)


@dataclass(frozen=True)
class Setup:
    """Everything that is known of a run before its clips are."""

    files: ModelFiles
    formats: Formats
    dit: DiTSetup
    sizes: Sizes
    """What the memory of a clip follows from."""
    device_bytes: int
    """The memory of the device, all of it."""
    gpu: DeviceSpec | None = None
    """A GPU that need not be here, which all this is planned for; nothing can be loaded then."""
    begun: Begun[NaDiT] | None = None
    """The transformer, where it is being loaded already."""

    @contextmanager
    def beginning(self) -> Iterator[Setup]:
        """Load the transformer in a thread from now on, while inputs are opened; the setup given loads the rest, once.

        What goes wrong with it is raised by `load`, where it would be without the thread. After the block nothing is
        loaded any more.
        """
        with Begun(self.dit.load, "weights") as begun:
            yield replace(self, begun=begun)

    def plan(self, options: UpscaleOptions, source: Size, frames: int | None = None) -> ClipPlan:
        """How clips of (height, width) in pixels will be cut, and with which memory; as `Upscaler.plan`."""
        return plan_clip(self.sizes, options, source, self.device_bytes, frames)

    def load(self, options: UpscaleOptions) -> Upscaler:
        """Load the models. The upscaler plans as this does, unless the engine cannot serve here after all."""
        vae = self._load_vae()
        is_as_planned = (engine_of(vae) is not None) == self.sizes.vae_plans_itself
        with span("weights"):
            text = load_text_embedding(self.files.text)
        dit = self.dit.load() if self.begun is None else self.begun.take()
        dit, report = optimize_dit(dit, vae, text, precision=self.formats.dit_precision, offload=self.dit.offload)
        log.info(report.describe())
        return Upscaler(dit, vae, options, text=text, sizes=self.sizes if is_as_planned else None)

    def describe(self) -> str:
        """One line for people."""
        place = "" if self.gpu is None else f"{self.gpu.name}, {self.gpu.card_memory}, not this machine: "
        return f"{place}{self.formats.describe()}{', its blocks on the host' if self.dit.offload else ''}"

    def _load_vae(self) -> VideoCodec:
        formats = self.formats
        with span("weights"):
            vae = load_vae(self.files.vae, device=formats.device, dtype=formats.vae_dtype)
        if not formats.uses_engine:
            return vae
        if self.begun is not None:
            # The engine's graphs are recorded, and its kernels timed, with nothing else on the GPU.
            with span("waiting"):
                self.begun.wait()
        with span("engine"):
            return optimize_3d_vae_for_blackwell(vae, device=formats.device, precision=formats.precision, verbose=False)


def plan_setup(
    files: ModelFiles,
    device: torch.device,
    *,
    precision: str = "auto",
    dit_precision: str = "auto",
    offload: str = "auto",
    gpu: DeviceSpec | None = None,
) -> Setup:
    """Decide what is left open: number formats by device, offload by the transformer's share of a GPU's memory.

    gpu: plan for this one, which need not be here, in the place of `device`. Only headers are read. Raises
    InvalidArgumentError for an unknown precision or offload, ModelFileError or CheckpointError for files that are none.
    """
    device = device if gpu is None else torch.device("cuda")
    memory_bytes = total_memory_bytes(device) if gpu is None else gpu.vram_bytes
    formats = choose_formats(device, precision, dit_precision, is_here=gpu is None)
    dit = plan_dit(files.dit, device, formats.dit_dtype, offload, memory_bytes)
    weights_bytes = dit.weights_bytes
    with open_checkpoint(files.vae) as checkpoint:
        vae_config = detect_vae(checkpoint)
        if not formats.uses_engine:
            weights_bytes += sum(info.count for info in checkpoint.tensors.values()) * formats.vae_dtype.itemsize
    sizes = Sizes(
        vae=vae_config,
        dit=dit.config,
        vae_element_bytes=formats.vae_dtype.itemsize,
        dit_element_bytes=formats.dit_dtype.itemsize,
        weights_bytes=weights_bytes,
        vae_plans_itself=formats.uses_engine,
    )
    return Setup(files, formats, dit, sizes, memory_bytes, gpu)
