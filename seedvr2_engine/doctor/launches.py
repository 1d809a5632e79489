"""Everything that is launched, without a GPU: the engine itself on tensors that have no values.

What a launch is compiled for follows from the types, the alignment and the constants of its arguments. The engine binds
them all before it computes, so it is let bind them, and whoever compiles is handed the calls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product

import torch

from ..color.backend import import_kernels, rehearsal
from ..device import DeviceSpec, MatrixRates
from ..engine.accuracy.calibrate import smoothed_layers
from ..engine.dit.backend import triton_tokens
from ..engine.dit.fused import FusedDiT
from ..engine.dit.quantized import BlockFormat
from ..engine.dit.weights import quantized
from ..engine.vae.backend import triton_backend
from ..engine.vae.engine import EngineOptions, VAEEngine
from ..kernels.architectures import ARCHITECTURES, formats_of
from ..kernels.configs import Format, MatrixFormat
from ..kernels.dispatch import choose_window_config
from ..models.dit.attention import AttentionKind
from ..models.dit.config import DiTConfig
from ..models.dit.model import NaDiT
from ..models.vae.config import VAEConfig
from ..models.vae.model import VideoVAE
from ..plan.compile import PlanOptions, compile_vae_plan
from ..plan.coverage import ALL_PX, PARTS, covering_plans
from ..plan.execution_plan import LATENT_CELL_PX, ExecutionPlan, VAEShape
from ..plan.target import can_pair
from ..quant import QuantRecipe
from ..quant.recipe import EIGHT_BIT

Calls = Iterable[Callable[[], object]]
Compile = Callable[[Calls], None]
"""Takes the calls of one plan; what it does with them is its affair, as long as it computes nothing."""

ANY_PX = tuple(size for size in ALL_PX if not any(edge % LATENT_CELL_PX for edge in size))
"""Rows and columns that between them need every kernel that any size in whole latents needs."""
_META = torch.device("meta")
_DIT_LAYERS = 3
"""The first, one between, and the last, which are launched differently."""
_LATENTS = ((1, 8, 8), (3, 22, 30), (2, 58, 66), (1, 2, 2))
"""Frames, rows and columns: windows that shift and that do not, token counts that are multiples of 4, 8 and of none."""
_TEXT_TOKENS = (58, 57)
_ATTENTION: tuple[AttentionKind, ...] = ("torch-varlen", "sdpa")
"""With and without a PyTorch that has attention for sequences of several lengths."""


def generation_spec(generation: str) -> DeviceSpec:
    """A GPU of which only the generation is known, such as `sm_120`."""
    shared = ARCHITECTURES[generation].shared_memory_bytes
    return DeviceSpec(generation, generation, 0, shared, 0, 0.0, MatrixRates(0, 0, 0, 0))


@torch.no_grad()
def launch_vae(
    config: VAEConfig,
    generation: str,
    compile: Compile,
    *,
    formats: Sequence[Format] | None = None,
    sizes_px: Sequence[tuple[int, int]] = ANY_PX,
) -> None:
    """Hand over what encoding and decoding launch: in these formats (None: all of the generation), in these sizes.

    Also for recipes of 8 bits in which the accuracy check keeps layers in 16, and without pairs of frames.
    """
    spec = generation_spec(generation)
    with _META:
        vae = VideoVAE(config).requires_grad_(False).eval()
    maxima = {name: torch.empty(module.weight.shape[1], device=_META) for name, module in smoothed_layers(vae)}
    backend = triton_backend()._replace(compile=compile)
    for format in formats or formats_of(generation):
        for recipe in _recipes(vae, format):
            engine = VAEEngine(vae, recipe, spec, backend, device=_META, options=EngineOptions(maxima=maxima))
            for plan in _plans(spec, recipe, config, sizes_px):
                engine.session.prepare(plan)
                engine.release()


def _recipes(vae: VideoVAE, format: Format) -> Iterator[QuantRecipe]:
    """All layers in a format; and where some may be kept in 16 bits, neighbours of either format."""
    yield (plain := QuantRecipe(format))
    if format in EIGHT_BIT:
        for kept in ("conv1", "conv2"):
            names = {name: "kept" for name, _ in smoothed_layers(vae) if name.endswith(kept)}
            yield dataclasses.replace(plain, kept_in_16_bits={**plain.kept_in_16_bits, **names})


def _plans(
    spec: DeviceSpec, recipe: QuantRecipe, config: VAEConfig, sizes_px: Sequence[tuple[int, int]]
) -> Iterator[ExecutionPlan]:
    if recipe == QuantRecipe(recipe.precision):
        yield from covering_plans(spec, [recipe.precision], config, sizes_px)
        return
    for part in PARTS:
        for rows, columns in sizes_px:
            options = PlanOptions(allows_pairs=can_pair(spec, recipe))
            yield compile_vae_plan(config, recipe, spec, VAEShape(part, rows, columns, frames=None), 1 << 62, options)


@torch.no_grad()
def launch_dit(
    config: DiTConfig, generation: str, compile: Compile, *, formats: Sequence[MatrixFormat] | None = None
) -> None:
    """Hand over what a transformer launches in 16 bits, and with its products in these formats (None: all).

    Whatever the size: it is an argument of the launches.
    """
    layers = min(config.layers, _DIT_LAYERS)
    separate = layers if config.separate_layers == config.layers else min(config.separate_layers, layers - 1)
    short = dataclasses.replace(config, layers=layers, separate_layers=separate)
    windows = choose_window_config(config.head_width, generation)
    backend = triton_tokens(generation)._replace(compile=compile)
    known = ARCHITECTURES[generation].matrices if formats is None else formats
    for dtype in (torch.bfloat16, torch.float16):
        for format in (None, *known):
            with _META:
                dit = NaDiT(short).to(dtype).requires_grad_(False).eval()
            if format is not None:
                dit = quantized(dit, [BlockFormat.all_in(format)] * layers)
            fused = FusedDiT(dit, backend, graphs=False, windows=windows)
            for latents in _LATENTS:
                for tokens, attention in product(_TEXT_TOKENS, _ATTENTION):
                    geometry = fused.geometry(latents, tokens, attention=attention)
                    text = torch.empty(tokens, short.text_width, device=_META)
                    conditioning = fused.conditioning(text, torch.empty((), device=_META))
                    fused.compile_kernels(
                        torch.empty(1, *latents, short.in_channels, device=_META), geometry, conditioning
                    )


def launch_color(compile: Compile) -> None:
    """Hand over what colour correction launches."""
    compile([rehearsal(import_kernels(), _META)])
