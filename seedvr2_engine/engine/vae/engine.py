"""The VAE on kernels: `encode`, `decode` and their streams with the plain model's signatures."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor

from ...device import DeviceSpec
from ...errors import DeviceMemoryError, EngineUnsupportedError, InvalidArgumentError
from ...kernels.layout import DTYPES, PICTURE_FORMAT
from ...models.vae.inputs import batches, check_frames, check_input, check_slices
from ...models.vae.model import VideoVAE
from ...models.vae.tiling import TileGrid, TileSpec, decode_grid, encode_grid
from ...plan.compile import PlanOptions, compile_vae_plan
from ...plan.execution_plan import FRAMES_PER_STEP, LATENT_CELL_PX, ExecutionPlan, Part, VAEShape
from ...quant import QuantRecipe
from ..accuracy.calibrate import calibrate_on
from ..accuracy.fp16_scaling import PowerOfTwoScaling
from .backend import Backend
from .clip_run import ClipRun
from .session import Session
from .weights import WeightStore

SMALLER = 0.75
"""What is left of the budget when a plan turned out not to fit."""
RESERVE_BYTES = 300 << 20
"""GPU memory that a budget found by asking leaves alone."""


@dataclass(frozen=True)
class EngineOptions:
    """How an engine runs."""

    plan: PlanOptions = field(default_factory=PlanOptions)
    """What is asked of its plans."""
    budget_bytes: int | None = None
    """GPU memory that weights, working memory and one result may take; None is what is free when a plan is made."""
    uses_graphs: bool = True
    """Whether steps are recorded as CUDA graphs."""
    scaling: PowerOfTwoScaling = field(default_factory=PowerOfTwoScaling)
    """Of the tensors in 16 bits; `measure_scaling` finds those that keep a VAE within FP16."""
    maxima: Mapping[str, Tensor] | None = None
    """Layer -> (C,), the largest input of every channel, for INT8; None measures them (`calibrate_on`)."""


class VAEEngine:
    """Encodes and decodes like `VideoVAE`, by plan, on kernels.

    Pictures come out in FP16 and latents in FP32, on the engine's device. Not thread-safe; streams may be interleaved.
    """

    def __init__(
        self,
        vae: VideoVAE,
        recipe: QuantRecipe,
        device_spec: DeviceSpec,
        backend: Backend,
        *,
        device: str | torch.device = "cuda",
        options: EngineOptions | None = None,
    ) -> None:
        """vae: the plain model, on any device; its tensors are read, not kept on the GPU.

        INT8 recipes run it on small clips, for the largest values of every channel, unless the options have them.
        """
        self.config = vae.config
        self.recipe = recipe
        self.device_spec = device_spec
        self.options = options or EngineOptions()
        self.device = torch.device(device)
        self.backend = backend
        maxima = self.options.maxima
        if maxima is None and recipe.precision == "int8":
            maxima = calibrate_on(vae, self.device)
        self.weights = WeightStore(vae.state_dict(), self.device, maxima, self.options.scaling)
        self.session = self._new_session()
        self._plans: dict[tuple[VAEShape, TileSpec | None], ExecutionPlan] = {}
        self._budget = self.options.budget_bytes

    def with_recipe(self, recipe: QuantRecipe) -> "VAEEngine":
        """The same engine with other formats; layers whose format stays share their packed weights.

        The recipe's 8-bit format must be this one's, which it was calibrated for. Memory of this engine is released,
        weights in formats that are not used any more too.
        """
        if recipe.is_quantized and recipe.precision != self.recipe.precision:
            raise InvalidArgumentError(
                f"recipe: expected the engine's format {self.recipe.precision}, got {recipe.precision}; "
                "make a new engine."
            )
        self.release()
        self.weights.forget(recipe)
        other = copy(self)
        other.recipe = recipe
        other.session = other._new_session()
        other._plans = {}
        return other

    def _new_session(self) -> Session:
        session = Session(self.config, self.backend, self.weights, self.device)
        if not self.options.uses_graphs:
            session.graphs = None
        return session

    @property
    def dtype(self) -> torch.dtype:
        """Number format of decoded pictures."""
        return DTYPES[PICTURE_FORMAT]

    @property
    def nbytes(self) -> int:
        """Bytes on its device: packed weights and working memory."""
        return self.weights.nbytes + self.session.memory_bytes

    def plan(self, shape: VAEShape, tile: TileSpec | None = None) -> ExecutionPlan:
        """The plan for a shape, made once. Raises EngineUnsupportedError, naming the reason, where there is none."""
        key = shape, tile
        if key not in self._plans:
            options = replace(self.options.plan, tile=tile) if tile is not None else self.options.plan
            budget = self._budget if self._budget is not None else self._free_bytes(shape.part)
            plan = compile_vae_plan(self.config, self.recipe, self.device_spec, shape, budget, options)
            if plan.refusals:
                raise EngineUnsupportedError(
                    f"engine: {shape.part} {shape.width_px}x{shape.height_px} px cannot run: {plan.refusals[0]}; "
                    "use the plain model, a smaller picture, or another precision."
                )
            self._plans[key] = plan
        return self._plans[key]

    def limit(self, budget_bytes: int) -> None:
        """Plan with so much GPU memory from now on; another figure than before drops the plans made until now."""
        self.options = replace(self.options, budget_bytes=budget_bytes)
        if budget_bytes != self._budget:
            self._budget = budget_bytes
            self._plans.clear()

    def release(self) -> None:
        """Give working memory and graphs back; weights stay. Open streams go on afterwards."""
        self.session.release()

    def encode(self, video: Tensor, *, slice_frames: int | None = None, tile: TileSpec | None = None) -> Tensor:
        """Encode (N, 3, 4n+1, H, W) in [-1, 1] to the posterior mean (N, 16, n+1, H//8, W//8), unscaled, FP32.

        tile: spatial tiles; None leaves it to the plan. slice_frames is checked, and changes nothing: the engine always
        goes one latent frame at a time.
        """
        return self.encode_distribution(video, slice_frames=slice_frames, tile=tile)[0]

    @torch.no_grad()
    def encode_distribution(
        self, video: Tensor, *, slice_frames: int | None = None, tile: TileSpec | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `encode`: the posterior's mean, and its log-variance clamped to [-30, 20]."""
        check_slices(slice_frames, FRAMES_PER_STEP)
        check_input("video", video, self.config.image_channels)
        check_frames(video.shape[2], FRAMES_PER_STEP)
        mean, logvar = self._whole("encode", video, tile).chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    @torch.no_grad()
    def decode(self, latent: Tensor, *, slice_frames: int | None = None, tile: TileSpec | None = None) -> Tensor:
        """Decode (N, 16, n+1, h, w), unscaled, to (N, 3, 4n+1, 8h, 8w), nominally in [-1, 1], not clamped, FP16.

        Arguments as in `encode`.
        """
        check_slices(slice_frames, FRAMES_PER_STEP)
        check_input("latent", latent, self.config.latent_channels)
        return self._whole("decode", latent, tile)

    @torch.no_grad()
    def stream_encode(
        self, frames: Iterable[Tensor], *, slice_frames: int = 4, tile: TileSpec | None = None
    ) -> Iterator[Tensor]:
        """Encode frames (N, 3, H, W) as they come; yields latent frames (N, 16, H//8, W//8), unscaled, FP32.

        Their number must be 4n+1 in the end (InvalidArgumentError otherwise). Arguments as in `encode`.
        """
        check_slices(slice_frames, FRAMES_PER_STEP)
        runs: list[ClipRun] = []
        try:
            for batch in batches(frames, first=1, rest=FRAMES_PER_STEP):
                video = torch.stack(batch, dim=2)
                check_input("frame", video, self.config.image_channels)
                if len(batch) not in (1, FRAMES_PER_STEP) or (runs and len(batch) == 1):
                    raise InvalidArgumentError(
                        "frames: expected 4n+1 (1, 5, 9, ...), and the last four are not complete; "
                        "repeat the last frame to fill up."
                    )
                runs = runs or self._start_runs("encode", video, None, tile)
                moments = _step(runs, video)
                yield moments.chunk(2, dim=1)[0][:, :, 0]
        finally:
            for run in runs:
                run.close()

    @torch.no_grad()
    def stream_decode(
        self, latents: Iterable[Tensor], *, slice_frames: int = 4, tile: TileSpec | None = None
    ) -> Iterator[Tensor]:
        """Decode latent frames (N, 16, h, w), unscaled, as they come; yields frames (N, 3, 8h, 8w), FP16.

        Each latent frame's pictures come out before the next latent frame is asked for. Arguments as in `encode`.
        """
        check_slices(slice_frames, FRAMES_PER_STEP)
        runs: list[ClipRun] = []
        try:
            for frame in latents:
                latent = frame[:, :, None] if frame.ndim == 4 else frame
                check_input("latent", latent, self.config.latent_channels)
                runs = runs or self._start_runs("decode", latent, None, tile)
                yield from _step(runs, latent).unbind(dim=2)
        finally:
            for run in runs:
                run.close()

    def _whole(self, part: Part, x: Tensor, tile: TileSpec | None) -> Tensor:
        """All clips of a batch, one after the other."""
        decodes = part == "decode"
        frames = (x.shape[2] - 1) * FRAMES_PER_STEP + 1 if decodes else x.shape[2]
        runs = self._start_runs(part, x, frames, tile)
        rows, columns = x.shape[-2] * LATENT_CELL_PX, x.shape[-1] * LATENT_CELL_PX
        size: tuple[int, ...] = (self.config.image_channels, frames, rows, columns)
        if not decodes:
            latents = (frames - 1) // FRAMES_PER_STEP + 1
            size = (
                2 * self.config.latent_channels,
                latents,
                x.shape[-2] // LATENT_CELL_PX,
                x.shape[-1] // LATENT_CELL_PX,
            )
        dtype = DTYPES[PICTURE_FORMAT] if decodes else torch.float32
        try:
            result = torch.empty(len(x), *size, dtype=dtype, device=self.device)
        except torch.cuda.OutOfMemoryError as error:
            self._let_go()
            raise DeviceMemoryError(
                f"engine: the result of this {part} takes {len(x) * prod(size) * dtype.itemsize / 1e9:.2f} GB of GPU "
                f"memory and is not there; use stream_{part}, which gives it frame by frame."
            ) from error
        for run, clip, out in zip(runs, x, result, strict=True):
            try:
                run.whole(clip, out)
            finally:
                run.close()
        return result

    def _start_runs(self, part: Part, x: Tensor, frames: int | None, tile: TileSpec | None) -> list[ClipRun]:
        """A run for every clip of a batch (N, C, T, H, W), with all memory that its steps need.

        Where there is less memory than was planned with, plans again with a smaller budget, once.
        """
        scale = LATENT_CELL_PX if part == "decode" else 1
        shape = VAEShape(part, x.shape[-2] * scale, x.shape[-1] * scale, frames)
        try:
            return self._prepare_runs(x, shape, tile)
        except torch.cuda.OutOfMemoryError:
            plan = self.plan(shape, tile)
        self._let_go()
        planned = plan.memory.peak
        self._budget = int(planned * SMALLER)
        self._plans.clear()
        warnings.warn(
            f"{part} {shape.width_px}x{shape.height_px} px: {planned / 1e9:.2f} GB of GPU memory were planned and are "
            f"not there; planning again with {self._budget / 1e9:.2f} GB.",
            stacklevel=4,
        )
        try:
            return self._prepare_runs(x, shape, tile)
        except (torch.cuda.OutOfMemoryError, EngineUnsupportedError) as error:
            self._let_go()
            raise DeviceMemoryError(
                f"engine: {part} {shape.width_px}x{shape.height_px} px was planned with {planned / 1e9:.2f} GB of GPU "
                f"memory, then with {self._budget / 1e9:.2f} GB, and {self._free_bytes(part) / 1e9:.2f} GB can be had; "
                "close other programs, or set tile_size or a smaller picture."
            ) from error

    def _let_go(self) -> None:
        self.session.release()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _prepare_runs(self, x: Tensor, shape: VAEShape, tile: TileSpec | None) -> list[ClipRun]:
        plan = self.plan(shape, tile)
        grid = None
        if plan.tile_px is not None:
            make_grid = decode_grid if shape.part == "decode" else encode_grid
            grid = make_grid(x.shape[-2], x.shape[-1], TileSpec(plan.tile_px, plan.overlap_px), LATENT_CELL_PX)
        plans = self._tile_plans(shape, plan, grid)
        for one in sorted({id(one): one for one in plans}.values(), key=lambda one: -one.memory.peak):
            self.session.prepare(one)
        return [ClipRun(self.session, plans, grid) for _ in x]

    def _tile_plans(self, shape: VAEShape, plan: ExecutionPlan, grid: TileGrid | None) -> list[ExecutionPlan]:
        """The plan of each tile: a smaller whole frame."""
        if grid is None:
            return [plan]
        scale = LATENT_CELL_PX if shape.part == "decode" else 1
        plans = []
        for tile in grid:
            rows, columns = (part.stop - part.start for part in tile.source)
            part_shape = VAEShape(shape.part, rows * scale, columns * scale, shape.frames)
            plans.append(self._untiled(part_shape))
        return plans

    def _untiled(self, shape: VAEShape) -> ExecutionPlan:
        key = shape, None
        if key not in self._plans:
            options = replace(self.options.plan, tile=None, allows_tiles=False, allows_host=False)
            # The tiles' size was chosen by memory already.
            plan = compile_vae_plan(self.config, self.recipe, self.device_spec, shape, 1 << 62, options)
            self._plans[key] = plan
        return self._plans[key]

    def _free_bytes(self, part: Part) -> int:
        if self.device.type != "cuda":
            return 1 << 62
        free, _ = torch.cuda.mem_get_info(self.device)
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return max(0, free + cached + self.session.reusable_bytes(part) - RESERVE_BYTES)


def _step(runs: list[ClipRun], x: Tensor) -> Tensor:
    """The next step of every clip of a batch."""
    results = [run.step(part) for run, part in zip(runs, x, strict=True)]
    return torch.stack(results) if len(results) > 1 else results[0][None]
