"""What a transformer's tensor becomes in a new file, by its name, its shape and the format that is asked for."""

import pytest

from seedvr2_engine.checkpoint.writing.entries import _dit_kind


@pytest.mark.parametrize(
    ("name", "shape", "kind", "is_gguf", "becomes"),
    [
        ("blocks.0.mlp.weight", (40, 64), "Q8_0", True, "Q8_0"),
        ("blocks.0.mlp.weight", (64, 40), "Q8_0", True, "F16"),
        ("blocks.0.mlp.bias", (64,), "Q8_0", True, "F32"),
        ("blocks.0.mlp.bias", (64,), "FP8", False, "F16"),
        ("txt_in.weight", (64, 64), "FP8", False, "F16"),
        ("txt_in.weight", (64, 64), "BF16", False, "BF16"),
        ("blocks.0.mlp.weight", (40, 40), "FP8", False, "FP8"),
        ("blocks.0.mlp.weight", (64, 96), "MXFP8", False, "MXFP8"),
        ("blocks.0.mlp.weight", (40, 64), "MXFP8", False, "F16"),
        ("blocks.0.mlp.weight", (64, 40), "NVFP4", False, "F16"),
        ("blocks.0.mlp.weight", (40, 512), "INT8_CONVROT", False, "INT8_CONVROT"),
        ("blocks.0.mlp.weight", (512, 40), "INT8_CONVROT", False, "INT8"),
    ],
)
def test_kinds(name: str, shape: tuple[int, ...], kind: str, is_gguf: bool, becomes: str) -> None:
    assert _dit_kind(name, shape, kind, is_gguf=is_gguf) == becomes
