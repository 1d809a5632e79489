"""One training step of the small transformer as a function of buffers that stay where they are, and its CUDA graph.

A step is some two thousand small launches, which a GPU runs faster than a processor can ask for them. So nothing in it
depends on the host: batch, noise, rate and weights of the terms lie in buffers that are filled beforehand, and what it
measures is added up in another. Recorded once for every shape of batch, it is one launch from then on.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.dit_data import FrozenVAE, Pool, Shape
from training.dit_losses import TERMS, latent_distance, restoration_terms
from training.dit_network import Restorer
from training.optimiser import StackedOptimiser
from training.train_vae import clipped

WARM_UP = 2
"""Steps before a recording, in which libraries choose their kernels and allocate."""
LARGEST_DIFFERENCE = 0.02
"""Of any term, relative, between a step and its recording; the order of additions is not fixed on a GPU."""
LARGEST_WEIGHT = 200.0
"""What no sane weight reaches; NaN does not pass either."""
LEAST_AGREEMENT = 0.9
"""Cosine between the changes that a step and its recording make."""
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True)
class Batch:
    """What a step reads; filled in place."""

    condition: Tensor
    """Latents of the degraded clips (N, T, H, W, 16), FP32."""
    target: Tensor
    """Latents of the sharp clips; the same shape."""
    sharp: Tensor
    """The sharp clips themselves (D, 3, F, 8H, 8W), uint8: of the first D clips, which are decoded."""
    noise: Tensor
    """Normal numbers of the latents' shape."""

    @staticmethod
    def empty(pool: Pool, shape: Shape) -> "Batch":
        """A batch of clips as they lie in the pool."""
        assert pool.pairs is not None

        def like(stored: Tensor, count: int) -> Tensor:
            return torch.empty((count, *stored.shape[1:]), dtype=stored.dtype, device=stored.device)

        pairs = pool.pairs
        latents = [like(pairs.condition, shape.batch) for _ in range(3)]
        return Batch(latents[0], latents[1], like(pairs.sharp, shape.decoded), latents[2])

    def fill(self, pool: Pool, rng: torch.Generator) -> None:
        """Draw clips and noise."""
        assert pool.pairs is not None
        device = self.noise.device
        index = torch.randint(0, pool.filled, (len(self.noise),), generator=rng, device=device)
        torch.index_select(pool.pairs.condition, 0, index, out=self.condition)
        torch.index_select(pool.pairs.target, 0, index, out=self.target)
        torch.index_select(pool.pairs.sharp, 0, index[: len(self.sharp)], out=self.sharp)
        self.noise.normal_(generator=rng)


class Learner:
    """Weights, their average, and the update of both from a batch."""

    def __init__(self, restorer: Restorer, vae: FrozenVAE, optimiser: StackedOptimiser) -> None:
        """Begin with the optimiser's weights."""
        self.restorer = restorer
        self.vae = vae
        self.optimiser = optimiser
        self.average = optimiser.vector.clone()
        device = optimiser.vector.device
        self.controls = torch.zeros(2 + len(TERMS), device=device)
        """The schedule's rate, how much of the average is replaced, and the weights of the terms."""
        self.sums = torch.zeros(1 + len(TERMS), device=device)
        """Steps with finite terms since it was last set to zero, and the sums of their terms."""
        self.kept = [tensor.clone() for tensor in self.state()]

    def keep_or_return(self) -> bool:
        """Note the state if its weights are sane, else go back to what was noted before, and say False."""
        vector = self.optimiser.vector
        sane = bool((vector.abs() < LARGEST_WEIGHT).all())
        for tensor, kept in zip(self.state(), self.kept, strict=True):
            if sane:
                kept.copy_(tensor)
            else:
                tensor.copy_(kept)
        return sane

    def state(self) -> list[Tensor]:
        """Everything that `update` changes."""
        optimiser = self.optimiser
        return [optimiser.vector, self.average, optimiser.momentum, optimiser.square, optimiser.count, self.sums]

    def set_controls(self, rate: float, replaced: float, weights: list[float]) -> None:
        """Fill the controls; waits for the GPU."""
        self.controls.copy_(torch.tensor([rate, replaced, *weights]))

    def terms(self, batch: Batch) -> Tensor:
        """All terms (len(TERMS),), with gradients."""
        output = self.restorer.restore(batch.condition, batch.noise)
        terms = {"latent": latent_distance(output, batch.target)}
        part = len(batch.sharp)
        terms |= restoration_terms(self.vae.decode(output[:part]), batch.sharp.float() / 127.5 - 1)
        nothing = self.sums.new_zeros(())
        return torch.stack([terms.get(name, nothing) for name in TERMS])

    def update(self, batch: Batch) -> None:
        """One step."""
        self.restorer.load(self.optimiser.vector)
        with sdpa_kernel(BACKENDS) if batch.noise.is_cuda else nullcontext():
            terms = self.terms(batch)
            loss = (terms * self.controls[2:]).sum()
            gradients = torch.autograd.grad(loss, list(self.restorer.leaves.values()))
        with torch.no_grad():
            gradient = torch.cat([g.float().flatten() for g in gradients])
            self.optimiser.step(clipped(gradient, 1.0), self.controls[0])
            self.average.lerp_(self.optimiser.vector, self.controls[1])
            sane = terms.detach().isfinite().all()
            self.sums[0].add_(sane)
            self.sums[1:].add_(torch.where(sane, terms.detach(), torch.zeros_like(terms)))


class Steps:
    """Runs updates, recorded where that works and gives the same."""

    def __init__(self, learner: Learner, say: Callable[[str], None] = print) -> None:
        self.learner = learner
        self.say = say
        self.recorded: dict[Shape, torch.cuda.CUDAGraph | None] = {}
        self.memory: tuple[int, int] | None = None
        self.failed = False
        """A recording has failed, and no other is tried: what it leaves behind may disturb the next."""

    def run(self, shape: Shape, batch: Batch) -> None:
        """One update from a batch that is filled."""
        if not batch.noise.is_cuda:
            self.learner.update(batch)
            return
        if shape not in self.recorded:
            self.recorded[shape] = None if self.failed else self._record_checked(shape, batch)
        graph = self.recorded[shape]
        if graph is None:
            self.learner.update(batch)
        else:
            graph.replay()

    def _record_checked(self, shape: Shape, batch: Batch) -> torch.cuda.CUDAGraph | None:
        """A graph that does what a step does, or None and a line that says why not; the state stays as it was."""
        with unchanged(self.learner.state()):
            before = self.learner.optimiser.vector.clone()
            expected = self._outcome(lambda: self.learner.update(batch), before)
            try:
                graph = self._record(batch)
            except RuntimeError as error:
                self.failed = True
                torch.cuda.synchronize()
                self.say(f"{shape.clips}: not recorded, steps are launched one by one: {error}")
                return None
            found = self._outcome(graph.replay, before)
        difference, agreement = compare(expected, found)
        verdict = f"largest relative difference {difference:.1e}, cosine of the changes {agreement:.4f}"
        if difference < LARGEST_DIFFERENCE and agreement > LEAST_AGREEMENT:
            self.say(f"{shape.clips}: recorded; {verdict}")
            return graph
        self.say(f"{shape.clips}: the recording differs, steps are launched one by one: {verdict}")
        return None

    def _record(self, batch: Batch) -> torch.cuda.CUDAGraph:
        with unchanged(self.learner.state()):
            for _ in range(WARM_UP):
                self.learner.update(batch)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.memory, stream=torch.cuda.current_stream()):
            self.learner.update(batch)
        self.memory = self.memory or graph.pool()
        torch.cuda.synchronize()
        return graph

    def _outcome(self, step: Callable[[], None], before: Tensor) -> tuple[Tensor, Tensor]:
        """The terms that one step from the weights `before` measures, and how it changes the weights."""
        with unchanged(self.learner.state()):
            self.learner.sums.zero_()
            step()
            return self.learner.sums[1:].clone(), self.learner.optimiser.vector - before


def compare(expected: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Largest relative difference of the terms of two steps, and the cosine of their changes."""
    (terms, change), (other_terms, other_change) = expected, found
    difference = ((terms - other_terms).abs() / (terms.abs() + 1e-3)).max()
    cosine = torch.nn.functional.cosine_similarity(change, other_change, dim=0)
    return float(difference), float(cosine)


@contextmanager
def unchanged(tensors: list[Tensor]) -> Iterator[None]:
    """Put the values of tensors back at the end."""
    kept = [tensor.clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, value in zip(tensors, kept, strict=True):
            tensor.copy_(value)
