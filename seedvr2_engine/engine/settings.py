"""What the caller of the public entry chose, as one object that is handed on."""

from dataclasses import dataclass

from ..models.vae.tiling import TileSpec
from ..plan.tiling import OVERLAP_PX
from .accuracy.check import DEFAULT_MIN_PSNR_DB


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the caller of `optimize_3d_vae_for_blackwell` chose; the names are that function's."""

    precision: str = "auto"
    enable_fp8: bool = True
    enable_channels_last_3d: bool = True
    enable_flash_attention: bool = True
    enable_cuda_graphs: bool = True
    enable_tf32: bool = True
    enable_cudnn_benchmark: bool = True
    vram_gb: float | None = None
    tile_size: int | None = None
    min_psnr_db: float | None = DEFAULT_MIN_PSNR_DB

    @property
    def tile(self) -> TileSpec | None:
        """The tiles that `tile_size` means, which share a quarter of it at most."""
        if self.tile_size is None:
            return None
        return TileSpec(self.tile_size, min(OVERLAP_PX, self.tile_size // 4 // 8 * 8))
