"""What plans run on a GPU, whatever the memory: the kernels that are compiled ahead, checked, measured and tested."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, product

from ..device import DeviceSpec
from ..kernels.configs import ConvConfig, ConvProblem, Format
from ..models.vae.config import VAEConfig
from ..quant import QuantRecipe
from .compile import PlanOptions, compile_vae_plan
from .execution_plan import CELL_PX, ExecutionPlan, Part, Step, VAEShape
from .target import can_pair

PARTS: tuple[Part, ...] = ("decode", "encode")
RAGGED_PX = ((232, 328), (72, 2024))
"""Rows and columns of pictures that no tile divides at any level; wide and narrow ones get other configurations."""
ALL_PX = (*RAGGED_PX, (71, 2023), (64, 64), (512, 512), (1024, 1024))
"""Sizes that between them need every kernel that any size needs: also odd ones, which cannot be halved through
descriptors, and those that tiles divide, for which kernels are compiled without masks."""


def survey(
    device: DeviceSpec, formats: Sequence[Format], config: VAEConfig, sizes_px: Sequence[tuple[int, int]]
) -> list[ExecutionPlan]:
    """Plans of a stream for each format, direction and size (rows, columns), whatever memory they take.

    Sizes that are no multiples of 8 are only encoded. Where frames are computed in pairs there is a second plan without
    pairs, as GPUs with less memory get it.
    """
    plans = []
    for format, part, (rows, columns) in product(formats, PARTS, sizes_px):
        if part == "decode" and (rows % CELL_PX or columns % CELL_PX):
            continue
        recipe = QuantRecipe(format)
        for pairs in (True, False) if can_pair(device, recipe) else (False,):
            options = PlanOptions(allows_pairs=pairs)
            shape = VAEShape(part, rows, columns, frames=None)
            plans.append(compile_vae_plan(config, recipe, device, shape, sys.maxsize, options))
    return plans


def distinct_steps(plans: Iterable[ExecutionPlan]) -> list[Step]:
    """One step for each kernel of ours in each configuration, in the order of the plans."""
    found: dict[tuple[object, ...], Step] = {}
    for plan in plans:
        for step in chain(plan.first.steps, plan.steady.steps):
            if step.kernel != "load" and (step.kernel != "attention" or step.config is not None):
                found.setdefault(_identity(step), step)
    return list(found.values())


def distinct_kernels(plans: Iterable[ExecutionPlan]) -> dict[tuple[object, ...], Step]:
    """The convolutions and attentions that compilers tell apart, which pictures of many sizes share.

    The key is what a kernel is compiled for; the step is the first that runs it.
    """
    found: dict[tuple[object, ...], Step] = {}
    for step in distinct_steps(plans):
        if step.problem is not None and isinstance(step.config, ConvConfig):
            found.setdefault(_compiled_for(step.problem, step.config), step)
        elif step.kernel == "attention":
            found.setdefault((step.kernel, step.format, step.size[2], step.config), step)
    return found


def _identity(step: Step) -> tuple[object, ...]:
    """What makes two operations the same kernel in the same configuration."""
    if step.kernel == "norm":
        return step.kernel, step.size[2], step.format, bool(step.norm), step.activates, step.frames, step.makes_sums
    return step.kernel, step.format, step.problem, step.config


def _compiled_for(problem: ConvProblem, config: ConvConfig) -> tuple[object, ...]:
    # Sizes and the count of frames are arguments of a launch; a paired kernel always computes two.
    return replace(problem, height_px=0, width_px=0, frames=1), config, config.divides(problem.grid_px)
