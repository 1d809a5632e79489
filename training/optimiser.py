"""Muon for the weight matrices, Adam for everything else, over one flat vector of parameters.

Muon (Jordan et al., 2024, kellerjordan.github.io/posts/muon) replaces a matrix's momentum by the nearest
orthogonal matrix, found with a Newton-Schulz iteration; matrices of one shape go through it together.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.network import Weights

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
SAFETY = 1.02
"""Margin for the rounding of the norm that matrices are divided by."""
MATRIX_DECAY = 0.1
"""Decoupled weight decay; without it weights in front of a norm grow without end, as the norm undoes their size."""
ADAM_NAMES = ("encoder.conv_in", "encoder.conv_out", "decoder.conv_in", "decoder.conv_out")
"""Input and output layers have rows or columns of unlike meaning, so they are left to Adam, like vectors."""


class FlatWeights:
    """Named tensors as views of one FP32 vector, so that averaging, clipping and reducing are single operations."""

    def __init__(self, weights: Weights) -> None:
        """Copy `weights` into a new vector."""
        self.shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        self.vector = torch.cat([weights[name].detach().float().flatten() for name in self.shapes])

    def views(self, vector: Tensor | None = None) -> Weights:
        """The tensors by name, as views of `vector` (by default the weights themselves)."""
        vector = self.vector if vector is None else vector
        parts = vector.split([math.prod(shape) for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices to (K, rows, columns), to within the iteration's tolerance."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (_sizes(x) * SAFETY + 1e-7).to(x.dtype)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    # The iteration runs away from a singular value above 1.28; singular values of results are 1.21 at most.
    sane = _sizes(x) < 1.3 * math.sqrt(x.shape[-2])
    x = torch.where(sane, x, torch.zeros_like(x))
    return (x.mT if tall else x).to(matrices.dtype)


def _sizes(matrices: Tensor) -> Tensor:
    """Frobenius norms (K, 1, 1), FP32; row by row, because sums over many thread blocks need them to wait in turn."""
    return matrices.float().square().sum(-1, keepdim=True).sum(-2, keepdim=True).sqrt()


class Optimiser:
    """One update of all weights from one flat gradient."""

    def __init__(
        self,
        weights: FlatWeights,
        *,
        matrix_rate: float,
        vector_rate: float,
        adam_names: tuple[str, ...] = ADAM_NAMES,
    ) -> None:
        """Peak learning rates of Muon and of Adam, which `step` scales; beginnings of names of Adam's matrices."""
        self.weights = weights
        self.matrix_rate = matrix_rate
        self.vector_rate = vector_rate
        self.steps = 0
        self.momentum = torch.zeros_like(weights.vector)
        self.groups: dict[tuple[int, int], list[str]] = {}
        self.vectors: list[str] = []
        for name, shape in weights.shapes.items():
            if len(shape) == 1 or name.startswith(adam_names):
                self.vectors.append(name)
            else:
                self.groups.setdefault((shape[0], math.prod(shape[1:])), []).append(name)
        sizes = [math.prod(weights.shapes[name]) for name in self.vectors]
        self.square = weights.vector.new_zeros(sum(sizes))
        """Of Adam's tensors, one after the other."""
        parts = zip(self.vectors, self.square.split(sizes), strict=True)
        self._squares = [part.view(weights.shapes[name]) for name, part in parts]

    def step(self, gradient: Tensor, rate: float) -> None:
        """Update the weights in place; `rate` in [0, 1] is the schedule's factor."""
        self.steps += 1
        target, slope = self.weights.views(), self.weights.views(gradient)
        momentum = self.weights.views(self.momentum)
        for (rows, columns), names in self.groups.items():
            slopes = torch.stack([slope[n].view(rows, columns) for n in names])
            buffers = torch.stack([momentum[n].view(rows, columns) for n in names])
            buffers = torch.lerp(buffers, slopes, 0.05)
            update = orthogonalised(torch.lerp(slopes, buffers, 0.95))
            scale = -rate * self.matrix_rate * math.sqrt(max(1.0, rows / columns))
            for i, name in enumerate(names):
                momentum[name].copy_(buffers[i].view_as(momentum[name]))
                target[name].mul_(1 - rate * self.matrix_rate * MATRIX_DECAY)
                target[name].add_(update[i].view_as(target[name]), alpha=scale)
        self._adam(target, slope, momentum, rate)

    def _adam(self, target: Weights, slope: Weights, momentum: Weights, rate: float) -> None:
        names, beta1, beta2 = self.vectors, 0.9, 0.99
        slopes = [slope[n] for n in names]
        firsts, seconds = [momentum[n] for n in names], self._squares
        torch._foreach_lerp_(firsts, slopes, 1 - beta1)
        torch._foreach_mul_(seconds, beta2)
        torch._foreach_addcmul_(seconds, slopes, slopes, 1 - beta2)
        root = torch._foreach_sqrt(seconds)
        torch._foreach_add_(root, 1e-8)
        size = self.vector_rate * rate * math.sqrt(1 - beta2**self.steps) / (1 - beta1**self.steps)
        torch._foreach_addcdiv_([target[n] for n in names], firsts, root, -size)


@dataclass(frozen=True)
class Stack:
    """Matrices of one shape that lie one after the other in a flat vector."""

    start: int
    """Where the first begins."""
    count: int
    """How many."""
    rows: int
    columns: int

    def view(self, vector: Tensor) -> Tensor:
        """Them (count, rows, columns) as a view of the vector."""
        end = self.start + self.count * self.rows * self.columns
        return vector[self.start : end].view(self.count, self.rows, self.columns)


class StackedOptimiser:
    """The same update with few launches and without reading anything back, so that a CUDA graph can hold it.

    The vector begins with what Adam changes and goes on with stacks of matrices.
    """

    def __init__(self, vector: Tensor, stacks: list[Stack], *, matrix_rate: float, vector_rate: float) -> None:
        """vector: the FP32 weights; the peak learning rates of Muon and of Adam are scaled by `step`."""
        self.vector = vector
        self.matrix_rate = matrix_rate
        self.vector_rate = vector_rate
        self.adam_count = stacks[0].start
        self.count = torch.zeros((), device=vector.device)
        """Updates made; a tensor, because Adam's rate depends on it."""
        self.momentum = torch.zeros_like(vector)
        self.square = torch.zeros_like(vector[: self.adam_count])
        # Tall matrices go through the iteration on their side, together with wide ones of the same sides.
        self.alike: dict[tuple[int, int], list[Stack]] = {}
        for stack in stacks:
            self.alike.setdefault((min(stack.rows, stack.columns), max(stack.rows, stack.columns)), []).append(stack)

    def step(self, gradient: Tensor, rate: Tensor) -> None:
        """Update the weights in place; `rate` in [0, 1] is the schedule's factor, without axes."""
        part = slice(self.adam_count, None)
        slopes, momentum, weights = gradient[part], self.momentum[part], self.vector[part]
        momentum.lerp_(slopes, 0.05)
        wanted = torch.lerp(gradient, self.momentum, 0.95)
        weights.mul_(1 - rate * (self.matrix_rate * MATRIX_DECAY))
        for stacks in self.alike.values():
            lying = [_lying(stack.view(wanted)) for stack in stacks]
            updates = orthogonalised(torch.cat(lying)).split([stack.count for stack in stacks])
            for stack, update in zip(stacks, updates, strict=True):
                size = self.matrix_rate * math.sqrt(max(1.0, stack.rows / stack.columns))
                _lying(stack.view(self.vector)).addcmul_(update, rate, value=-size)
        self._adam(gradient[: self.adam_count], rate)

    def _adam(self, slope: Tensor, rate: Tensor) -> None:
        beta1, beta2 = 0.9, 0.99
        self.count.add_(1)
        first = self.momentum[: self.adam_count].lerp_(slope, 1 - beta1)
        self.square.lerp_(slope * slope, 1 - beta2)
        size = self.vector_rate * rate * torch.sqrt(1 - beta2**self.count) / (1 - beta1**self.count)
        self.vector[: self.adam_count].sub_(first / (self.square.sqrt() + 1e-8) * size)


def _lying(matrices: Tensor) -> Tensor:
    """Each with its long side along the rows."""
    return matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
