"""The tiny transformers and their golden cases."""

from functools import cache

import torch
from safetensors.torch import load_file

from seedvr2_engine.models.dit.config import DiTConfig, Family
from seedvr2_engine.models.dit.model import NaDiT

from ...conftest import GOLDEN

FAMILIES: tuple[Family, ...] = ("3b", "7b")
TINY: dict[Family, DiTConfig] = {
    "3b": DiTConfig("3b", width=40, layers=4, separate_layers=2, heads=2, mlp_width=256, text_width=64),
    "7b": DiTConfig("7b", width=40, layers=4, separate_layers=4, heads=2, mlp_width=160, text_width=64),
}
CASES = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7.0", "c7.1", "c8", "c9", "c10"]
TOLERANCE = 5e-5


@cache
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "dit_tiny_cases.safetensors")


def tiny_weights(family: Family) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / f"dit_tiny_{family}.safetensors")


def build_tiny(family: Family) -> NaDiT:
    dit = NaDiT(TINY[family])
    dit.load_state_dict(tiny_weights(family))
    return dit.requires_grad_(False)


def inputs(case: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The video (T, H, W, 33), the text (L, 64) and the timestep of a case."""
    cases = golden()
    noise, condition = cases[f"{case}/noise"].float(), cases[f"{case}/cond"].float()
    shared, _, index = case.partition(".")
    video = torch.cat([noise, condition, torch.ones_like(noise[..., :1])], dim=-1)
    return video, cases[f"{case}/txt"].float(), cases[f"{shared}/timestep"][int(index or 0)]


def largest_error(dit: NaDiT, case: str) -> float:
    return (dit(*inputs(case)) - golden()[f"{case}/out_{dit.config.family}"]).abs().max().item()
