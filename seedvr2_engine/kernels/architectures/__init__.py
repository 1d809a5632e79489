"""The generations of GPUs that the kernels are compiled for: one file each, which says everything about it.

To add one, add `sm_NNN.py` with an `ARCHITECTURE`; planner, dispatch, reports and tests find it. Imports no Triton.
Source of the hardware's figures: NVIDIA's CUDA programming guide and architecture papers, unless a file names another.
"""

from importlib import import_module
from pkgutil import iter_modules

from ..configs import Format
from .record import Architecture

__all__ = ["ARCHITECTURES", "Architecture", "discover", "formats_of"]


def discover() -> dict[str, Architecture]:
    """The records of all files of this folder by their name, such as `sm_120`, in ascending order."""
    names = [module.name for module in iter_modules(__path__) if module.name.startswith("sm_")]
    found: dict[str, Architecture] = {}
    for name in sorted(names, key=lambda name: int(name.removeprefix("sm_"))):
        found[name] = import_module(f"{__name__}.{name}").ARCHITECTURE
        if found[name].sm != name:
            raise ValueError(f"{name}.py describes {found[name].sm}.")
    return found


ARCHITECTURES = discover()
"""Every generation that there is, by compute capability."""


def formats_of(sm: str) -> tuple[Format, ...]:
    """Number formats that the kernels multiply on an architecture, the fastest first; none where it is not known."""
    architecture = ARCHITECTURES.get(sm)
    return () if architecture is None else architecture.formats
