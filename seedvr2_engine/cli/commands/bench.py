"""`seedvr2 bench vae`: time, memory and quality on the GPU at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ...errors import InvalidArgumentError
from ..model_files import choose_vae
from ..terminal.console import EXIT_INTERRUPTED, err, fail, wide

if TYPE_CHECKING:
    from ...bench.results import Results
    from ...bench.vae import Row
    from ...models.vae.model import VideoVAE

EXIT_WRONG = 1
"""A correctness check failed."""


def vae(
    size: Annotated[
        list[str] | None, typer.Option(help="[decode:|encode:]WIDTHxHEIGHTxFRAMES; may be repeated. Four if not given.")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="A number format or `reference`; may be repeated. All of the GPU, fp16 and reference else."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--vae", help="A VAE file, a known name, or `nano`; random weights if not given.")
    ] = None,
    device: Annotated[str, typer.Option(help="cuda or cuda:N.")] = "cuda",
    vram_gb: Annotated[float | None, typer.Option(help="GPU memory to plan for; what is free if not given.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each.")] = 5,
    out: Annotated[
        Path | None, typer.Option(help="A folder for the JSON file; nothing is written if not given.")
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw a PNG beside the JSON file.")] = False,
) -> None:
    """Check the VAE against plain PyTorch in FP32 on this GPU, then measure it beside plain PyTorch in FP16."""
    from ...bench.cases import DEFAULT_CASES, parse_case
    from ...bench.results import Results, now, require_matplotlib, source_commit, write_results
    from ...bench.vae import Bench, matrix_tflops
    from ...device import resolve_device
    from ...doctor.machine import inspect_machine
    from ...engine.vae.backend import triton_backend
    from ...plan.choices import memory_budget_bytes
    from ...plan.gpus import device_spec

    cases = [parse_case(text) for text in size] if size else list(DEFAULT_CASES)
    if plot:
        require_matplotlib()
        if out is None:
            raise InvalidArgumentError("plot: a plot needs a folder to go to; give --out, such as benchmarks/results.")
    if device == "cuda" and resolve_device("auto").type != "cuda":
        raise InvalidArgumentError(
            "bench vae: expected an NVIDIA GPU that PyTorch can use, found none; `seedvr2 plan --gpu NAME` says what "
            "one would do."
        )
    gpu = resolve_device(device)
    spec = device_spec(gpu)
    precisions = _precisions(precision, spec.sm)
    machine = inspect_machine(gpu)
    model, described = _model(weights)
    budget = None if vram_gb is None else memory_budget_bytes(spec, vram_gb)
    bench = Bench(model, spec, gpu, triton_backend(), repeats, budget)
    rates = {format: matrix_tflops(format, gpu) for format in precisions}
    rows: list[Row] = []
    is_whole = True
    try:
        for case in cases:
            with err.status(case.name):
                for row in bench.rows(case, precisions, rates):
                    rows.append(row)
                    err.print(f"{row.case.name} {row.precision}: {row.wrong or f'{row.ms:.1f} ms'}", markup=False)
    except KeyboardInterrupt:
        if not rows:
            raise
        is_whole = False
    results = Results(machine, now(), source_commit(), described, rates, tuple(rows))
    _print(results)
    if out is not None:
        for path in write_results(results, out, plot=plot):
            err.print(f"Written: {path}", markup=False)
    if not is_whole:
        raise typer.Exit(
            fail(f"interrupted after {len(rows)} of {len(cases) * len(precisions)} measurements.", EXIT_INTERRUPTED)
        )
    wrong = [row for row in rows if row.wrong]
    if wrong:
        sentence = f"{len(wrong)} of {len(rows)} got no time; the first: {wrong[0].case.name} {wrong[0].precision}: "
        raise typer.Exit(fail(sentence + wrong[0].wrong, EXIT_WRONG))


def _precisions(wanted: list[str] | None, sm: str) -> list[str]:
    from ...bench.vae import REFERENCE
    from ...kernels.architectures import formats_of

    offered = [*formats_of(sm), REFERENCE]
    for name in wanted or ():
        if name not in offered:
            raise InvalidArgumentError(f"precision: expected one of {', '.join(offered)} on {sm}, got {name!r}.")
    return list(dict.fromkeys(wanted)) if wanted else offered


def _model(weights: str | None) -> tuple[VideoVAE, str]:
    import torch as t

    from ...bench.cases import random_vae
    from ...loading import load_vae
    from ...models.vae.config import VAEConfig

    if weights is None:
        return random_vae(VAEConfig(), t.device("cpu")), "random full-size"
    path = weights if weights == "nano" else choose_vae(weights)
    return load_vae(path), Path(path).name


def _print(results: Results) -> None:
    machine = results.machine
    gpu = machine.gpu.name if machine.gpu is not None else "CPU"
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in results.matrix_tflops.items() if rate is not None)
    console = wide()
    console.print(
        f"{gpu}, driver {machine.driver}, PyTorch {machine.torch}, Triton {machine.triton}, {results.weights} weights, "
        f"commit {results.commit}\nMatrix products of 8192 cubed, TFLOP/s: {rates}",
        markup=False,
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in (
        "work",
        "format",
        "ms",
        "spread",
        "frames/s",
        "TFLOP/s",
        "of product",
        "peak GB",
        "plan GB",
        "dB",
        "error",
    ):
        table.add_column(title, justify="left" if title in ("work", "format") else "right", no_wrap=True)
    table.add_column("note")
    for row in results.rows:
        table.add_row(
            row.case.name,
            row.precision,
            _number(row.ms, "{:.1f}"),
            _number(row.spread_ms, "{:.1f}"),
            _number(row.frames_per_s, "{:.1f}"),
            _number(row.tflops, "{:.0f}"),
            _number(row.matrix_share, "{:.0%}"),
            _number(row.peak_bytes, "{:.2f}", 1e-9),
            _number(row.planned_bytes, "{:.2f}", 1e-9),
            _number(row.psnr_db, "{:.1f}"),
            _number(row.relative_error, "{:.1e}"),
            row.wrong or ", ".join(filter(None, (row.area, row.note))),
        )
    console.print(table, markup=False)


def _number(value: float | None, form: str, factor: float = 1.0) -> str:
    return "" if value is None else form.format(value * factor)
