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
from .execution_plan import LATENT_CELL_PX, ExecutionPlan, Operation, Part, VAEShape
from .target import can_pair

PARTS: tuple[Part, ...] = ("decode", "encode")
RAGGED_PX = ((232, 328), (72, 2024))
"""Rows and columns of pictures that no tile divides at any level; wide and narrow ones get other configurations."""
CHECKED_PX = (*RAGGED_PX, (64, 1024))
"""With one that tiles divide, which gets others again: what clips of any size need, but for masks."""
ALL_PX = (*RAGGED_PX, (71, 2023), (64, 64), (512, 512), (1024, 1024))
"""Sizes that between them need every kernel that any size needs: also odd ones, which cannot be halved through
descriptors, and those that tiles divide, for which kernels are compiled without masks."""


def covering_plans(
    device: DeviceSpec, formats: Sequence[Format], config: VAEConfig, sizes_px: Sequence[tuple[int, int]]
) -> list[ExecutionPlan]:
    """Plans of a stream for each format, direction and size (rows, columns), whatever memory they take.

    Sizes that are no multiples of 8 are only encoded. Where frames are computed in pairs there is a second plan without
    pairs, as GPUs with less memory get it.
    """
    plans = []
    for format, part, (rows, columns) in product(formats, PARTS, sizes_px):
        if part == "decode" and (rows % LATENT_CELL_PX or columns % LATENT_CELL_PX):
            continue
        recipe = QuantRecipe(format)
        for pairs in (True, False) if can_pair(device, recipe) else (False,):
            options = PlanOptions(allows_pairs=pairs)
            shape = VAEShape(part, rows, columns, frames=None)
            plans.append(compile_vae_plan(config, recipe, device, shape, sys.maxsize, options))
    return plans


def distinct_operations(plans: Iterable[ExecutionPlan]) -> list[Operation]:
    """One operation for each kernel of ours in each configuration, in the order of the plans."""
    found: dict[tuple[object, ...], Operation] = {}
    for plan in plans:
        for operation in chain(plan.first.operations, plan.steady.operations):
            if operation.kernel != "load" and (operation.kernel != "attention" or operation.config is not None):
                found.setdefault(_identity(operation), operation)
    return list(found.values())


def distinct_kernels(plans: Iterable[ExecutionPlan]) -> dict[tuple[object, ...], Operation]:
    """The convolutions and attentions that compilers tell apart, which pictures of many sizes share.

    The key is what a kernel is compiled for; the operation is the first that runs it.
    """
    found: dict[tuple[object, ...], Operation] = {}
    for operation in distinct_operations(plans):
        if operation.problem is not None and isinstance(operation.config, ConvConfig):
            found.setdefault(_compiled_for(operation.problem, operation.config), operation)
        elif operation.kernel == "attention":
            found.setdefault((operation.kernel, operation.format, operation.size[2], operation.config), operation)
    return found


def _identity(operation: Operation) -> tuple[object, ...]:
    """What makes two operations the same kernel in the same configuration."""
    if operation.kernel == "norm":
        return (
            operation.kernel,
            operation.size[2],
            operation.format,
            bool(operation.norm),
            operation.activates,
            operation.frames,
            operation.makes_winograd_inputs,
        )
    return operation.kernel, operation.format, operation.problem, operation.config


def _compiled_for(problem: ConvProblem, config: ConvConfig) -> tuple[object, ...]:
    # Sizes and the count of frames are arguments of a launch; a paired kernel always computes two.
    return replace(problem, height_px=0, width_px=0, frames=1), config, config.divides(problem.grid_px)
