"""What an upscaling would do, in how much memory and about how long: `seedvr2 upscale --plan`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from ...errors import OutputError
from ..arguments import check_count
from ..terminal.console import out, readable_size, warn
from .hdr import hdr_sentence
from .in_units import work_for

if TYPE_CHECKING:
    from ...pipeline.forecast import PaperTime
    from ...video import SinkOptions, SourceInfo
    from ...video.writing.output_plan import OutputPlan
    from .files import Job, Request


def _place_remarks(job: Job, info: SourceInfo, sink: SinkOptions) -> list[str]:
    """Why the output could not be written where it is to be, as things are."""
    from ...video.writing.writer import check_place

    if job.makes_folder and job.is_done and not sink.overwrite:
        return [f"{job.target}: it exists already, so this input would be skipped (--overwrite does it again)."]
    if job.makes_folder and not job.target.parent.is_dir():
        return []
    try:
        check_place(job.target, info, sink)
    except OutputError as error:
        return [str(error)]
    return []


def print_plan(job: Job, request: Request) -> None:
    """Print what a job would do, in how much memory and about how long, and what cannot be kept; nothing is written."""
    from ...pipeline.forecast import forecast, matrix_rate, paper_time
    from ...video.writing.output_plan import plan_output

    setup, options = request.setup, request.options
    with request.cut.open(job.source) as clip:
        check_count(len(clip), job.target)
        info, warnings = clip.info, list(clip.warnings)
    plan = setup.plan(options, (info.height, info.width), info.selected_frames)
    resize, chunks, memory = plan.resize, plan.division.chunks, plan.memory
    output = plan_output(job.target, (resize.output[1], resize.output[0]), info, request.sink)
    seen = forecast(setup.sizes, plan, options, info.selected_frames)
    work = seen.work
    vae = readable_size(memory.vae_bytes)
    if plan.engine_bytes is not None:
        vae = f"up to {readable_size(plan.engine_bytes)}"
    paper = None
    if setup.gpu is not None:
        paper = paper_time(setup, plan, options, info.selected_frames, setup.gpu)
        time = "not known: the plain VAE would serve there" if paper is None else _on_paper(paper)
    else:
        seconds = work.seconds(matrix_rate(setup.formats.device, setup.formats.dit_dtype))
        time = f"about {readable_time(seconds)}"
    height, width = resize.output
    size = f"{info.width}x{info.height} to {width}x{height}, {info.selected_frames} frames"
    if resize.padded != resize.output:
        size += f" (the models see {resize.padded[1]}x{resize.padded[0]})"
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in (
        ("clip", f"{job.source} to {job.target}"),
        ("size", size),
        *(("input", sentence) for sentence in info.remarks),
        ("output", output.describe()),
        ("models", setup.files.describe()),
        ("machine", setup.describe()),
        (
            "chunks",
            f"{seen.chunk_count} of up to {chunks.chunk_frames} frames; neighbours share {chunks.overlap}; "
            f"the VAE sees {'the clip as one' if plan.division.vae_span == 'clip' else 'each on its own'}",
        ),
        ("colours", options.color),
        *((("HDR", hdr),) if (hdr := hdr_sentence(info, options.hdr)) else ()),
        (
            "memory",
            f"about {readable_size(memory.peak_bytes)} of {readable_size(plan.device_bytes)}: weights "
            f"{readable_size(memory.weights_bytes)}, VAE {vae} or transformer "
            f"{readable_size(memory.transformer_bytes)}, frames {readable_size(memory.frames_bytes)}",
        ),
        *_in_units(job, request, info, output),
        (
            "work",
            f"{(work.encode + work.transform + work.decode) / 1e12:.2f} TFLOP: encode {work.encode / 1e12:.2f}, "
            f"transformer {work.transform / 1e12:.2f}, decode {work.decode / 1e12:.2f}",
        ),
        *((("transformer", _weights(paper)),) if paper is not None else ()),
        ("time", time),
    ):
        table.add_row(name, value)
    out.print(table, markup=False)
    for sentence in (*warnings, *output.losses, *_place_remarks(job, info, request.sink)):
        warn(sentence)
    if memory.peak_bytes > plan.device_bytes:
        device = setup.gpu.name if setup.gpu else str(setup.formats.device)
        warn(
            f"this takes more memory than {device} has; a smaller size, fewer --chunk-frames or --tile 512 takes less."
        )


def _in_units(job: Job, request: Request, info: SourceInfo, output: OutputPlan) -> Iterator[tuple[str, str]]:
    """What is divided, and what it takes on the disk until it is finished."""
    from ...jobs.folder.job_folder import folder_for
    from ...jobs.job import plan_units
    from ...video.planes import coding_for

    work = work_for(job, request, info)
    if work is None:
        return
    plan = plan_units(info, request.setup, request.options, work)
    height, width = request.options.resize((info.height, info.width)).output
    longest = max(unit.frames for unit in plan.units)
    kept = folder_for(job.target)
    if output.encoder is None:
        size = f"finished units in {kept}"
    else:
        frame = coding_for(output.encoder.pix_fmt, (width, height), output.encoder.color).size_bytes
        size = f"at most {readable_size(frame * info.selected_frames)} of finished units in {kept}"
    shots = f"{len(plan.shots)} shot{'s' if len(plan.shots) > 1 else ''}"
    yield "units", f"{len(plan.units)} of up to {longest} frames, of {shots}"
    yield "disk", f"{size}, packed without loss, until the output is finished"


def _weights(paper: PaperTime) -> str:
    return f"in {paper.dit_format} if its weights bear it: {readable_size(paper.dit_weight_bytes)} of weights"


def _on_paper(paper: PaperTime) -> str:
    stages = (("encode", paper.encode_s), ("transformer", paper.transform_s), ("decode", paper.decode_s))
    parts = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in stages)
    return (
        f"about {readable_time(paper.seconds)} ({parts}), the VAE in {paper.vae_format} and the transformer in "
        f"{paper.dit_format}; by rates on paper, not measured"
    )


def readable_time(seconds: float) -> str:
    """95 -> "1.6 minutes"."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return "a second or less" if seconds < 1.5 else f"{seconds:.0f} seconds"
