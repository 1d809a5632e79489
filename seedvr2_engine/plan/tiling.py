"""Spatial tiles of a plan: which sizes there are to choose from, and what the result takes."""

from ..kernels.layout import PICTURE_FORMAT, element_bytes
from ..models.vae.tiling import TileSpec, decode_grid, encode_grid
from .execution_plan import FRAMES_PER_STEP, LATENT_CELL_PX, VAEShape

OVERLAP_PX = 128
"""Pixels that neighbouring tiles share; the custom the public node has."""
STEP_PX = 64
"""Tile sizes are multiples of this."""
LEAST_PX = 128
"""Smallest tile: smaller ones are all overlap."""
_FLOAT_BYTES = 4


def tile_candidates(shape: VAEShape) -> list[int]:
    """Tile sizes that cut the picture, rising."""
    return list(range(LEAST_PX, max(shape.height_px, shape.width_px), STEP_PX))


def needs_tiles(shape: VAEShape, tile: TileSpec) -> bool:
    """Whether the picture is larger than one tile."""
    if shape.part == "decode":
        rows, columns = shape.latent_px
        return decode_grid(rows, columns, tile, LATENT_CELL_PX) is not None
    return encode_grid(shape.height_px, shape.width_px, tile, LATENT_CELL_PX) is not None


def tile_size(shape: VAEShape, tile: TileSpec) -> tuple[int, int]:
    """(rows, columns) in pixels of the largest tile, whole latent cells, not more than the picture has."""
    sizes = [max(1, size // LATENT_CELL_PX) * LATENT_CELL_PX for size in tile.sizes_px]
    rows, columns = shape.latent_px
    return min(sizes[0], rows * LATENT_CELL_PX), min(sizes[1], columns * LATENT_CELL_PX)


def result_bytes(shape: VAEShape, tile: TileSpec | None, latent_channels: int) -> int:
    """What the caller receives, a stream's step where the length is not known; with tiles, FP32 sums too."""
    frames = FRAMES_PER_STEP if shape.frames is None else shape.frames
    if shape.part == "decode":
        values, element = 3 * frames * shape.height_px * shape.width_px, element_bytes(PICTURE_FORMAT)
    else:
        rows, columns = shape.latent_px
        latents = (frames - 1) // FRAMES_PER_STEP + 1
        values, element = 2 * latent_channels * latents * rows * columns, _FLOAT_BYTES
    return values * (element + (_FLOAT_BYTES if tile is not None else 0))
