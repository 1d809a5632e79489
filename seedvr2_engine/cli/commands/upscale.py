"""`seedvr2 upscale`: the options of an upscaling."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...errors import InvalidArgumentError
from ..choices import choose_models, parse_rate
from ..terminal.console import err, warn
from ..upscaling.files import Cut, Request, jobs_for
from ..upscaling.jobs import plan_jobs, run_jobs
from ..upscaling.preview import print_plan

_SIZE, _MODELS, _CHUNKS, _LOOK, _OUTPUT = "Size", "Models and machine", "Time", "Look", "Input and output"


def upscale(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A clip, a picture, a folder of clips, a folder or pattern of pictures.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The clip, picture or folder to write.")],
    resolution: Annotated[
        int | None, typer.Option(help="Shortest edge in pixels; 1080 unless --scale is given.", rich_help_panel=_SIZE)
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Factor for both edges instead.", rich_help_panel=_SIZE)] = None,
    max_resolution: Annotated[
        int | None, typer.Option(help="Longest edge that the result may have, in pixels.", rich_help_panel=_SIZE)
    ] = None,
    dit: Annotated[
        str, typer.Option(help="A transformer file, a known name, or `nano`.", rich_help_panel=_MODELS)
    ] = "auto",
    vae: Annotated[str, typer.Option(help="A VAE file, a known name, or `nano`.", rich_help_panel=_MODELS)] = "auto",
    text: Annotated[
        str, typer.Option(help="The text embedding; the transformer's own or the public one.", rich_help_panel=_MODELS)
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=_MODELS)] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="Of the VAE: fp8, mxfp8, int8, fp16 or bf16 on the engine; float32, float16 or bfloat16 without it; "
            "or auto.",
            rich_help_panel=_MODELS,
        ),
    ] = "auto",
    offload: Annotated[
        str,
        typer.Option(
            help="blocks: keep the transformer in the host's memory. auto, none or blocks.", rich_help_panel=_MODELS
        ),
    ] = "auto",
    tile: Annotated[
        int | None,
        typer.Option(help="Tiles of this many pixels for the VAE; not exact.", rich_help_panel=_MODELS),
    ] = None,
    tile_overlap: Annotated[
        int, typer.Option(help="Pixels shared by neighbouring tiles.", rich_help_panel=_MODELS)
    ] = 128,
    chunk_frames: Annotated[
        int | None,
        typer.Option(
            help="Frames that are upscaled together, 4n+1; as many as fit if not given.", rich_help_panel=_CHUNKS
        ),
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(help="Frames that neighbouring chunks share.", rich_help_panel=_CHUNKS)
    ] = None,
    vae_span: Annotated[
        str,
        typer.Option(help="What the VAE sees as one: clip, chunk (less memory), or auto.", rich_help_panel=_CHUNKS),
    ] = "auto",
    prepend_frames: Annotated[
        int, typer.Option(help="Mirrored frames before the first one, left out again.", rich_help_panel=_CHUNKS)
    ] = 0,
    color: Annotated[
        str, typer.Option(help="lab, wavelet, wavelet_adaptive, hsv, adain or none.", rich_help_panel=_LOOK)
    ] = "lab",
    seed: Annotated[int, typer.Option(help="Number that the noise follows from.", rich_help_panel=_LOOK)] = 42,
    input_noise: Annotated[
        float, typer.Option(help="Noise on the source, 0 to 1; calms artefacts.", rich_help_panel=_LOOK)
    ] = 0.0,
    latent_noise: Annotated[
        float, typer.Option(help="Noise on its latents, 0 to 1; the model draws more freely.", rich_help_panel=_LOOK)
    ] = 0.0,
    noise: Annotated[
        str, typer.Option(help="position, or reference (anew for every chunk).", rich_help_panel=_LOOK)
    ] = "position",
    hdr: Annotated[
        str,
        typer.Option(
            help="auto: PQ passes through the models on an SDR-like scale and back; off: as it is.",
            rich_help_panel=_LOOK,
        ),
    ] = "auto",
    start: Annotated[int, typer.Option(help="Frames to skip at the start.", rich_help_panel=_OUTPUT)] = 0,
    frames: Annotated[
        int | None, typer.Option(help="Frames to take; all if not given.", rich_help_panel=_OUTPUT)
    ] = None,
    each: Annotated[
        bool,
        typer.Option("--each", help="Pictures of a folder one by one, not as a sequence.", rich_help_panel=_OUTPUT),
    ] = False,
    keep_damaged: Annotated[
        bool,
        typer.Option(
            "--keep-damaged", help="Take what can be read of a damaged or truncated clip.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    codec: Annotated[
        str, typer.Option(help="auto, h264, h265, ffv1, prores or vp9.", rich_help_panel=_OUTPUT)
    ] = "auto",
    quality: Annotated[
        float | None,
        typer.Option(help="Constant rate factor, or 1 to 100 for JPEG and WebP.", rich_help_panel=_OUTPUT),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Speed of h264 and h265, ultrafast to placebo.", rich_help_panel=_OUTPUT)
    ] = "medium",
    bit_depth: Annotated[
        int | None, typer.Option(help="Bits per sample; the input's if not given.", rich_help_panel=_OUTPUT)
    ] = None,
    chroma: Annotated[str, typer.Option(help="auto, 420, 422, 444 or rgb.", rich_help_panel=_OUTPUT)] = "auto",
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace existing outputs; a folder skips them otherwise.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    rate: Annotated[
        str | None,
        typer.Option(
            help="Frames per second of a picture sequence, as 25 or 24000/1001; 24 if not given.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    deinterlace: Annotated[
        str,
        typer.Option(
            help="auto, off, bwdif (one frame for each stored one) or bwdif-fields (twice the rate).",
            rich_help_panel=_OUTPUT,
        ),
    ] = "auto",
    detelecine: Annotated[
        str,
        typer.Option(help="Undo 3:2 pulldown, 29.97 to 23.976 frames: auto, off or on.", rich_help_panel=_OUTPUT),
    ] = "auto",
    plan: Annotated[bool, typer.Option("--plan", help="Print what would run, its memory and time, and exit.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Upscale a clip, a picture, a picture sequence, or every clip of a folder."""
    from ...device import resolve_device
    from ...models.vae.tiling import TileSpec
    from ...pipeline.options import UpscaleOptions
    from ...pipeline.setup import plan_setup
    from ...video import SinkOptions

    if vae_span not in ("auto", "clip", "chunk"):
        raise InvalidArgumentError(f"VAE span: expected one of auto, clip, chunk, got {vae_span!r}.")
    options = UpscaleOptions(
        resolution=resolution,
        scale=scale,
        max_resolution=max_resolution,
        chunk_frames=chunk_frames,
        overlap=overlap,
        prepend_frames=prepend_frames,
        color=color,  # type: ignore[arg-type]
        seed=seed,
        input_noise=input_noise,
        latent_noise=latent_noise,
        noise=noise,  # type: ignore[arg-type]
        vae_span=None if vae_span == "auto" else vae_span,  # type: ignore[arg-type]
        hdr=hdr,  # type: ignore[arg-type]
        tile=None if tile is None else TileSpec(tile, tile_overlap),
    )
    sink = SinkOptions(
        codec=codec,  # type: ignore[arg-type]
        quality=quality,
        preset=preset,
        bit_depth=bit_depth,
        chroma=chroma,  # type: ignore[arg-type]
        overwrite=overwrite,
    )
    cut = Cut(
        start,
        frames,
        "keep" if keep_damaged else "refuse",
        None if rate is None else parse_rate(rate),
        deinterlace,  # type: ignore[arg-type]
        detelecine,  # type: ignore[arg-type]
    )
    resolved = resolve_device(device)
    jobs = jobs_for(source, target, each=each)
    files = choose_models(dit, vae, text)
    setup = plan_setup(files, resolved, precision=precision, offload=offload)
    for sentence in options.remarks:
        warn(sentence)
    request = Request(setup, options, sink, cut)
    if plan:
        plan_jobs(jobs, lambda job: print_plan(job, request))
        return
    err.print(files.describe(), markup=False)
    run_jobs(jobs, request, as_json=json)
