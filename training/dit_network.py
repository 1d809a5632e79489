"""The small transformer: its sizes, the weights that training begins with, and the weights that a step computes with.

The network is the package's own `NaDiT`, so that what is trained is what runs. Master weights live in FP32 in one flat
vector; the module holds them as the GPU computes with them, in 16 bits and, near the end, rounded as the file will be.
"""

import math
from itertools import groupby

import torch
from torch import Tensor, nn

from seedvr2_engine.models.dit.config import DiTConfig
from seedvr2_engine.models.dit.geometry import Geometry
from seedvr2_engine.models.dit.model import NaDiT
from seedvr2_engine.models.dit.rope import rotary_frequencies
from seedvr2_engine.models.dit.sampler import LAST_TIMESTEP, dit_input, sample
from training.network import Weights
from training.optimiser import Stack
from training.quantise import q8_blocks

NANO_DIT = DiTConfig("3b", width=320, layers=6, separate_layers=1, heads=5, head_width=64, mlp_width=832, text_width=64)
"""The small model that ships with the package: 9.4 million parameters."""
TEXT = "positive_conditioning"
"""The name of the text embedding in the file. It describes nothing: its tokens are learned, and serve as registers."""
TEXT_TOKENS = 8
SIGNAL = 0.1
"""Deviation of the latents inside the residual stream, beside a constant of 1 in the other channels."""
GATE = 0.1
"""What the blocks' results are multiplied with at first."""
ENDS = ("vid_in", "vid_out", "txt_in", TEXT)
"""Tensors whose rows and columns have meanings of their own: left to Adam, and stored in 16 bits."""


def is_frozen(name: str) -> bool:
    """Whether a tensor stays as it begins.

    The model is called at one timestep only, so the timestep's embedding says nothing that a block's own modulation
    does not; it is zero.
    """
    return name.startswith("emb_in.") or name.endswith(".rope.freqs")


def is_quantised(name: str) -> bool:
    """Whether the file stores this tensor as Q8_0: all matrices but those at the ends."""
    return name.endswith(".weight") and ".norm_" not in name and not name.startswith((*ENDS, "vid_out_norm"))


def initial_weights(rng: torch.Generator) -> Weights:
    """FP32 weights of a model that returns its condition: velocity = noise - condition, blocks that change nothing.

    The velocity contains the noise itself, which has to pass all layers and a norm unharmed. So noise and condition
    have channels of their own, small beside a constant in the others: the norm then divides every token by nearly
    the same number. Modulations undo that, so that blocks see latents of unit variance.
    """
    weights = {name: _initial(rng, name, shape) for name, shape in NANO_DIT.tensor_shapes().items()}
    positions, latent = NANO_DIT.patch_positions, NANO_DIT.out_channels
    carried = positions * latent
    width, into = NANO_DIT.width, weights["vid_in.proj.weight"].zero_().view(-1, positions, NANO_DIT.in_channels)
    for part in (0, 1):
        for index in range(carried):
            into[part * carried + index, index // latent, part * latent + index % latent] = SIGNAL
    constant = torch.ones(width, device=rng.device)
    constant[: 2 * carried] = 0
    size = math.sqrt(float(constant.square().sum() + 2 * carried * SIGNAL**2) / width)
    weights["vid_in.proj.bias"].copy_(constant)
    weights["txt_in.weight"] *= SIGNAL
    weights["txt_in.bias"].copy_(constant)
    weights["vid_out_ada.out_scale"].fill_(size / SIGNAL)
    out, eye = weights["vid_out.proj.weight"].zero_(), torch.eye(carried, device=rng.device)
    out[:, :carried], out[:, carried : 2 * carried] = eye, -eye
    for name, weight in weights.items():
        if ".ada." in name and name.endswith("scale"):
            weight.copy_(torch.where(constant > 0, 1.0, size / SIGNAL))
        if ".ada." in name and name.endswith("shift"):
            weight.copy_(-constant / size)
    weights[TEXT] = torch.randn((TEXT_TOKENS, NANO_DIT.text_width), generator=rng, device=rng.device)
    return weights


def _initial(rng: torch.Generator, name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith(".rope.freqs"):
        return rotary_frequencies(NANO_DIT).to(rng.device)
    if is_frozen(name) or ".proj_out." in name:
        return torch.zeros(shape, device=rng.device)
    if len(shape) == 2:
        return torch.randn(shape, generator=rng, device=rng.device) / math.sqrt(shape[1])
    value = GATE if name.endswith("gate") else float("norm" in name)
    return torch.full(shape, value, device=rng.device)


def trained(weights: Weights) -> Weights:
    """The weights that training changes: those of Adam first, then Muon's matrices, those of one shape together."""
    changing = {name: weight for name, weight in weights.items() if not is_frozen(name)}
    return dict(sorted(changing.items(), key=lambda item: _muon_shape(*item)))


def _muon_shape(name: str, weight: Tensor) -> tuple[int, int]:
    """The shape of the matrices that Muon sees in a tensor: queries, keys and values are three; (0, 0) is Adam's."""
    if not is_quantised(name):
        return 0, 0
    rows, columns = weight.shape
    return rows // (3 if ".proj_qkv." in name else 1), columns


def muon_stacks(weights: Weights) -> list[Stack]:
    """Where Muon's matrices are in the flat vector of `trained`."""
    start = adam_count(weights)
    stacks = []
    for (rows, columns), alike in groupby(trained(weights).items(), key=lambda item: _muon_shape(*item)):
        if rows:
            count = sum(weight.numel() for _, weight in alike) // (rows * columns)
            stacks.append(Stack(start, count, rows, columns))
            start += count * rows * columns
    return stacks


def adam_count(weights: Weights) -> int:
    """How many values the tensors that Adam changes have."""
    return sum(weight.numel() for name, weight in trained(weights).items() if not is_quantised(name))


class Restorer:
    """The transformer and its text, as one step computes with them.

    All its weights are views of two flat vectors in the order of `trained`, so that loading them is a few launches.
    """

    def __init__(self, weights: Weights, dtype: torch.dtype) -> None:
        """weights: all of them, FP32; dtype: what matrices and activations are computed in."""
        device = weights[TEXT].device
        self.dit = NaDiT(NANO_DIT).to(device)
        self.dit.load_state_dict({name: weight for name, weight in weights.items() if name != TEXT})
        for module in self.dit.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)
        self.text = nn.Parameter(weights[TEXT].clone())
        held = dict(self.dit.named_parameters()) | {TEXT: self.text}
        self.leaves = {name: held[name] for name in trained(weights)}
        """The tensors that gradients are taken of, in the order of `trained`."""
        self.adam_count = adam_count(weights)
        total = sum(leaf.numel() for leaf in self.leaves.values())
        self.rounded = torch.empty(total, dtype=dtype, device=device)
        self.exact = torch.empty(self.adam_count, device=device)
        start = 0
        for leaf in self.leaves.values():
            source = self.exact if leaf.dtype == torch.float32 and start < self.adam_count else self.rounded
            leaf.data = source[start : start + leaf.numel()].view(leaf.shape)
            start += leaf.numel()
        self.load(torch.cat([weight.flatten() for weight in trained(weights).values()]), quantised=False)
        self.time = torch.tensor(LAST_TIMESTEP, device=device)
        self.geometries: dict[tuple[int, ...], Geometry] = {}

    @torch.no_grad()
    def load(self, vector: Tensor, *, quantised: bool = True) -> None:
        """Take over trained FP32 weights, in general with matrices rounded to Q8_0 as in the file.

        Gradients of the rounded weights serve the exact ones (straight-through).
        """
        self.exact.copy_(vector[: self.adam_count])
        self.rounded[: self.adam_count].copy_(self.exact)
        matrices = vector[self.adam_count :]
        # Every row is a whole number of blocks, so the blocks of all matrices are the blocks of the vector.
        self.rounded[self.adam_count :].copy_(q8_blocks(matrices) if quantised else matrices)

    def restore(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Sharp latents (N, T, H, W, 16) for low-quality ones, as the pipeline computes them: one Euler step."""
        shape = tuple(noise.shape[:-1])
        if shape not in self.geometries:
            self.geometries[shape] = self.dit.geometry(shape, TEXT_TOKENS, attention="sdpa")

        def velocity(noisy: Tensor, timestep: float) -> Tensor:
            assert timestep == LAST_TIMESTEP
            # The timestep as a tensor that is there already: a CUDA graph copies nothing from the host.
            known = self.dit.conditioning(self.text, self.time)
            return self.dit.velocity(dit_input(noisy, condition), self.geometries[shape], known)

        return sample(velocity, noise)
