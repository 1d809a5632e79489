"""Subcommands about model files: what is in one, which are known, how to get or convert one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from ...errors import InvalidArgumentError
from ..model_files import NANO, model_file
from ..terminal.console import Bar, err, out, readable_size, wide
from ..terminal.shown import shown


def info(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A safetensors or GGUF file, a known name, or `nano`.")],
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Print what a checkpoint file holds: architecture, widths, parameters, types, metadata."""
    from ...checkpoint.describe import describe_checkpoint

    description = describe_checkpoint(model_file(file))
    if json:
        typer.echo(description.to_json())
        return
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row(
        "file", f"{shown(str(description.path))} ({readable_size(description.file_bytes)}, {description.format})"
    )
    facts.add_row("architecture", description.architecture)
    if description.vae is not None:
        widths = ", ".join(map(str, description.vae.block_out_channels))
        facts.add_row("widths", f"{widths}; {description.vae.latent_channels} latent channels")
    if description.dit is not None:
        dit = description.dit
        facts.add_row("sizes", f"{dit.family} family; {dit.layers} layers, {dit.width} wide, {dit.heads} heads")
    facts.add_row("parameters", f"{description.parameters:,} in {description.tensors} tensors")
    facts.add_row("layouts", ", ".join(description.layouts))
    for use in description.quantised:
        facts.add_row("quantised", f"{use.type}: {use.tensors} tensors, {use.parameters:,} parameters")
    for key, value in description.metadata.items():
        facts.add_row(key, value if len(value) <= 100 else f"{value[:97]}...")
    wide().print(facts, markup=False)
    types = Table("type", "tensors", "parameters", "bytes", box=None, padding=(0, 2, 0, 0))
    for column in types.columns[1:]:
        column.justify = "right"
    for use in description.types:
        types.add_row(use.type, str(use.tensors), f"{use.parameters:,}", f"{use.nbytes:,}")
    out.print()
    wide().print(types)
    for problem in description.problems:
        out.print(f"problem: {problem}", markup=False)


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN", help="A SeedVR2 VAE or transformer (safetensors or GGUF), a known name, or `nano`, the VAE."
        ),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="The .gguf file to write, or .safetensors for a transformer.")
    ],
    type: Annotated[
        str | None,
        typer.Option(
            "--type",
            "-t",
            help="GGUF: F32, F16, BF16, Q8_0 (default), Q5_1, Q5_0, Q4_1 or Q4_0. Safetensors: F32, F16, BF16, FP8 "
            "(default), INT8, INT8_CONVROT, MXFP8 or NVFP4.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older conversion.")] = False,
) -> None:
    """Convert a VAE or a transformer to GGUF, or a transformer to safetensors as ComfyUI reads them.

    Norms, biases, and what matters more than it weighs keep a higher precision.
    """
    from ...checkpoint.convert import convert_to_gguf, convert_to_safetensors

    writers = {".gguf": (convert_to_gguf, "Q8_0"), ".safetensors": (convert_to_safetensors, "FP8")}
    if target.suffix.lower() not in writers:
        raise InvalidArgumentError(
            f"{target}: expected a name ending in .gguf or .safetensors, which is what is written; rename it."
        )
    write, default = writers[target.suffix.lower()]
    with Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=err,
    ) as bar:
        task = bar.add_task("convert", total=None, visible=False)
        report = write(
            model_file(source),
            target,
            (type or default).upper(),
            overwrite=overwrite,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True),
        )
    counts = ", ".join(f"{count} {name}" for name, count in report.tensors_by_type.items())
    out.print(
        f"{shown(str(report.target))}: {readable_size(report.target_bytes)} "
        f"(from {readable_size(report.source_bytes)}), "
        f"tensors: {counts}; relative RMS error of the weights {report.relative_rms:.2e}",
        markup=False,
    )
    if report.source_losses:
        out.print(f"What the source had lost before stays lost: {report.source_losses}.", markup=False)
    if report.lacks_text:
        out.print(
            "The source has no text embeddings, so the new file has none: ComfyUI's own loader needs both; this engine "
            "finds its text elsewhere.",
            markup=False,
        )


def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `seedvr2 models` lists.")],
    folder: Annotated[Path | None, typer.Option(help="Where to put it; the user cache if not given.")] = None,
) -> None:
    """Download a public model file, verify it, and move it into place."""
    from ...checkpoint.locating.hub import download as fetch
    from ...checkpoint.locating.registry import find

    model = find(name)
    with Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=err,
    ) as bar:
        task = bar.add_task(model.name, total=model.size_bytes, visible=False)
        path = fetch(
            model,
            folder,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True),
        )
    out.print(f"{shown(str(path))}: verified")


def models(
    verify: Annotated[bool, typer.Option("--verify", help="Read every known file and compare its SHA-256.")] = False,
) -> None:
    """List the public model files and those found on this machine."""
    from ...checkpoint.locating.hub import local_models, search_folders
    from ...checkpoint.locating.registry import MODEL_FILES

    folders = search_folders()  # What is wrong with them comes first.
    out.print("Public files")
    for model in MODEL_FILES:
        _print_model(model.name, f"{readable_size(model.size_bytes)}: {model.description}")
    out.print("\nIn this package")
    _print_model(NANO, "a small VAE and a small transformer, for trying things out; --vae nano, --dit nano")
    states = {True: "verified", False: "not the public file", None: "not checked"}
    here = local_models(folders, verify=verify)
    if not here:
        looked = ", ".join(map(str, folders)) or "no folder, since none is known"
        out.print(f"\nNo public file on this machine; looked in {looked}.")
        return
    out.print("\nOn this machine")
    for local in here:
        state = "own file" if local.known is None else states[local.verified]
        _print_model(local.name, f"{readable_size(local.size_bytes)}, {state}: {local.path}")


def _print_model(name: str, facts: str) -> None:
    """Two lines, so that a name that must be typed again is never cut off."""
    out.print(f"  {shown(name)}\n      {shown(facts)}")
