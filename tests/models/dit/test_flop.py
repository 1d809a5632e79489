"""Operations counted from shapes are those that PyTorch counts while a velocity is computed."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from seedvr2_engine.models.dit.flop import velocity_flop

from .dit_cases import FAMILIES, build_tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_products_and_attention_are_counted(family, monkeypatch) -> None:
    attention = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def counting(q, k, v, **how):
        attention.append(4 * q.numel() * k.shape[-2])
        return attend(q, k, v, **how)

    # PyTorch's counter knows attention on GPUs only.
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counting)
    dit = build_tiny(family)
    video, text = torch.randn(3, 12, 16, 33), torch.randn(5, 64)
    conditioning, geometry = dit.conditioning(text, 1000.0), dit.geometry((3, 12, 16), len(text))
    with FlopCounterMode(display=False) as counted:
        dit.velocity(video, geometry, conditioning)
    found, expected = velocity_flop(dit.config, geometry), counted.get_flop_counts()["Global"]
    assert found.attention == pytest.approx(sum(attention))
    assert found.products + found.text == pytest.approx(sum(expected.values()), rel=0.02)
