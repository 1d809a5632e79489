"""Where and in which numbers an upscaling runs, and what that will take: `seedvr2 upscale --plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from ...errors import InvalidArgumentError, OutputError
from ..choices import UpscaleModels, check_count
from ..terminal.console import out, readable_size, warn
from .hdr import hdr_sentence

if TYPE_CHECKING:
    import torch

    from ...pipeline.memory import Sizes
    from ...pipeline.options import UpscaleOptions
    from ...pipeline.reconstruct import VideoCodec
    from ...pipeline.upscaler import Upscaler
    from ...video import SinkOptions, SourceInfo
    from .files import Cut, Job

PLAIN_DTYPES = ("float32", "float16", "bfloat16")
OFFLOADS = ("auto", "none", "blocks")


@dataclass(frozen=True)
class Machine:
    """Device, number formats, and whether the transformer's blocks stay on the host."""

    device: torch.device
    precision: str
    """The VAE's, as the engine names it; `reference` is the plain model."""
    vae_dtype: torch.dtype
    """Of the plain VAE."""
    dit_dtype: torch.dtype
    offload: bool

    @property
    def packed(self) -> bool:
        """Whether quantised weights stay packed, as `load_dit` decides it."""
        return self.device.type == "cuda"

    @property
    def uses_engine(self) -> bool:
        """Whether the VAE's kernels are to serve."""
        return self.precision != "reference" and (self.device.type == "cuda" or self.precision != "auto")

    def load(self, models: UpscaleModels, options: UpscaleOptions, source: tuple[int, int]) -> Upscaler:
        """Load the models; source: (height, width) of the first clip, for what the engine may plan with."""
        from ...checkpoint.text_embedding import load_text_embedding
        from ...loading_dit import load_dit
        from ...pipeline.upscaler import Upscaler

        vae = self._load_vae(models, options, source)
        return Upscaler(
            load_dit(models.dit, device=self.device, dtype=self.dit_dtype, offload=self.offload),
            vae,
            options,
            text=load_text_embedding(models.text),
        )

    def _load_vae(self, models: UpscaleModels, options: UpscaleOptions, source: tuple[int, int]) -> VideoCodec:
        from ...device import total_memory_bytes
        from ...engine.optimize import optimize_3d_vae_for_blackwell
        from ...loading import load_vae
        from ...pipeline.memory import engine_budget_bytes, estimate_memory, fitting_division

        vae = load_vae(models.vae, device=self.device, dtype=self.vae_dtype)
        if not self.uses_engine:
            return vae
        memory, sizes, resize = total_memory_bytes(self.device), self.sizes(models), options.resize(source)
        estimate = estimate_memory(sizes, resize, options, fitting_division(sizes, resize, options, memory))
        served = optimize_3d_vae_for_blackwell(vae, device=self.device, precision=self.precision, verbose=False)
        served.limit(engine_budget_bytes(estimate, memory))
        return served

    def sizes(self, models: UpscaleModels) -> Sizes:
        """What the memory follows from, from the files' headers."""
        from ...checkpoint.detect import detect_vae
        from ...checkpoint.detect_dit import detect_dit
        from ...checkpoint.opening import open_checkpoint
        from ...engine.dit.weights import device_bytes
        from ...pipeline.memory import Sizes

        with open_checkpoint(models.dit) as dit, open_checkpoint(models.vae) as vae:
            dit_config, vae_config = detect_dit(dit), detect_vae(vae)
            weights = device_bytes(dit, dit_config, self.dit_dtype, offload=self.offload, packed=self.packed)
            if not self.uses_engine:
                weights += sum(info.count for info in vae.tensors.values()) * self.vae_dtype.itemsize
        return Sizes(
            vae_config,
            dit_config,
            self.vae_dtype.itemsize,
            self.dit_dtype.itemsize,
            weights,
            vae_plans_itself=self.uses_engine,
        )

    def describe(self) -> str:
        """One line for people."""
        plain, transformer = (str(dtype).removeprefix("torch.") for dtype in (self.vae_dtype, self.dit_dtype))
        vae = f"VAE engine ({self.precision})" if self.uses_engine else f"VAE in {plain}"
        return f"{self.device}, {vae}, transformer in {transformer}{', its blocks on the host' if self.offload else ''}"


def plan_machine(models: UpscaleModels, device: torch.device, precision: str, offload: str) -> Machine:
    """Decide what is left open: number formats by device, offload by the transformer's share of a GPU's memory."""
    from ...checkpoint.detect_dit import detect_dit
    from ...checkpoint.opening import open_checkpoint
    from ...device import resolve_dit_dtype, resolve_dtype, total_memory_bytes
    from ...engine.dit.weights import LARGEST_SHARE, device_bytes
    from ...plan.choices import PRECISION_CHOICES

    if offload not in OFFLOADS:
        raise InvalidArgumentError(f"offload: expected one of {', '.join(OFFLOADS)}, got {offload!r}.")
    if precision not in (*PRECISION_CHOICES, *PLAIN_DTYPES):
        known = ", ".join((*PRECISION_CHOICES, *PLAIN_DTYPES))
        raise InvalidArgumentError(f"precision: expected one of {known}, got {precision!r}.")
    plain = precision in ("reference", *PLAIN_DTYPES)
    vae_dtype = resolve_dtype(precision if precision in PLAIN_DTYPES else "auto", device)
    dit_dtype = resolve_dit_dtype(precision, device)
    wanted = offload == "blocks"
    if offload == "auto" and device.type == "cuda":
        with open_checkpoint(models.dit) as checkpoint:
            taken = device_bytes(checkpoint, detect_dit(checkpoint), dit_dtype, offload=False, packed=True)
        wanted = taken > LARGEST_SHARE * total_memory_bytes(device)
    return Machine(device, "reference" if plain else precision, vae_dtype, dit_dtype, wanted)


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


def print_plan(
    job: Job, models: UpscaleModels, machine: Machine, options: UpscaleOptions, cut: Cut, sink: SinkOptions
) -> None:
    """Print what a job would do, in how much memory and about how long, and what cannot be kept; nothing is written."""
    from ...device import total_memory_bytes
    from ...pipeline.forecast import forecast, matrix_rate
    from ...pipeline.memory import engine_budget_bytes
    from ...video.writing.output_plan import plan_output

    with cut.open(job.source) as clip:
        check_count(len(clip), job.target)
        info, warnings = clip.info, list(clip.warnings)
    resize = options.resize((info.height, info.width))
    output = plan_output(job.target, (resize.output[1], resize.output[0]), info, sink)
    available = total_memory_bytes(machine.device)
    seen = forecast(machine.sizes(models), resize, options, frames=info.selected_frames, memory_bytes=available)
    memory, work, chunks = seen.memory, seen.work, seen.division.chunks
    vae = readable_size(memory.vae_bytes)
    if machine.uses_engine:
        vae = f"up to {readable_size(engine_budget_bytes(memory, available))}"
    seconds = work.seconds(matrix_rate(machine.device, machine.dit_dtype))
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
        ("models", models.describe()),
        ("machine", machine.describe()),
        (
            "chunks",
            f"{seen.chunk_count} of up to {chunks.chunk_frames} frames; neighbours share {chunks.overlap}; "
            f"the VAE sees {'the clip as one' if seen.division.vae_span == 'clip' else 'each on its own'}",
        ),
        ("colours", options.color),
        *((("HDR", hdr),) if (hdr := hdr_sentence(info, options.hdr)) else ()),
        (
            "memory",
            f"about {readable_size(memory.peak_bytes)} of {readable_size(available)}: weights "
            f"{readable_size(memory.weights_bytes)}, VAE {vae} or transformer "
            f"{readable_size(memory.transformer_bytes)}, frames {readable_size(memory.frames_bytes)}",
        ),
        (
            "work",
            f"{(work.encode + work.transform + work.decode) / 1e12:.2f} TFLOP: encode {work.encode / 1e12:.2f}, "
            f"transformer {work.transform / 1e12:.2f}, decode {work.decode / 1e12:.2f}",
        ),
        ("time", f"about {readable_time(seconds)}"),
    ):
        table.add_row(name, value)
    out.print(table, markup=False)
    for sentence in (*warnings, *output.losses, *_place_remarks(job, info, sink)):
        warn(sentence)
    if memory.peak_bytes > available:
        warn(
            f"this takes more memory than {machine.device} has; a smaller size, fewer --chunk-frames or --tile 512 "
            "takes less."
        )


def readable_time(seconds: float) -> str:
    """95 -> "1.6 minutes"."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return "a second or less" if seconds < 1.5 else f"{seconds:.0f} seconds"
