"""Subcommands that take a clip or a picture from file to file."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from json import dumps
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import InvalidArgumentError
from ..arguments import check_count
from ..model_files import choose_vae
from ..terminal.console import err, frame_progress, out, per_second
from ..terminal.shown import shown
from ..upscaling.outputs import kept_output
from ..upscaling.told import Told

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ...pipeline.reconstruct import VideoCodec
    from ...quality.metrics import QualityMeter
    from ...video import Frame, FrameSink


def reconstruct(
    source: Annotated[str, typer.Argument(metavar="IN", help="A clip, a picture, a folder or pattern of pictures.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The clip, picture or picture sequence to write.")],
    vae: Annotated[
        str, typer.Option(help="A VAE file, a known name, or `nano`. auto: the public model if it is here, else nano.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="auto, fp8, mxfp8, int8, fp16, bf16, or reference for the plain model. auto: the fastest of the GPU, "
            "the plain model on the CPU."
        ),
    ] = "auto",
    vram_gb: Annotated[float | None, typer.Option(help="GPU memory to plan for; what is free if not given.")] = None,
    dtype: Annotated[
        str,
        typer.Option(
            help="Of the plain model, which a name here chooses: float32, float16 or bfloat16. auto: float32 on the "
            "CPU, float16 on a GPU."
        ),
    ] = "auto",
    slice_frames: Annotated[int, typer.Option(help="Frames at a time, a multiple of 4; exact at any value.")] = 4,
    tile: Annotated[
        int | None, typer.Option(help="Spatial tiles of this many pixels; saves memory, but is not exact.")
    ] = None,
    tile_overlap: Annotated[int, typer.Option(help="Pixels shared by neighbouring tiles.")] = 128,
    start: Annotated[int, typer.Option(help="Frames to skip at the start.")] = 0,
    frames: Annotated[int | None, typer.Option(help="Frames to take; all if not given.")] = None,
    codec: Annotated[
        str,
        typer.Option(
            help="auto, h264, h265, ffv1, prores, vp9, av1, or by an NVIDIA GPU h264_nvenc, hevc_nvenc, av1_nvenc."
        ),
    ] = "auto",
    quality: Annotated[float | None, typer.Option(help="Constant rate factor, or 1 to 100 for JPEG and WebP.")] = None,
    bit_depth: Annotated[int | None, typer.Option(help="Bits per sample; the input's if not given.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    deinterlace: Annotated[str, typer.Option(help="auto, off, bwdif or bwdif-fields.")] = "auto",
    detelecine: Annotated[str, typer.Option(help="Undo 3:2 pulldown: auto, off or on.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Encode and decode a clip or picture with the VAE, and measure what that costs in quality."""
    from ...device import resolve_device, resolve_dtype
    from ...models.vae.tiling import TileSpec
    from ...pipeline.reconstruct import reconstruct as run
    from ...quality.metrics import QualityMeter
    from ...video import SinkOptions, open_sink, open_source

    spec = None if tile is None else TileSpec(tile, tile_overlap)
    options = SinkOptions(codec=codec, quality=quality, bit_depth=bit_depth, overwrite=overwrite)  # type: ignore[arg-type]
    resolved = resolve_device(device)
    number_format = resolve_dtype(dtype, resolved)
    if dtype != "auto":
        precision = _plain_precision(precision, dtype)
    with open_source(
        source,
        start=start,
        frames=frames,
        deinterlace=deinterlace,  # type: ignore[arg-type]
        detelecine=detelecine,  # type: ignore[arg-type]
    ) as clip:
        check_count(len(clip), target)
        info = clip.info
        for sentence in info.remarks:
            err.print(sentence, markup=False)
        meter = QualityMeter()
        told = Told(clip)

        def open_output() -> FrameSink:
            return open_sink(target, width=info.width, height=info.height, source=info, options=options)

        with kept_output(open_output) as (sink, signals), signals.let_through():
            told.also(sink)
            told.tell()
            model = _load(vae, resolved, number_format, precision, vram_gb)
            began = time.perf_counter()
            restored = _paired(clip, lambda pictures: run(pictures, model, slice_frames=slice_frames, tile=spec))
            _write(restored, sink, meter, total=len(clip))
            seconds = time.perf_counter() - began
    told.tell()
    _report(target, meter, seconds, as_json=json)


def _plain_precision(precision: str, dtype: str) -> str:
    if precision not in ("auto", "reference"):
        raise InvalidArgumentError(
            f"precision: {precision} was asked for together with dtype {dtype}, which is the plain model's; "
            "leave one of them out."
        )
    return "reference"


def _load(vae: str, device: torch.device, dtype: torch.dtype, precision: str, vram_gb: float | None) -> VideoCodec:
    """The engine on a GPU, the plain model on the CPU."""
    from ...engine.optimize import optimize_3d_vae_for_blackwell
    from ...loading import load_vae

    model = load_vae(choose_vae(vae), device=device, dtype=dtype)
    if device.type != "cuda" and precision in ("auto", "reference"):
        return model
    served = optimize_3d_vae_for_blackwell(model, device=device, precision=precision, vram_gb=vram_gb, verbose=False)
    report = served.report
    err.print(f"VAE engine: {report.precision} on {report.device} ({report.reason})", markup=False)
    if report.accuracy is not None:
        err.print(f"VAE engine: {report.accuracy.describe()}", markup=False)
    return served


def _paired(
    clip: Iterable[Frame], restore: Callable[[Iterable[Tensor]], Iterator[Tensor]]
) -> Iterator[tuple[Frame, Tensor]]:
    """Every frame beside what `restore`, which may read a few frames ahead, makes of it."""
    waiting: deque[Frame] = deque()

    def pictures() -> Iterator[Tensor]:
        for frame in clip:
            waiting.append(frame)
            yield frame.rgb

    for picture in restore(pictures()):
        yield waiting.popleft(), picture


def _write(pairs: Iterable[tuple[Frame, Tensor]], sink: FrameSink, meter: QualityMeter, *, total: int) -> None:
    with frame_progress() as bar:
        task = bar.add_task("reconstruct", total=total)
        for frame, picture in pairs:
            meter.add(picture, frame.rgb)
            sink.write(picture, pts=frame.pts, alpha=frame.alpha, metadata=frame.metadata)
            bar.advance(task)


def _report(target: Path, meter: QualityMeter, seconds: float, *, as_json: bool) -> None:
    quality = meter.summary()
    if as_json:
        facts: dict[str, object] = {"output": str(target), "seconds": round(seconds, 3), **asdict(quality)}
        # JSON has no infinity, which is the PSNR of identical pictures.
        typer.echo(dumps({key: None if value == inf else value for key, value in facts.items()}, indent=2))
        return
    ssim = "" if quality.mean_ssim is None else f", SSIM {quality.mean_ssim:.4f}"
    plural, worst = ("s", f" (worst frame {quality.min_psnr_db:.2f})") if quality.frames > 1 else ("", "")
    out.print(
        f"{shown(str(target))}: {quality.frames} frame{plural} in {seconds:.1f} s "
        f"({per_second(quality.frames, seconds)}); "
        f"against the input, before the output's own compression: PSNR {quality.psnr_db:.2f} dB{worst}{ssim}",
        markup=False,
    )
