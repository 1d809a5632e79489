"""Where the attention over windows uses this package's kernel, and how it cuts its work. Imports no Triton."""

from typing import NamedTuple

from .dispatch import Refusal


class WindowConfig(NamedTuple):
    """How one launch of the window attention cuts its work."""

    block_m: int
    """Queries of a program; a power of two."""
    block_n: int
    """Keys of one step; a power of two."""
    warps: int
    """Warps of a program."""
    stages: int
    """Depth of the software pipeline."""
    uses_tma: bool
    """Whether rows are read through tensor descriptors (from sm_90) or through pointers."""


# H200, 720p, 21 frames, 20 heads (`python -m benchmarks.dit --family --parts`): 0.60 and 0.50 ms with regular and
# shifted windows; 128 queries and 8 warps 0.72 and 0.58, two stages 0.73 and 0.56, PyTorch's varlen 0.77 and 0.57.
_CONFIGS = {"sm_90": WindowConfig(64, 64, warps=4, stages=3, uses_tma=True)}


def choose_window_config(dim: int, sm: str) -> WindowConfig | Refusal:
    """How attention with heads of `dim` dimensions runs on an architecture, or why PyTorch's is used there."""
    if sm not in _CONFIGS:
        return Refusal(f"the kernel has not been tried on {sm}")
    if dim not in (64, 128):
        return Refusal(f"a head has {dim} dimensions, not 64 or 128")
    return _CONFIGS[sm]
