"""`seedvr2 kernels`: compiled kernels that travel."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ..terminal.console import err, out


def build(
    arch: Annotated[str, typer.Option(help="Generation of GPUs, such as sm_120.")],
    out_folder: Annotated[Path, typer.Option("--out", help="The folder to make; it may not exist.")],
    part: Annotated[
        list[str] | None, typer.Option(help="color, vae, 3b, 7b or nano; may be repeated; all if not given.")
    ] = None,
    format: Annotated[
        list[str] | None, typer.Option(help="A number format; may be repeated; all of the generation if not given.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Kernels compiled side by side; one a core.")] = None,
) -> None:
    """Compile what the engine launches on a generation of GPUs into a folder that travels. Needs Triton, and no GPU."""
    from ...doctor.packing import PARTS, PackRequest, build_folder

    request = PackRequest(arch, tuple(part or PARTS), tuple(format) if format else None, jobs)
    began = time.monotonic()
    with err.status("compiling") as status:
        manifest = build_folder(request, out_folder, lambda name, count: status.update(f"{name}: {count} kernels"))
    size = sum(file.stat().st_size for file in out_folder.iterdir())
    out.print(
        f"{out_folder}: {len(manifest.kernels)} kernels for {manifest.generation}, Triton {manifest.triton}, "
        f"{size / 1e6:.1f} MB, {time.monotonic() - began:.0f} s.",
        markup=False,
    )


def check(
    folder: Annotated[Path, typer.Argument(help="A folder that `seedvr2 kernels build` made.")],
) -> None:
    """Read a folder, compare every file with the manifest, and say whether it fits this Triton and this engine."""
    from ...kernels.packed.manifest import Manifest
    from ...kernels.packed.using import fitting_manifest

    manifest = Manifest.read(folder)
    for kernel in manifest.kernels:
        for kind, file in kernel.files().items():
            file.read(folder, kind)
    fitting_manifest(folder, manifest.generation)
    out.print(
        f"{folder}: {len(manifest.kernels)} kernels for {manifest.generation}, Triton {manifest.triton}, whole; they "
        "fit this installation.",
        markup=False,
    )
