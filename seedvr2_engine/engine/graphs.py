"""CUDA graphs: a step's launches recorded once and replayed as one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

Launch = Callable[[], None]


class GraphRecorder:
    """Records steps into graphs that share one memory pool, and keeps why it could not.

    The kernels write only into memory that was allocated before, so a graph itself owns next to nothing; it is valid as
    long as that memory stays where it is. Works under the native allocator and under cudaMallocAsync, both of which
    give a graph a pool of its own.
    """

    def __init__(self) -> None:
        self.reason = ""
        """Why graphs are off; empty while they are on."""
        self.captured = 0
        """Graphs recorded so far."""
        self._pool: Any = None

    def record(self, launches: Sequence[Launch]) -> Callable[[], None] | None:
        """Capture launches that have run before (so that they are compiled); None where capturing fails.

        The failure's reason is kept, and later calls do not try again.
        """
        if self.reason:
            return None
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                for launch in launches:
                    launch()
        except RuntimeError as error:
            self.reason = f"capture failed: {str(error).splitlines()[0]}"
            return None
        self.captured += 1
        return graph.replay

    def forget(self) -> None:
        """Let go of the pool, after the graphs in it are gone."""
        self._pool = None
