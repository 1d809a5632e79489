"""Which layers `benchmarks.picture` keeps in 16 bits, what they cost, and the kernels that this needs."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from seedvr2_engine.device import DeviceSpec, MatrixRates
from seedvr2_engine.engine.vae.backend import triton_backend
from seedvr2_engine.engine.vae.engine import EngineOptions, VAEEngine
from seedvr2_engine.kernels.configs import ConvProblem
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.models.vae.model import VideoVAE
from seedvr2_engine.plan.gpus import device_spec
from seedvr2_engine.quant import QuantRecipe

PX = 192
"""Edge of all clips: the accuracy check's, so that its kernels are compiled already."""
FORMATS = ("fp8", "int8", "bf16", "fp16")
EIGHT_BIT = ("fp8", "int8")
TIMED = ("as it is", "first upsampler", "first two upsamplers", "upsamplers")
"""Recipes whose time is taken: a decode of 1280x720, 21 frames."""
CARD = DeviceSpec("any GPU", "sm_120", 70, 101_376, 16 << 30, 9e11, MatrixRates(0, 0, 0, 0))
"""What the reference kernels plan for: it has every format."""
UPSAMPLERS = tuple(f"decoder.up_blocks.{block}.upsamplers.0" for block in range(3))
LAST = "decoder.up_blocks.3"
RECIPES: Mapping[str, tuple[str, ...]] = {
    "as it is": (),
    "first upsampler": UPSAMPLERS[:1],
    "first two upsamplers": UPSAMPLERS[:2],
    "upsamplers": UPSAMPLERS,
    "first upsampler, last convolution before the picture's": (*UPSAMPLERS[:1], f"{LAST}.resnets.2.conv2"),
    "first upsampler, last resnet": (*UPSAMPLERS[:1], f"{LAST}.resnets.2"),
    "upsamplers, last resnet": (*UPSAMPLERS, f"{LAST}.resnets.2"),
    "last block": (LAST,),
    "upsamplers, last block": (*UPSAMPLERS, LAST),
}
"""Layers in 16 bits that `--recipes` tries."""
GOALS_DB = (48.0, 50.0, 52.0)


def keeping(format: str, names: Iterable[str], high: str = "fp16") -> QuantRecipe:
    """The format's recipe with these layers in 16 bits."""
    recipe = QuantRecipe(format, high)
    for name in names:
        recipe = recipe.keeping_in_16_bits(name, "measured")
    return recipe


def cheapest(errors: Mapping[str, float], costs: Mapping[str, float], goal_db: float) -> list[str]:
    """Layers to keep in 16 bits, most error for their arithmetic first, until the rest should reach the goal."""
    left, kept = sum(errors.values()), []
    for name in sorted(errors, key=lambda name: -errors[name] / costs[name]):
        if left <= 10 ** (-goal_db / 10):
            break
        kept.append(name)
        left -= errors[name]
    return kept


def jobs(quick: bool) -> list[tuple[str, str, str]]:
    """What processes are to compile side by side: format, what of it, and which part of how many."""
    both = "decode" if quick else "both"
    wanted = {("fp8", both): 3, ("int8", both): 3, ("int8", "high"): 3, ("bf16", both): 2}
    if not quick:
        wanted |= {("fp16", both): 2, ("fp8", "720p"): 1, ("fp16", "720p"): 1}
    return [(*key, f"{part}/{parts}") for key, parts in wanted.items() for part in range(parts)]


def warm(format: str, what: str, part: str, device: torch.device, high: str) -> None:
    """Compile a part of a format's kernels into Triton's cache, with random weights: those of its `decode` or of
    `both` ways, those of the layers that are kept `high` beside it, or those of a picture of `720p`.
    """
    mine, parts = (int(number) for number in part.split("/"))
    with torch.device(device):
        vae = VideoVAE(VAEConfig()).bfloat16().requires_grad_(False).eval()
    recipe = keeping(format, ["decoder", "encoder"] if what == "high" else [], high)
    kernels = triton_backend()
    found: dict[ConvProblem, int] = {}

    def conv3d(*operands: Any) -> None:
        problem = next(operand for operand in operands if isinstance(operand, ConvProblem))
        if found.setdefault(problem, len(found)) % parts == mine:
            kernels.conv3d(*operands)

    backend = kernels._replace(conv3d=conv3d)
    options = EngineOptions(uses_graphs=False)
    engine = VAEEngine(vae, recipe, device_spec(device), backend, device=device, options=options)
    rows, columns = (90, 160) if what == "720p" else (PX // 8, PX // 8)
    engine.decode(torch.randn(1, 16, 2, rows, columns, device=device))
    if what == "both":
        engine.encode(torch.zeros(1, 3, 5, PX, PX, device=device))
