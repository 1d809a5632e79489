"""What a transformer's weights take on its device, counted by hand, and what is kept of earlier geometries."""

from math import prod
from types import SimpleNamespace

import pytest
import torch

from seedvr2_engine.engine.dit import weights
from seedvr2_engine.engine.dit.tables import Recent
from seedvr2_engine.models.dit.config import DiTConfig

CONFIG = DiTConfig("3b", width=48, layers=3, separate_layers=1, heads=2, head_width=16, mlp_width=64, text_width=16)
SHAPES = CONFIG.tensor_shapes()
LARGE = {name: shape for name, shape in SHAPES.items() if name.startswith("blocks.") and len(shape) == 2}
SMALL_BYTES = 2 * sum(prod(shape) for name, shape in SHAPES.items() if name not in LARGE)
BY_BLOCK = [sum(prod(s) for n, s in LARGE.items() if n.startswith(f"blocks.{i}.")) for i in range(CONFIG.layers)]


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_bytes_on_the_device(monkeypatch, offload: bool, packed: bool) -> None:
    """Matrices of a byte a value: packed as they are, with room for one block in 16 bits, or else in 16 bits."""
    infos = {
        name: SimpleNamespace(type="F8_E4M3" if name in LARGE else "F16", nbytes=prod(shape))
        for name, shape in SHAPES.items()
    }
    monkeypatch.setattr(weights, "dit_tensor_names", lambda *_: {name: name for name in SHAPES})
    monkeypatch.setattr(weights, "PACKED_TYPES", ("F8_E4M3",))
    found = weights.device_bytes(SimpleNamespace(tensors=infos), CONFIG, torch.float16, offload=offload, packed=packed)
    size = 1 if packed else 2
    held = 2 * size * max(BY_BLOCK) if offload else size * sum(BY_BLOCK)
    assert found == SMALL_BYTES + held + (2 * sum(BY_BLOCK) // CONFIG.layers if packed else 0)


def test_the_least_recently_used_goes() -> None:
    recent, made = Recent[str](2), []
    owners = {name: object() for name in "abc"}

    def get(name: str) -> str:
        return recent.get((owners[name],), lambda: made.append(name) or name)

    assert [get(name) for name in "abacab"] == list("abacab")
    # The third pushes out b, which was used before a.
    assert made == ["a", "b", "c", "b"]
