"""`seedvr2 upscale`: the options of an upscaling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InvalidArgumentError
from ...jobs.cut import Cut
from ...spans import span
from ..arguments import parse_rate
from ..model_files import ModelChoice
from ..pages import write_upscale_page
from ..terminal.console import err, warn
from ..upscaling import flags
from ..upscaling.files import Job, Request, Result, jobs_for
from ..upscaling.jobs import plan_jobs, run_jobs
from ..upscaling.preview import print_plan

if TYPE_CHECKING:
    from ...page.making import PageRequest


def upscale(
    source: flags.Source,
    target: flags.Target,
    resolution: flags.Resolution = None,
    scale: flags.Scale = None,
    max_resolution: flags.MaxResolution = None,
    dit: flags.Dit = "auto",
    vae: flags.Vae = "auto",
    text: flags.Text = "auto",
    device: flags.Device = "auto",
    devices: flags.Devices = None,
    precision: flags.Precision = "auto",
    dit_precision: flags.DitPrecision = "auto",
    offload: flags.Offload = "auto",
    tile: flags.Tile = None,
    tile_overlap: flags.TileOverlap = 128,
    chunk_frames: flags.ChunkFrames = None,
    overlap: flags.Overlap = None,
    vae_span: flags.VaeSpan = "auto",
    shots: flags.Shots = "off",
    prepend_frames: flags.PrependFrames = 0,
    color: flags.Color = "lab",
    seed: flags.Seed = 42,
    input_noise: flags.InputNoise = 0.0,
    latent_noise: flags.LatentNoise = 0.0,
    noise: flags.Noise = "position",
    hdr: flags.Hdr = "auto",
    start: flags.Start = 0,
    frames: flags.Frames = None,
    each: flags.Each = False,
    keep_damaged: flags.KeepDamaged = False,
    codec: flags.Codec = "auto",
    quality: flags.Quality = None,
    preset: flags.Preset = "medium",
    bit_depth: flags.BitDepth = None,
    chroma: flags.Chroma = "auto",
    overwrite: flags.Overwrite = False,
    page: flags.Page = None,
    page_media: flags.PageMedia = "embed",
    restart: flags.Restart = False,
    keep_job: flags.KeepJob = False,
    rate: flags.Rate = None,
    deinterlace: flags.Deinterlace = "auto",
    detelecine: flags.Detelecine = "auto",
    plan: flags.Plan = False,
    gpu: flags.Gpu = None,
    json: flags.Json = False,
) -> None:
    """Upscale a clip, a picture, a picture sequence, or every clip of a folder."""
    with span("imports"):
        from ...jobs.job import JobOptions, Precisions
        from ...jobs.shots.choice import parse_choice
        from ...models.vae.tiling import TileSpec
        from ...pipeline.options import UpscaleOptions
        from ...video import SinkOptions

    if vae_span not in ("auto", "clip", "chunk"):
        raise InvalidArgumentError(f"VAE span: expected one of auto, clip, chunk, got {vae_span!r}.")
    if gpu is not None and not plan:
        raise InvalidArgumentError(
            f"gpu: expected --plan beside --gpu {gpu}, found none; --device chooses one that is here."
        )
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
        start=start,
        frames=frames,
        damaged="keep" if keep_damaged else "refuse",
        rate=None if rate is None else parse_rate(rate),
        deinterlace=deinterlace,  # type: ignore[arg-type]
        detelecine=detelecine,  # type: ignore[arg-type]
    )
    places = _places(devices, device)
    models = ModelChoice(
        dit, vae, text, device if places is None else places[0], precision, offload, dit_precision, gpu
    )
    work = JobOptions(restart=restart, keeps_folder=keep_job)
    jobs = jobs_for(source, target, each=each)
    request = Request(
        models.setup(),
        options,
        sink,
        cut,
        work,
        Precisions(precision, dit_precision, offload),
        parse_choice(shots),
        places,
    )
    for sentence in options.remarks:
        warn(sentence)
    paged = _page(page, page_media, jobs, overwrite=overwrite)
    if plan:
        plan_jobs(jobs, lambda job: print_plan(job, request))
        return
    err.print(request.setup.files.describe(), markup=False)
    if not any(request.begins(job) for job in jobs):
        run_jobs(jobs, request, as_json=json)
        return

    def then(job: Job, result: Result) -> None:
        if paged is not None:
            write_upscale_page(job, request, result, paged)

    if places is not None and len(places) > 1:
        # Every device's process loads its own.
        run_jobs(jobs, request, as_json=json, then=then)
        return
    with request.setup.beginning() as setup:
        run_jobs(jobs, replace(request, setup=setup), as_json=json, then=then)


def _page(target: Path | None, media: str, jobs: list[Job], *, overwrite: bool) -> PageRequest | None:
    """The page that is asked for; raises InvalidArgumentError or OutputError if there can be none."""
    from ...page.making import PageRequest

    if target is None:
        return None
    if len(jobs) > 1 or jobs[0].makes_folder:
        raise InvalidArgumentError(
            f"page: expected one clip or picture to upscale, got {len(jobs)}; `seedvr2 compare` makes pages of them."
        )
    request = PageRequest(target, media, overwrite)  # type: ignore[arg-type]
    request.check()
    return request


def _places(devices: str | None, device: str) -> tuple[str, ...] | None:
    """The devices that were named; raises InvalidArgumentError where `--device` names another."""
    if devices is None:
        return None
    if device != "auto":
        raise InvalidArgumentError(
            f"devices: expected --device or --devices, got --device {device} and --devices {devices}; leave one out."
        )
    from ...jobs.run import devices_of

    return devices_of(devices)
