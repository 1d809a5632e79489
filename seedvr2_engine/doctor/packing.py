"""Everything the engine launches on a generation of GPUs, compiled on any machine into a folder that travels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint.detect import detect_vae
from ..checkpoint.detect_dit import detect_dit
from ..checkpoint.opening import open_checkpoint
from ..device import DeviceSpec
from ..errors import InvalidArgumentError
from ..kernels.architectures import ARCHITECTURES, formats_of
from ..kernels.configs import Format, MatrixFormat
from ..models.dit.config import PUBLIC_3B, PUBLIC_7B, DiTConfig
from ..models.vae.config import VAEConfig
from ..plan.choices import choose_precision
from .launches import ANY_PX, Calls, Compile, launch_color, launch_dit, launch_vae

PARTS = ("color", "vae", "3b", "7b", "nano")
"""What can be compiled: colour correction, the public VAE, the transformers, and the two small models."""
_STEP_PX = 16
"""What an upscaled picture's edges are padded to."""
_NANO = Path(__file__).parent.parent / "nano"


@dataclass(frozen=True)
class PackRequest:
    """What a folder is to hold."""

    generation: str
    """Of the GPUs, such as `sm_120`."""
    parts: tuple[str, ...] = PARTS
    """Of `PARTS`."""
    formats: tuple[str, ...] | None = None
    """Number formats of VAE and transformer; None: all that the generation computes."""
    threads: int | None = None
    """That compile side by side; None is one a core."""

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown:
            raise InvalidArgumentError(f"part: expected one of {', '.join(PARTS)}, got {unknown[0]}.")


def build_folder(request: PackRequest, target: Path, on_progress: Callable[[str, int], None] = lambda *_: None) -> Any:
    """Compile what `request` names into a new folder; its manifest. on_progress: the part, and kernels so far.

    Needs Triton and no GPU. Raises KernelsError and OutputError.
    """
    from ..kernels.launch import compile_only
    from ..kernels.packed.elsewhere import compiling_for
    from ..kernels.packed.writing import write_folder

    with compiling_for(request.generation):
        kernels: dict[str, Any] = {}
        for part in request.parts:

            def compile(calls: Calls, part: str = part) -> None:
                kernels.update({kernel.hash: kernel for kernel in compile_only(calls, request.threads)})
                on_progress(part, len(kernels))

            _launch(part, request, compile)
        covers = [*request.parts, *(request.formats or ()), "pictures of every size in multiples of 8 px"]
        return write_folder(target, request.generation, kernels.values(), covers)


@dataclass(frozen=True)
class Warmed:
    """What `warm_cache` did."""

    compiled: int
    """Kernels that were not there."""
    found: int
    """Kernels that were, in Triton's cache or packed."""
    seconds: float
    """Altogether."""


def warm_cache(
    gpu: DeviceSpec,
    formats: Sequence[str] = (),
    sizes_px: Sequence[tuple[int, int]] = (),
    on_progress: Callable[[str], None] = lambda _: None,
) -> Warmed:
    """Fill Triton's cache with what clips need on the GPU at hand: colours, the public VAE, the 3B and the 7B.

    formats: none is what `auto` takes for each. sizes_px: rows and columns; none is every size. Compiles side by side.
    """
    from ..kernels.launch import compile_only, counted
    from ..kernels.packed.using import use_packed_kernels

    chosen = choose_precision("auto", gpu).format
    own = tuple(ARCHITECTURES[gpu.sm].matrices)[:1] + ((chosen,) if chosen else ())
    request = PackRequest(gpu.sm, ("color", "vae", "3b", "7b"), tuple(formats) or own)
    padded = [(_padded(rows), _padded(columns)) for rows, columns in sizes_px]

    def compile(calls: Calls) -> None:
        compile_only(calls)

    began = time.monotonic()
    use_packed_kernels()
    with counted() as counts:
        for part in request.parts:
            on_progress(part)
            _launch(part, request, compile, padded or ANY_PX)
    return Warmed(counts["compiled"], counts["found"], time.monotonic() - began)


def _padded(edge_px: int) -> int:
    return -(-edge_px // _STEP_PX) * _STEP_PX


def launch_everything(request: PackRequest, compile: Callable[[Calls], None]) -> None:
    """Hand the calls of all parts to `compile`."""
    for part in request.parts:
        _launch(part, request, compile)


def _launch(part: str, request: PackRequest, compile: Compile, sizes_px: Sequence[tuple[int, int]] = ANY_PX) -> None:
    generation = request.generation
    known: Sequence[Format] = formats_of(generation)
    matrices: Sequence[MatrixFormat] = tuple(ARCHITECTURES[generation].matrices)
    if request.formats is not None:
        known = [format for format in known if format in request.formats]
        matrices = [format for format in matrices if format in request.formats]
    if part == "color":
        launch_color(compile)
    elif part == "vae":
        launch_vae(VAEConfig(), generation, compile, formats=known, sizes_px=sizes_px)
    elif part == "nano":
        launch_vae(detect_vae(open_checkpoint(_NANO / "nano_vae_q8_0.gguf")), generation, compile, formats=known)
        launch_dit(nano_dit(), generation, compile, formats=matrices)
    else:
        launch_dit({"3b": PUBLIC_3B, "7b": PUBLIC_7B}[part], generation, compile, formats=matrices)


def nano_dit() -> DiTConfig:
    """Of the small transformer."""
    return detect_dit(open_checkpoint(_NANO / "nano_dit_q8_0.gguf"))
