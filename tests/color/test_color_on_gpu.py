"""The colour kernels on a GPU against PyTorch there, on slices as the decoder and the resampling leave them.

`pytest -m cuda tests/color/test_color_on_gpu.py`
"""

import os

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seedvr2_engine.color import backend
from seedvr2_engine.color.methods import ColorMethod, correct_color, correct_frame, measure_curves

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton is in its interpreter"),
]
STEP = 2 / 255
"""A step of 8 bits."""


def pair(frames: int, height: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A slice (T, 3, H, W) of a larger clip (3, T, H, W) in a VAE's dtype, and crops of its source in FP32."""
    generator = torch.Generator("cuda").manual_seed(0)
    padded = height + 8, width + 16
    coarse = torch.rand(frames, 3, 9, 16, generator=generator, device="cuda") * 2 - 1
    style = F.interpolate(coarse, size=padded, mode="bicubic").clamp(-1, 1)
    noise = torch.randn(style.shape, generator=generator, device="cuda")
    content = (0.8 * style + 0.1 * style.flip(1) + 0.05 * noise).transpose(0, 1).contiguous().to(dtype)
    style[:, :, : height // 6] = -1  # Black bars, and content that is nearly black there.
    return content.transpose(0, 1)[..., :height, :width], style[..., :height, :width]


def with_torch(monkeypatch, content: Tensor, style: Tensor, method: ColorMethod) -> Tensor:
    with monkeypatch.context() as patched:
        patched.setattr(backend, "_kernels_for", lambda *pictures: None)
        return correct_color(content, style, method)


@pytest.mark.parametrize(
    ("size", "dtype"),
    [((720, 1280), torch.float16), ((720, 1280), torch.bfloat16), ((150, 143), torch.float32)],
)
def test_slices_are_those_of_pytorch(monkeypatch, size: tuple[int, int], dtype: torch.dtype) -> None:
    content, style = pair(5, *size, dtype)
    assert backend._kernels_for(content[0], style[0]) is not None
    result = correct_color(content, style, "wavelet")
    assert torch.equal(result, with_torch(monkeypatch, content, style, "wavelet"))
    result = correct_color(content, style, "lab")
    error = (result - with_torch(monkeypatch, content, style, "lab")).abs()
    # Where colours are rare, one rank is far from the next.
    assert error.max() <= (STEP if size[0] == 720 else 4 * STEP)
    assert error.mean() <= STEP / 800


def test_the_same_slice_has_the_same_bits() -> None:
    content, style = pair(5, 720, 1280, torch.float16)
    first = correct_color(content, style, "lab")
    assert all(torch.equal(first, correct_color(content, style, "lab")) for _ in range(3))


def test_few_colours_find_the_levels_they_were_counted_in() -> None:
    """Two kernels compute levels: one bit more in one of them, and flat areas take each other's colour."""
    generator = torch.Generator("cuda").manual_seed(0)
    cells = torch.rand(3, 36, 64, generator=generator, device="cuda") * 2 - 1
    flat = cells.repeat_interleave(20, 1).repeat_interleave(20, 2)
    curves = measure_curves([(flat, flat)], "lab")
    torch.testing.assert_close(correct_frame(flat, flat, "lab", curves), flat, atol=1e-4, rtol=0)


def test_not_a_number_stays_visible() -> None:
    content, style = pair(1, 40, 56, torch.float16)
    content[0, :, 3, 4] = torch.nan
    assert correct_color(content, style, "lab")[0, :, 3, 4].isnan().all()


def test_gradients_are_for_pytorch() -> None:
    content, style = pair(1, 40, 56, torch.float32)
    content.requires_grad_(True)
    assert backend._kernels_for(content[0], style[0]) is None
