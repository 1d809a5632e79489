"""`seedvr2 bench file`: what a user waits for, from the command to the picture."""

from __future__ import annotations

import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ...errors import InvalidArgumentError
from ..model_files import choose_models
from ..terminal.console import err, wide
from ..upscaling import flags

if TYPE_CHECKING:
    from ...bench.file_results import FileResults
    from ...bench.whole_command import Command, Kind, Series


def bench_file(
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- OPTIONS]", help="What else `seedvr2 upscale` is told; --scale 2 if no size is."),
    ] = None,
    clip: Annotated[
        Path | None, typer.Option(help="What is upscaled; a clip is made that is like filmed ones if not given.")
    ] = None,
    width: Annotated[int, typer.Option(min=16, help="Width of the clip that is made, in pixels.")] = 640,
    height: Annotated[int, typer.Option(min=16, help="Its height.")] = 360,
    frames: Annotated[int, typer.Option(min=1, help="Its frames.")] = 129,
    dit: Annotated[
        str,
        typer.Option(
            help="As for upscale; or 3b or 7b: one of the public sizes, FP16, which passes its input through."
        ),
    ] = "auto",
    vae: Annotated[
        str,
        typer.Option(
            help="As for upscale; or public: one of the public size, FP16, which computes what the small one does."
        ),
    ] = "auto",
    text: flags.Text = "auto",
    device: flags.Device = "auto",
    precision: flags.Precision = "auto",
    dit_precision: flags.DitPrecision = "auto",
    offload: flags.Offload = "auto",
    cold: Annotated[int, typer.Option(min=0, help="Runs that begin with empty caches.")] = 3,
    warm: Annotated[int, typer.Option(min=0, help="Runs that begin with full ones, after one to fill them.")] = 5,
    out: Annotated[
        Path | None, typer.Option(help="A folder for the JSON file; nothing is written if not given.")
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the timeline beside the JSON file.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Time `seedvr2 upscale` from file to file in fresh processes: first frame, all of it, and what it goes into."""
    from ...bench.file_results import FileResults
    from ...bench.made_clip import write_clip
    from ...bench.results import now, require_matplotlib, source_commit, write_results
    from ...bench.whole_command import Command, described
    from ...device import resolve_device
    from ...doctor.machine import inspect_machine
    from ...video import open_source

    if not cold and not warm:
        raise InvalidArgumentError("runs: expected at least one, got none; give --cold or --warm.")
    if plot:
        require_matplotlib()
        if out is None:
            raise InvalidArgumentError("plot: a plot needs a folder to go to; give --out, such as benchmarks/results.")
    told = [*(options or ())]
    if not any(option.split("=")[0] in ("--scale", "--resolution") for option in told):
        told += ["--scale", "2"]
    machine_options = {"device": device, "precision": precision, "dit-precision": dit_precision, "offload": offload}
    told += [part for name, value in machine_options.items() if value != "auto" for part in (f"--{name}", value)]
    series: list[Series] = []
    with TemporaryDirectory(prefix="seedvr2-bench-") as folder:
        files = choose_models(*_made_models(dit, vae, Path(folder)), text)
        # By path: runs with empty caches would not find what was downloaded into one.
        paths = ["--dit", str(files.dit), "--vae", str(files.vae)]
        paths += ["--text", str(files.text)] if files.text != files.dit else []
        source = clip if clip is not None else Path(folder) / "in.mp4"
        if clip is None:
            write_clip(source, width, height, frames)
        target = Path(folder) / f"out{source.suffix}"
        command = Command(source, target, (*paths, *told))
        kinds: tuple[tuple[Kind, int], ...] = (("cold", cold), ("warm", warm))
        for kind, runs in kinds:
            if runs:
                series.append(_measured(command, kind, runs))
        with open_source(target) as written:
            size, count = (written.info.width, written.info.height), written.info.frame_count
    results = FileResults(
        command=described([*_names(files.dit, files.vae), *told]),
        clip=f"{width}x{height}, {frames} frames, made" if clip is None else clip.name,
        frames=count,
        size=size,
        machine=inspect_machine(resolve_device(device)),
        date=now(),
        commit=source_commit(),
        series=tuple(series),
    )
    if json:
        typer.echo(results.to_json(), nl=False)
    else:
        _print(results)
    if out is not None:
        for path in write_results(results, out, plot=plot):
            err.print(f"Written: {path}", markup=False)


def _measured(command: Command, kind: Kind, runs: int) -> Series:
    from ...bench.whole_command import run_series

    for series in run_series(command, kind, runs):
        last = series.runs[-1]
        err.print(f"{kind}: first frame {last.first_frame_s:.1f} s, all {last.total_s:.1f} s")
    return series


def _made_models(dit: str, vae: str, folder: Path) -> tuple[str, str]:
    """The same names, or those of files made in the folder where models of the public sizes are meant."""
    from ...bench.passing_models import write_passing_dit, write_widened_vae
    from ...loading import load_vae
    from ...models.dit.config import PUBLIC_3B, PUBLIC_7B
    from ...models.vae.config import VAEConfig

    if config := {"3b": PUBLIC_3B, "7b": PUBLIC_7B}.get(dit):
        path = folder / f"passing_{dit}_fp16.safetensors"
        write_passing_dit(path, config)
        dit = str(path)
    if vae == "public":
        path = folder / "widened_vae_fp16.safetensors"
        write_widened_vae(path, load_vae("nano"), VAEConfig())
        vae = str(path)
    return dit, vae


def _names(dit: Path, vae: Path) -> list[str]:
    return ["--dit", dit.name, "--vae", vae.name]


def _print(results: FileResults) -> None:
    from ...bench.split import STAGES
    from ...bench.whole_command import percentile_90

    machine = results.machine
    gpu = machine.gpu.name if machine.gpu is not None else "CPU"
    console = wide()
    console.print(
        f"{results.command}\n{results.clip} to {results.size[0]}x{results.size[1]}, {results.frames} frames; {gpu}, "
        f"driver {machine.driver}, PyTorch {machine.torch}, Triton {machine.triton}, commit {results.commit}",
        markup=False,
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("seconds", no_wrap=True)
    columns = []
    for series in results.series:
        for name, of in (("median", statistics.median), ("p90", percentile_90)):
            table.add_column(f"{series.kind} {name}", justify="right", no_wrap=True)
            columns.append(series.summary(of))
    for title, key, form in (
        ("first frame written", "first_frame_s", "{:.2f}"),
        ("all", "total_s", "{:.2f}"),
        ("of which the loop", "loop_s", "{:.2f}"),
        ("steady frames a second", "steady_frames_per_s", "{:.2f}"),
        ("GPU at work, all", "gpu_share", "{:.0%}"),
        ("GPU at work, steady", "gpu_steady_share", "{:.0%}"),
    ):
        if any(column[key] is not None for column in columns):
            table.add_row(title, *("" if column[key] is None else form.format(column[key]) for column in columns))
    for stage in STAGES:
        if any(stage in column["split"] for column in columns):
            table.add_row(f"  {stage}", *(f"{column['split'].get(stage, 0.0):.2f}" for column in columns))
    console.print(table, markup=False)
