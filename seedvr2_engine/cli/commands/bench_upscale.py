"""`seedvr2 bench upscale`: how fast this machine upscales, stage by stage."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import InvalidArgumentError
from ..terminal.console import err, out, readable_size

if TYPE_CHECKING:
    from ...bench.upscale import StageTime


def bench_upscale(
    dit: Annotated[
        str, typer.Option(help="3b or 7b: the public sizes with random weights; or nano, or a transformer file.")
    ] = "3b",
    vae: Annotated[
        str,
        typer.Option(
            help="public: its sizes with random weights, whose layers all stay in the format; or nano, or a VAE file, "
            "which the accuracy check watches."
        ),
    ] = "public",
    width: Annotated[int, typer.Option(help="Width of the result in pixels.")] = 1280,
    height: Annotated[int, typer.Option(help="Height of the result in pixels.")] = 720,
    frames: Annotated[int, typer.Option(help="Frames of the clip, 4n+1; one chunk.")] = 21,
    repeats: Annotated[int, typer.Option(help="Runs of each stage; the median counts.")] = 3,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="auto, fp8, mxfp8, int8, fp16 or bf16 for the VAE engine; float32, float16, bfloat16 without."
        ),
    ] = "auto",
    offload: Annotated[bool, typer.Option("--offload", help="Keep the transformer's blocks on the host.")] = False,
    color: Annotated[str, typer.Option(help="lab, wavelet, wavelet_adaptive, hsv, adain or none.")] = "lab",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Time every stage of an upscaling, and all of them together; nothing gets a time before it is right."""
    import torch

    from ...bench.loading import bench_models
    from ...bench.upscale import bench_upscale as measure
    from ...device import resolve_device
    from ...engine.served_vae import ServedVAE
    from ...pipeline.chunks import padded_count
    from ...pipeline.options import UpscaleOptions
    from ...pipeline.setup import choose_formats

    if frames < 1 or frames != padded_count(frames):
        raise InvalidArgumentError(f"frames: expected 4n+1 (1, 5, 9, ...), got {frames}.")
    if width < 32 or height < 32 or width % 2 or height % 2 or repeats < 1:
        raise InvalidArgumentError(
            f"size and repeats: expected even edges of at least 32 px and at least one run, got {width}x{height} and "
            f"{repeats}."
        )
    formats = choose_formats(resolve_device(device), precision)
    options = UpscaleOptions(
        scale=2,
        chunk_frames=frames,
        overlap=0,
        vae_span="clip",
        color=color,  # type: ignore[arg-type]
    )
    # The public sizes take minutes on a CPU before the first line of the table.
    err.print(f"Making and checking transformer {dit} and VAE {vae} on {formats.device}.", markup=False)
    upscaler, models = bench_models(dit, vae, formats, options, offload=offload)
    stages: list[StageTime] = []
    for stage in measure(upscaler, models, options.resize((height // 2, width // 2)), frames, repeats):
        stages.append(stage)
        if not json:
            _print_stage(stage)
    served = upscaler.vae.report.precision if isinstance(upscaler.vae, ServedVAE) else str(formats.vae_dtype)
    title = f"{width}x{height}, {frames} frames, transformer {dit} in {formats.dit_dtype}, VAE {vae} in {served}, "
    title += str(formats.device)
    if json:
        gpu = torch.cuda.get_device_name(formats.device) if formats.device.type == "cuda" else None
        facts = {"what": title, "gpu": gpu, "torch": torch.__version__, "stages": [asdict(stage) for stage in stages]}
        typer.echo(dumps(facts, indent=2))
        return
    out.print(title.replace("torch.", ""), markup=False)


def _print_stage(stage: StageTime) -> None:
    cells = [f"{stage.name:30}{stage.milliseconds:8.0f} ms{stage.frames_per_s:9.2f} frames/s"]
    if stage.peak_bytes is not None:
        cells.append(f"peak {readable_size(stage.peak_bytes)}")
    if stage.flop is not None and stage.share is not None:
        tflops = stage.flop / stage.milliseconds / 1e9
        cells.append(f"{tflops:.{1 if tflops >= 1 else 3}f} TFLOP/s, {stage.share:.0%} of a matrix product's")
    out.print("  ".join(cells), markup=False)
