"""`seedvr2 plan`: what would run where, in how much memory and time, on a GPU that need not be here."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ...errors import InvalidArgumentError
from ..model_files import choose_vae, model_file
from ..terminal.console import warn, wide
from .plan_transformer import print_transformer_plan

if TYPE_CHECKING:
    from ...device import DeviceSpec
    from ...models.vae.config import VAEConfig
    from ...plan import ExecutionPlan
    from ...plan.choices import PrecisionDecision
    from ...plan.execution_plan import Operation
    from ...plan.roofline import Roofline


def plan(
    width: Annotated[int, typer.Option(help="Columns of the picture.")],
    height: Annotated[int, typer.Option(help="Rows of the picture.")],
    frames: Annotated[int, typer.Option(help="Frames of the clip; filled up to 4n+1.")] = 81,
    gpu: Annotated[str | None, typer.Option(help="A GPU such as rtx5070ti or h200; the one here if not given.")] = None,
    precision: Annotated[str, typer.Option(help="auto, fp8, mxfp8, int8, fp16 or bf16.")] = "auto",
    vram_gb: Annotated[
        float | None, typer.Option(help="Memory to plan for; nine tenths of the GPU's if not given.")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="decode, encode, or transformer: one run of it, in every format.")
    ] = None,
    encode: Annotated[bool, typer.Option("--encode", help="The same as --part encode.")] = False,
    vae: Annotated[
        str | None, typer.Option(help="A VAE file, for its widths; the public model's if not given.")
    ] = None,
    dit: Annotated[str, typer.Option(help="3b, 7b or a transformer file, for --part transformer.")] = "3b",
    json: Annotated[bool, typer.Option("--json", help="Print the whole plan as JSON.")] = False,
) -> None:
    """Print the plan of a decode, an encode or a transformer: formats, reasons, memory, and a roofline time."""
    from ...pipeline.chunks import padded_count
    from ...plan import VAEShape, compile_vae_plan
    from ...plan.choices import choose_precision, memory_budget_bytes
    from ...plan.execution_plan import LATENT_CELL_PX, Part
    from ...plan.roofline import roofline
    from ...quant import QuantRecipe

    part = part or ("encode" if encode else "decode")
    if part not in ("decode", "encode", "transformer") or (encode and part != "encode"):
        raise InvalidArgumentError(
            f"part: expected decode, encode or transformer, and no other beside --encode, got {part!r}."
        )
    device = _device(gpu)
    if part == "transformer":
        _check_size(width, height, frames)
        print_transformer_plan(device, (height, width), frames, dit, precision, json=json)
        return
    decision = choose_precision(precision, device)
    if decision.format is None:
        raise InvalidArgumentError(f"plan: the plain model would run on {device.name} ({decision.reason}); no plan.")
    _check_size(width, height, frames)
    # What reconstruct does to a clip: edges are repeated up to whole latent cells, the last frame up to 4n+1 frames.
    direction: Part = "encode" if part == "encode" else "decode"
    shape = VAEShape(
        direction, height + -height % LATENT_CELL_PX, width + -width % LATENT_CELL_PX, padded_count(frames)
    )
    recipe = QuantRecipe(decision.format)
    budget = memory_budget_bytes(device, vram_gb)
    compiled = compile_vae_plan(_config(vae), recipe, device, shape, budget)
    times = roofline(compiled, device)
    if json:
        _print_json(compiled, device, decision, times)
        return
    _print_summary(compiled, device, decision, times)
    for refusal in compiled.refusals:
        advice = "; fewer --frames or a smaller picture take less" if compiled.memory.peak > budget else ""
        warn(f"this plan cannot run: {refusal}{advice}.")
    if not compiled.refusals:
        _print_layers(compiled, times)


def _check_size(width: int, height: int, frames: int) -> None:
    if min(width, height, frames) < 1:
        raise InvalidArgumentError(f"plan: expected positive sizes, got {width}x{height} px and {frames} frames.")


def _device(gpu: str | None) -> DeviceSpec:
    from ...device import resolve_device
    from ...plan.gpus import device_spec, find_gpu, with_known_rates

    if gpu is not None:
        return find_gpu(gpu)
    device = resolve_device("auto")
    if device.type != "cuda":
        raise InvalidArgumentError("gpu: there is no CUDA GPU here to plan for; name one, such as --gpu rtx5070ti.")
    return with_known_rates(device_spec(device))


def _config(vae: str | None) -> VAEConfig:
    from ...checkpoint.detect import detect_vae
    from ...checkpoint.opening import open_checkpoint
    from ...models.vae.config import VAEConfig

    if vae is None:
        return VAEConfig()
    with open_checkpoint(model_file(str(choose_vae(vae)))) as checkpoint:
        return detect_vae(checkpoint)


def _print_json(
    compiled: ExecutionPlan, device: DeviceSpec, decision: PrecisionDecision, times: Roofline | None
) -> None:
    facts = {
        "gpu": asdict(device),
        "precision": asdict(decision),
        "plan": json_format.loads(compiled.to_json()),
        "peak_bytes": compiled.memory.peak,
        "roofline": None
        if times is None
        else {
            **asdict(times),
            "first_ms": times.first_ms,
            "step_ms": times.step_ms,
            "clip_ms": times.clip_ms(compiled.shape.frames or 1),
        },
    }
    typer.echo(json_format.dumps(facts, indent=1))


def _print_summary(
    compiled: ExecutionPlan, device: DeviceSpec, decision: PrecisionDecision, times: Roofline | None
) -> None:
    from ...plan.describe import describe_area, describe_memory

    shape, memory = compiled.shape, compiled.memory
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    facts.add_row(
        "GPU",
        f"{device.name}, {device.sm}, {device.sm_count} SMs, {device.card_memory}, "
        f"{device.bandwidth_bytes_per_s / 1e9:.0f} GB/s",
    )
    facts.add_row("work", f"{shape.part} {shape.width_px}x{shape.height_px}, {shape.frames} frames")
    facts.add_row("format", f"{decision.format} ({decision.reason})")
    count = "" if times is None or times.tiles == 1 else f"{times.tiles} "
    facts.add_row("area", count + describe_area(compiled))
    facts.add_row("GPU memory", describe_memory(memory))
    if times is None:
        facts.add_row("time", "none: the plan cannot run" if compiled.refusals else "not known: PyTorch tells no clock")
    else:
        clip_ms = times.clip_ms(shape.frames or 1)
        facts.add_row(
            "time",
            f"{_readable_ms(clip_ms)} for the clip, {(shape.frames or 1) / clip_ms * 1e3:.1f} frames a second; "
            f"first frame {_readable_ms(times.first_ms)}, then {_readable_ms(times.step_ms)} for four. A roofline, not "
            f"a measurement: {_assumptions(times)}",
        )
    wide().print(facts, markup=False)


def _readable_ms(ms: float) -> str:
    """83.04 -> "83.0 ms", 12071.3 -> "12.07 s"."""
    return f"{ms:.1f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


def _assumptions(times: Roofline) -> str:
    use = times.efficiency
    return (
        f"{use.matrix_8_bit:.0%} of the 8-bit rate, {use.matrix_16_bit:.0%} of the 16-bit rate and "
        f"{use.bandwidth:.0%} of the bandwidth on paper ({use.source})"
    )


def _print_layers(compiled: ExecutionPlan, times: Roofline | None) -> None:
    """One row for each convolution and attention, with what prepares its input."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    part = f"{compiled.shape.part}r."
    table.add_column("layer", no_wrap=True)
    table.add_column("format", no_wrap=True)
    for title in ("runs", "input ms", "kernel ms"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("kernel")
    is_picture = not compiled.steady.operations
    schedule = compiled.first if is_picture else compiled.steady
    spent: list[float | None] = [None] * len(schedule.operations)
    if times is not None:
        spent = [time.ms for time in (times.first if is_picture else times.steady)]
    prepared_ms = 0.0
    for operation, ms in zip(schedule.operations, spent, strict=True):
        if operation.problem is None and operation.kernel != "attention":
            prepared_ms += ms or 0.0
            continue
        note = f"; {operation.reason}" if operation.reason and operation.format != compiled.precision else ""
        layer = operation.layer.removeprefix(part)
        table.add_row(
            layer if operation.problem is not None else f"{layer} ({operation.kernel})",
            operation.format,
            str(schedule.order.count(operation.segment)),
            "" if ms is None else f"{prepared_ms:.3f}",
            "" if ms is None else f"{ms:.3f}",
            _kernel(operation) + note,
        )
        prepared_ms = 0.0
    wide().print(table, markup=False)


def _kernel(operation: Operation) -> str:
    from ...plan.describe import describe_config

    return (
        "PyTorch's"
        if operation.kernel == "attention" and operation.config is None
        else describe_config(operation.config)
    )
