"""What users hold: the engine or the plain model behind the plain model's four methods, and the report about it."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from ..models.vae.config import VAEConfig
from ..models.vae.model import VideoVAE
from ..models.vae.tiling import TileSpec
from .report import EngineReport
from .vae.engine import VAEEngine

Switches = Callable[[], AbstractContextManager[None]]


class ServedVAE:
    """Encodes and decodes like `VideoVAE`, with whatever serves best here.

    Results are what the server gives: the engine's pictures are FP16 and its latents FP32, the plain model's have its
    own dtype; on `device` either way.
    """

    def __init__(
        self,
        server: VAEEngine | VideoVAE,
        report: Callable[[], EngineReport],
        *,
        tile: TileSpec | None = None,
        switches: Switches | None = None,
    ) -> None:
        """tile: what a call that names none means. switches: PyTorch's own, set around every call."""
        self.server = server
        self._report = report
        self._tiles = tile, tile
        self._switches = switches or _as_they_are

    def with_tiles(self, encode: TileSpec | None, decode: TileSpec | None) -> "ServedVAE":
        """The same server, whose calls go through these tiles where they name none."""
        other = copy.copy(self)
        other._tiles = encode, decode
        return other

    @property
    def report(self) -> EngineReport:
        """What was done, and how much of it until now."""
        return self._report()

    @property
    def engine(self) -> VAEEngine | None:
        """What serves, if it is the engine; None where the plain model does."""
        return self.server if isinstance(self.server, VAEEngine) else None

    @property
    def is_engine(self) -> bool:
        """Whether the kernels serve, or the plain model."""
        return self.engine is not None

    @property
    def nbytes(self) -> int:
        """Bytes on the device: weights, and the engine's working memory."""
        return sum(tensor.nbytes for tensor in plain_weights(self)) if self.engine is None else self.engine.nbytes

    def limit(self, budget_bytes: int) -> None:
        """Let the engine plan with so much GPU memory from now on; the plain model takes what it takes."""
        if self.engine is not None:
            self.engine.limit(budget_bytes)

    def release(self) -> None:
        """Give the engine's working memory back; the plain model has none."""
        if self.engine is not None:
            self.engine.release()

    @property
    def config(self) -> VAEConfig:
        """The model's hyper-parameters."""
        return self.server.config

    @property
    def device(self) -> torch.device:
        """Where results are."""
        return self.server.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of decoded pictures."""
        return self.server.dtype

    def encode(self, video: Tensor, *, slice_frames: int | None = None, tile: TileSpec | None = None) -> Tensor:
        """As `VideoVAE.encode`."""
        with self._switches():
            return self.server.encode(video, slice_frames=slice_frames, tile=tile or self._tiles[0])

    def encode_distribution(
        self, video: Tensor, *, slice_frames: int | None = None, tile: TileSpec | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `VideoVAE.encode_distribution`."""
        with self._switches():
            return self.server.encode_distribution(video, slice_frames=slice_frames, tile=tile or self._tiles[0])

    def decode(self, latent: Tensor, *, slice_frames: int | None = None, tile: TileSpec | None = None) -> Tensor:
        """As `VideoVAE.decode`."""
        with self._switches():
            return self.server.decode(latent, slice_frames=slice_frames, tile=tile or self._tiles[1])

    def stream_encode(
        self, frames: Iterable[Tensor], *, slice_frames: int = 4, tile: TileSpec | None = None
    ) -> Iterator[Tensor]:
        """As `VideoVAE.stream_encode`."""
        return self._stepwise(self.server.stream_encode(frames, slice_frames=slice_frames, tile=tile or self._tiles[0]))

    def stream_decode(
        self, latents: Iterable[Tensor], *, slice_frames: int = 4, tile: TileSpec | None = None
    ) -> Iterator[Tensor]:
        """As `VideoVAE.stream_decode`."""
        return self._stepwise(
            self.server.stream_decode(latents, slice_frames=slice_frames, tile=tile or self._tiles[1])
        )

    def _stepwise(self, results: Iterator[Tensor]) -> Iterator[Tensor]:
        # The switches are put back while the caller works with a result.
        while True:
            with self._switches():
                result = next(results, None)
            if result is None:
                return
            yield result


def engine_of(vae: object) -> VAEEngine | None:
    """The engine behind whatever encodes and decodes; None where there is none."""
    if isinstance(vae, ServedVAE):
        return vae.engine
    return vae if isinstance(vae, VAEEngine) else None


def plain_weights(vae: object) -> list[Tensor]:
    """The parameters of the plain model behind whatever encodes and decodes; an engine counts its own weights."""
    model = vae.server if isinstance(vae, ServedVAE) else vae
    return list(model.parameters()) if isinstance(model, VideoVAE) else []


@contextmanager
def _as_they_are() -> Iterator[None]:
    yield


@contextmanager
def cudnn_benchmark() -> Iterator[None]:
    """Let cuDNN time its algorithms for every new size, then put the switch back."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
