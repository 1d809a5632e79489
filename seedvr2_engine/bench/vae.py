"""The VAE's benchmark: correctness first, then the clock.

A format gets a time only if, in the same process, its kernels agree with their references and its result with FP32.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..device import DeviceSpec
from ..doctor.kernel_checks import check_plans
from ..engine.accuracy.fp16_scaling import PowerOfTwoScaling, measure_scaling
from ..engine.accuracy.sensitivity import picture
from ..engine.vae.backend import Backend
from ..engine.vae.engine import EngineOptions, VAEEngine
from ..errors import SeedVR2Error
from ..models.vae.model import VideoVAE
from ..plan import ExecutionPlan, VAEShape, compile_vae_plan
from ..plan.choices import choose_precision
from ..plan.execution_plan import FRAMES_PER_STEP
from ..quality.metrics import psnr
from ..quant import QuantRecipe
from .cases import CHECKED_FRAMES, Case

REFERENCE = "reference"
TOLERANCES = {"fp8": 0.2, "mxfp8": 0.2, "int8": 0.2, "fp16": 1e-2, "bf16": 6e-2, REFERENCE: 1e-2}
"""Largest relative RMS error against FP32, end to end: several times what rounding costs on random weights, and far
below what a wrong tap or scale costs. What is finer than that is found kernel by kernel."""
_SMALLEST_PX = 256
_CHECKED_ROWS_PX = 64
"""Rows of the pictures that kernels are checked with; the columns are the case's, which decide the configurations."""


@dataclass(frozen=True)
class Row:
    """One format on one piece of work; figures are None where correctness failed or they make no sense."""

    case: Case
    """The work."""
    precision: str
    """Number format, or `reference` for the plain model in FP16."""
    wrong: str
    """Why there is no time; empty if there is one."""
    relative_error: float | None = None
    """RMS error against FP32 over its RMS, first five frames."""
    psnr_db: float | None = None
    """Of the same, as pictures in [0, 1] where it is a decode."""
    ms: float | None = None
    """Median of the runs."""
    spread_ms: float | None = None
    """Slowest less fastest."""
    runs: int = 0
    """Timed runs."""
    frames_per_s: float | None = None
    """Picture frames."""
    tflops: float | None = None
    """Arithmetic of the plan (which is less than the model's as written) over the time."""
    matrix_share: float | None = None
    """Of the rate of a large matrix product in the same format and process."""
    peak_bytes: int | None = None
    """GPU memory that the engine and its result took at most; the input is the caller's."""
    planned_bytes: int | None = None
    """What the plan predicted."""
    area: str = ""
    """Whole frames or tiles."""
    note: str = ""
    """What else the reader should know."""


@dataclass(frozen=True)
class Bench:
    """Where and how to measure; the same for all rows."""

    vae: VideoVAE
    """The model, FP32, on the CPU."""
    spec: DeviceSpec
    """The GPU."""
    device: torch.device
    """Where it is."""
    backend: Backend
    """The kernels."""
    repeats: int = 5
    """Timed runs of each row."""
    budget_bytes: int | None = None
    """Memory for the plans; None is what is free."""

    def rows(self, case: Case, precisions: Iterable[str], matrix_tflops: Mapping[str, float | None]) -> Iterator[Row]:
        """Check and measure each format; errors that a user can meet become a row's reason for having no time.

        precisions: number formats and `reference`. matrix_tflops: rate of a large product by format.
        """
        try:
            exact = self._exact(case)
        except (SeedVR2Error, torch.cuda.OutOfMemoryError) as error:
            yield from (
                Row(case, precision, f"nothing to compare with: {_first_line(error)}") for precision in precisions
            )
            return
        for precision in precisions:
            self._clean()
            try:
                if precision == REFERENCE:
                    yield self._reference(case, exact)
                else:
                    yield self._engine(case, precision, exact, matrix_tflops.get(precision))
            except (SeedVR2Error, torch.cuda.OutOfMemoryError) as error:
                yield Row(case, precision, _first_line(error))

    @cached_property
    def _scaling(self) -> PowerOfTwoScaling:
        return measure_scaling(_copy(self.vae, self.device, torch.float32), self.spec)

    def _engine(self, case: Case, precision: str, exact: "Exact", matrix_tflops: float | None) -> Row:
        # Raises for a format that the GPU lacks, for which a plan would take 16 bits in every layer.
        decision = choose_precision(precision, self.spec)
        assert decision.format is not None
        recipe = QuantRecipe(decision.format)
        wrong = self._check_kernels(case, recipe)
        if wrong:
            return Row(case, precision, wrong)
        scaling = self._scaling
        before = self._allocated()
        options = EngineOptions(budget_bytes=self.budget_bytes, scaling=scaling)
        engine = VAEEngine(self.vae, recipe, self.spec, self.backend, device=self.device, options=options)
        run = engine.decode if case.part == "decode" else engine.encode
        row = self._timed(case, precision, run, exact, before)
        if row.ms is None:
            return row
        plan = engine.plan(case.shape)
        tflops = plan_flops(plan, case.frames) / row.ms / 1e9
        return replace(
            row,
            tflops=tflops,
            matrix_share=None if matrix_tflops is None else tflops / matrix_tflops,
            planned_bytes=plan.memory.peak,
            area="whole frames" if plan.tile_px is None else f"tiles of {plan.tile_px[1]}x{plan.tile_px[0]} px",
            note=f"{plan.memory.host / 1e9:.2f} GB of host memory" if plan.memory.host else "",
        )

    def _reference(self, case: Case, exact: "Exact") -> Row:
        before = self._allocated()
        dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        model = _copy(self.vae, self.device, dtype)

        def run(x: Tensor) -> Tensor:
            return model.decode(x, slice_frames=4) if case.part == "decode" else model.encode(x, slice_frames=4)

        note = f"plain PyTorch, {str(dtype).removeprefix('torch.')}, four frames at a time"
        return replace(self._timed(case, REFERENCE, run, exact, before), area="whole frames", note=note)

    def _timed(self, case: Case, precision: str, run: Callable[[Tensor], Tensor], exact: "Exact", before: int) -> Row:
        """Compare with FP32, and only then measure. before: bytes that were allocated without the model."""
        actual = run(exact.x).float().cpu()
        error = ((actual - exact.y).norm() / exact.y.norm()).item()
        psnr_db = psnr(picture(actual), picture(exact.y)) if case.part == "decode" else None
        if not error <= TOLERANCES[precision]:
            wrong = f"relative error {error:.2e} against FP32; at most {TOLERANCES[precision]:.0e} would be right"
            return Row(case, precision, wrong, error, psnr_db)
        x = case.input(case.frames, self.vae.config, self.device)
        times_ms, peak = self._time(lambda: run(x))
        ms = statistics.median(times_ms)
        return Row(
            case,
            precision,
            wrong="",
            relative_error=error,
            psnr_db=psnr_db,
            ms=ms,
            spread_ms=max(times_ms) - min(times_ms),
            runs=len(times_ms),
            frames_per_s=case.frames / ms * 1e3,
            peak_bytes=peak - before - x.nbytes if self.device.type == "cuda" else None,
        )

    def _check_kernels(self, case: Case, recipe: QuantRecipe) -> str:
        """The first kernel of the plan that is wrong; empty if none is."""
        frames = min(case.frames, CHECKED_FRAMES)
        shape = VAEShape(case.part, min(case.height_px, _CHECKED_ROWS_PX), case.width_px, frames)
        plan = compile_vae_plan(self.vae.config, recipe, self.spec, shape, 1 << 62)
        if plan.refusals:
            return plan.refusals[0]
        for check in check_plans([plan], self.backend, self.device):
            if check.wrong:
                return f"{check.layer} ({check.kernel}, {check.format}): {check.wrong}"
        return ""

    def _exact(self, case: Case) -> "Exact":
        """The first frames in FP32 by the plain model; of a smaller picture where the memory does not suffice."""
        model = _copy(self.vae, self.device, torch.float32)
        smaller = case
        while True:
            frames = min(case.frames, CHECKED_FRAMES)
            try:
                x = smaller.clip(frames, self.device)
                latent = model.encode(x, slice_frames=4)
                if case.part == "encode":
                    return Exact(x, latent.cpu())
                return Exact(latent, model.decode(latent, slice_frames=4).cpu())
            except torch.cuda.OutOfMemoryError:
                if min(smaller.width_px, smaller.height_px) < 2 * _SMALLEST_PX:
                    raise
            smaller = smaller.halved()
            self._clean()

    def _time(self, run: Callable[[], Tensor]) -> tuple[list[float], int]:
        """(milliseconds of every run, peak of allocated bytes), after two runs that compile and record."""
        for _ in range(2):
            run()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        times_ms = []
        for _ in range(self.repeats):
            self._wait()
            began = time.perf_counter()
            run()
            self._wait()
            times_ms.append((time.perf_counter() - began) * 1e3)
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
        return times_ms, peak

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _allocated(self) -> int:
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0

    def _clean(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Exact:
    """What every format is compared with."""

    x: Tensor
    """Input."""
    y: Tensor
    """FP32 result, on the CPU."""


def plan_flops(plan: ExecutionPlan, frames: int) -> int:
    """Floating-point operations of a clip by plan, tiles not counted twice."""
    steps = (frames - 1) // FRAMES_PER_STEP
    return plan.flops(first=True) + (steps * plan.flops(first=False) if steps else 0)


def matrix_tflops(format: str, device: torch.device, repeats: int = 10) -> float | None:
    """TFLOP/s of an 8192-cubed matrix product in the format's kind through PyTorch; None where it has none."""
    n = 8192
    if device.type != "cuda":
        return None
    if format in ("fp8", "mxfp8"):
        if torch.cuda.get_device_capability(device) < (8, 9):
            return None
        a = torch.randn(n, n, device=device).to(torch.float8_e4m3fn)
        one = torch.ones((), device=device)
        return _product_tflops(
            lambda: torch._scaled_mm(a, a.T, one, one, out_dtype=torch.bfloat16, use_fast_accum=True), n, repeats
        )
    if format == "int8":
        i = torch.randint(-127, 128, (n, n), device=device, dtype=torch.int8)
        return _product_tflops(lambda: torch._int_mm(i, i.T), n, repeats)
    b = torch.randn(n, n, device=device, dtype=torch.bfloat16 if format == "bf16" else torch.float16)
    return _product_tflops(lambda: b @ b, n, repeats)


def _product_tflops(product: Callable[[], Tensor], n: int, repeats: int) -> float:
    times_ms: list[float] = []
    for index in range(repeats + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        product()
        end.record()
        end.synchronize()
        if index >= 3:
            times_ms.append(begin.elapsed_time(end))
    return 2 * n**3 / statistics.median(times_ms) / 1e9


def _copy(vae: VideoVAE, device: torch.device, dtype: torch.dtype) -> VideoVAE:
    with torch.device("meta"):
        model = VideoVAE(vae.config)
    model.load_state_dict({name: t.to(device, dtype) for name, t in vae.state_dict().items()}, assign=True)
    return model.requires_grad_(False).eval()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
