"""The names under which Triton keeps compiled kernels, from hashes that travel.

Triton's own key also has its installation in it, whose library differs from one Python to the next. So a folder keeps
the parts that are the same everywhere, and the key is made where it is used.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.cache import get_cache_key

from .manifest import PackedKernel


@dataclass(frozen=True)
class _Hashed:
    """Stands for what has this hash."""

    value: str

    def hash(self) -> str:
        return self.value


def backend_for(capability: int) -> Any:
    """Triton's compiler for a generation."""
    return make_backend(GPUTarget("cuda", capability, 32))


def cache_digest(source: str, assembler: str, options: str, environment: dict[str, str]) -> str:
    """Triton's hash of a kernel here, hexadecimal; environment: the variables that change what compilers give."""
    key = get_cache_key(_Hashed(source), _Hashed(assembler), _Hashed(options), environment)
    return hashlib.sha256(key.encode()).hexdigest()


def cache_name(kernel: PackedKernel, assembler: str) -> str:
    """The name of a packed kernel in Triton's cache here, as its cache managers are given it."""
    digest = cache_digest(kernel.source, assembler, kernel.options, {})
    return base64.b32encode(bytes.fromhex(digest)).decode().rstrip("=")


def options_hash(backend: Any, metadata: dict[str, Any]) -> str:
    """Triton's hash of the options that a compiled kernel's metadata has."""
    fields = type(backend.parse_options({})).__dataclass_fields__
    options = {name: _hashable(metadata[name]) for name in fields if name in metadata}
    options["extern_libs"] = dict(options["extern_libs"])
    digest: str = backend.parse_options(options).hash()
    return digest


def _hashable(value: Any) -> Any:
    return tuple(_hashable(part) for part in value) if isinstance(value, list) else value
