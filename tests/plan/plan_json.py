"""A plan read back from what `ExecutionPlan.to_json` wrote, to see that nothing is missing there."""

import json
from typing import Any

from seedvr2_engine.kernels.configs import AttentionConfig, ConvConfig, ConvProblem
from seedvr2_engine.plan.execution_plan import (
    Buffer,
    ExecutionPlan,
    Operation,
    PlanMemory,
    Ring,
    RingSlot,
    Schedule,
    VAEShape,
)


def from_json(text: str) -> ExecutionPlan:
    """What `to_json` wrote."""
    data = json.loads(text)
    return ExecutionPlan(
        shape=VAEShape(**data["shape"]),
        device=data["device"],
        precision=data["precision"],
        tile_px=None if data["tile_px"] is None else (data["tile_px"][0], data["tile_px"][1]),
        overlap_px=data["overlap_px"],
        first=_schedule(data["first"]),
        steady=_schedule(data["steady"]),
        rings=tuple(Ring(**{**ring, "size": tuple(ring["size"])}) for ring in data["rings"]),
        memory=PlanMemory(**data["memory"]),
        refusals=tuple(data["refusals"]),
    )


def _schedule(data: dict[str, Any]) -> Schedule:
    return Schedule(
        tuple(_operation(operation) for operation in data["operations"]),
        tuple(Buffer(**buffer) for buffer in data["buffers"]),
        tuple(data["order"]),
    )


def _operation(data: dict[str, Any]) -> Operation:
    problem, config, slot, counts = data["problem"], data["config"], data["slot"], data["counts"]
    made: dict[str, Any] = {"size": tuple(data["size"])}
    if problem is not None:
        made["problem"] = ConvProblem(**{**problem, "kernel": tuple(problem["kernel"])})
    if config is not None:
        made["config"] = ConvConfig(**config) if "tile_h" in config else AttentionConfig(**config)
    if slot is not None:
        made["slot"] = RingSlot(**slot)
    if counts is not None:
        made["counts"] = tuple(counts)
    return Operation(**{**data, **made})
