"""The VAE on kernels: `encode`, `decode` and their streams with the plain model's signatures."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, overload

import torch
from torch import Tensor

from ..device import DeviceSpec
from ..errors import EngineMemoryError, EngineUnsupportedError, InvalidArgumentError
from ..models.tiling import TileGrid, TileSpec, decode_grid, encode_grid
from ..models.vae import VideoVAE
from ..plan.compile import PlanOptions, compile_vae_plan
from ..plan.types import CELL_PX, FRAMES_PER_STEP, ExecutionPlan, Part, VAEShape
from ..quant import QuantRecipe
from .backend import Backend
from .bind import PICTURE_DTYPE
from .calibrate import activation_maxima
from .lanes import Lane
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

        INT8 recipes run it once on a small clip, for the largest values of every channel.
        """
        self.config = vae.config
        self.recipe = recipe
        self.device_spec = device_spec
        self.options = options or EngineOptions()
        self.device = torch.device(device)
        maxima = activation_maxima(vae) if recipe.precision == "int8" else None
        self.weights = WeightStore(vae.state_dict(), self.device, maxima)
        self.session = Session(vae.config, backend, self.weights, self.device)
        if not self.options.uses_graphs:
            self.session.graphs = None
        self._plans: dict[tuple[VAEShape, TileSpec | None], ExecutionPlan] = {}
        self._budget = self.options.budget_bytes

    @property
    def dtype(self) -> torch.dtype:
        """Number format of decoded pictures."""
        return PICTURE_DTYPE

    def plan(self, shape: VAEShape, tile: TileSpec | None = None) -> ExecutionPlan:
        """The plan for a shape, made once. Raises EngineUnsupportedError, naming the reason, where there is none."""
        key = shape, tile
        if key not in self._plans:
            options = replace(self.options.plan, tile=tile) if tile is not None else self.options.plan
            budget = self._budget if self._budget is not None else self._free_bytes()
            plan = compile_vae_plan(self.config, self.recipe, self.device_spec, shape, budget, options)
            if plan.refusals:
                raise EngineUnsupportedError(
                    f"engine: {shape.part} {shape.width_px}x{shape.height_px} px cannot run: {plan.refusals[0]}; "
                    "use the plain model, a smaller picture, or another precision."
                )
            self._plans[key] = plan
        return self._plans[key]

    def release(self) -> None:
        """Give working memory and graphs back; weights stay. Open streams go on afterwards."""
        self.session.release()

    @overload
    def encode(
        self,
        video: Tensor,
        *,
        slice_frames: int | None = ...,
        tile: TileSpec | None = ...,
        return_distribution: Literal[False] = ...,
    ) -> Tensor: ...

    @overload
    def encode(
        self,
        video: Tensor,
        *,
        slice_frames: int | None = ...,
        tile: TileSpec | None = ...,
        return_distribution: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...

    @torch.no_grad()
    def encode(
        self,
        video: Tensor,
        *,
        slice_frames: int | None = None,
        tile: TileSpec | None = None,
        return_distribution: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Encode (N, 3, 4n+1, H, W) in [-1, 1] to the posterior mean (N, 16, n+1, H//8, W//8), unscaled, FP32.

        tile: spatial tiles; None leaves it to the plan. slice_frames is checked, and changes nothing: the engine always
        goes one latent frame at a time. return_distribution: (mean, log-variance clamped to [-30, 20]).
        """
        self._check_slices(slice_frames)
        _check_input("video", video, self.config.image_channels)
        if video.shape[2] % FRAMES_PER_STEP != 1:
            raise InvalidArgumentError(
                f"video: expected 4n+1 frames (1, 5, 9, ...), got {video.shape[2]}; repeat the last frame to fill up."
            )
        moments = self._whole("encode", video, tile)
        mean, logvar = moments.chunk(2, dim=1)
        return (mean, logvar.clamp(-30, 20)) if return_distribution else mean

    @torch.no_grad()
    def decode(self, latent: Tensor, *, slice_frames: int | None = None, tile: TileSpec | None = None) -> Tensor:
        """Decode (N, 16, n+1, h, w), unscaled, to (N, 3, 4n+1, 8h, 8w), nominally in [-1, 1], not clamped, FP16.

        Arguments as in `encode`.
        """
        self._check_slices(slice_frames)
        _check_input("latent", latent, self.config.latent_channels)
        return self._whole("decode", latent, tile)

    @torch.no_grad()
    def stream_encode(
        self, frames: Iterable[Tensor], *, slice_frames: int = 4, tile: TileSpec | None = None
    ) -> Iterator[Tensor]:
        """Encode frames (N, 3, H, W) as they come; yields latent frames (N, 16, H//8, W//8), unscaled, FP32.

        Their number must be 4n+1 in the end (InvalidArgumentError otherwise). Arguments as in `encode`.
        """
        self._check_slices(slice_frames)
        lanes: list[Lane] = []
        try:
            for batch in _batches(frames):
                video = torch.stack(batch, dim=2)
                _check_input("frame", video, self.config.image_channels)
                if len(batch) not in (1, FRAMES_PER_STEP) or (lanes and len(batch) == 1):
                    raise InvalidArgumentError(
                        "frames: expected 4n+1 (1, 5, 9, ...), and the last four are not complete; "
                        "repeat the last frame to fill up."
                    )
                lanes = lanes or self._lanes("encode", video, None, tile)
                moments = torch.stack([lane.step(part) for lane, part in zip(lanes, video, strict=True)])
                yield moments.chunk(2, dim=1)[0][:, :, 0]
        finally:
            for lane in lanes:
                lane.close()

    @torch.no_grad()
    def stream_decode(
        self, latents: Iterable[Tensor], *, slice_frames: int = 4, tile: TileSpec | None = None
    ) -> Iterator[Tensor]:
        """Decode latent frames (N, 16, h, w), unscaled, as they come; yields frames (N, 3, 8h, 8w), FP16.

        Each latent frame's pictures come out before the next latent frame is asked for. Arguments as in `encode`.
        """
        self._check_slices(slice_frames)
        lanes: list[Lane] = []
        try:
            for frame in latents:
                latent = frame[:, :, None] if frame.ndim == 4 else frame
                _check_input("latent", latent, self.config.latent_channels)
                lanes = lanes or self._lanes("decode", latent, None, tile)
                pictures = torch.stack([lane.step(part) for lane, part in zip(lanes, latent, strict=True)])
                yield from pictures.unbind(dim=2)
        finally:
            for lane in lanes:
                lane.close()

    def _whole(self, part: Part, x: Tensor, tile: TileSpec | None) -> Tensor:
        """All clips of a batch, one after the other."""
        frames = (x.shape[2] - 1) * (FRAMES_PER_STEP if part == "decode" else 1) + 1
        for attempt in range(2):
            try:
                return self._attempt(part, x, frames, tile)
            except torch.cuda.OutOfMemoryError as error:
                self._plan_smaller(part, x, frames, tile, error, last=attempt == 1)
        raise AssertionError("the second attempt returns or raises")

    def _attempt(self, part: Part, x: Tensor, frames: int, tile: TileSpec | None) -> Tensor:
        results = []
        for clip in x:
            (lane,) = self._lanes(part, clip[None], frames, tile)
            try:
                results.append(lane.whole(clip))
            finally:
                lane.close()
        return torch.stack(results) if len(results) > 1 else results[0][None]

    def _plan_smaller(
        self, part: Part, x: Tensor, frames: int, tile: TileSpec | None, error: Exception, *, last: bool
    ) -> None:
        """Out of memory: plan again with a smaller budget, once."""
        plan = self.plan(self._shape(part, x, frames), tile)
        self.session.release()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        estimate, actual = plan.memory.peak / 1e9, torch.cuda.max_memory_allocated(self.device) / 1e9
        if last:
            raise EngineMemoryError(
                f"engine: {part} was planned with {estimate:.2f} GB of GPU memory and did not get it ({actual:.2f} GB "
                "in use at most); close other programs, or ask for less with vram_gb or tile_size."
            ) from error
        self._budget = int(plan.memory.peak * SMALLER)
        self._plans.clear()
        warnings.warn(
            f"{part}: {estimate:.2f} GB of GPU memory were planned and not there; planning again with "
            f"{self._budget / 1e9:.2f} GB.",
            stacklevel=4,
        )

    def _shape(self, part: Part, x: Tensor, frames: int | None) -> VAEShape:
        scale = CELL_PX if part == "decode" else 1
        return VAEShape(part, x.shape[-2] * scale, x.shape[-1] * scale, frames)

    def _lanes(self, part: Part, x: Tensor, frames: int | None, tile: TileSpec | None) -> list[Lane]:
        """A lane for every clip of a batch (N, C, T, H, W)."""
        shape = self._shape(part, x, frames)
        plan = self.plan(shape, tile)
        spec = None if plan.tile_px is None else TileSpec(plan.tile_px, plan.overlap_px)
        grid = None
        if spec is not None:
            make_grid = decode_grid if part == "decode" else encode_grid
            grid = make_grid(x.shape[-2], x.shape[-1], spec, CELL_PX)
        return [Lane(self.session, self._tile_plans(shape, plan, grid), grid) for _ in x]

    def _tile_plans(self, shape: VAEShape, plan: ExecutionPlan, grid: TileGrid | None) -> list[ExecutionPlan]:
        """The plan of each tile: a smaller whole frame."""
        if grid is None:
            return [plan]
        scale = CELL_PX if shape.part == "decode" else 1
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

    def _free_bytes(self) -> int:
        if self.device.type != "cuda":
            return 1 << 62
        free, _ = torch.cuda.mem_get_info(self.device)
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return max(0, free + cached + self.session.memory_bytes + self.weights.nbytes - RESERVE_BYTES)

    def _check_slices(self, slice_frames: int | None) -> None:
        if slice_frames is not None and (slice_frames < FRAMES_PER_STEP or slice_frames % FRAMES_PER_STEP):
            raise InvalidArgumentError(
                f"slice_frames: expected a positive multiple of {FRAMES_PER_STEP} (or None), got {slice_frames}."
            )


def _batches(frames: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The first frame, then four at a time; the last may be fewer."""
    batch: list[Tensor] = []
    size = 1
    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield batch
            batch, size = [], FRAMES_PER_STEP
    if batch:
        yield batch


def _check_input(name: str, x: Tensor, channels: int) -> None:
    if x.ndim != 5 or x.shape[1] != channels or 0 in x.shape:
        raise InvalidArgumentError(
            f"{name}: expected shape (N, {channels}, T, H, W) without empty axes, got {tuple(x.shape)}."
        )
    if not x.is_floating_point():
        raise InvalidArgumentError(f"{name}: expected floating-point numbers, got {x.dtype}; convert it first.")
