"""FusedDiT: a transformer on a GPU, computed in few passes; and the choice between it and the plain model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import cast

import torch
from torch import Tensor, nn

from ...device import is_before_ampere
from ...kernels.configs import Refusal, WindowConfig
from ...kernels.dispatch import choose_window_config
from ...models.dit.attention import AttentionKind
from ...models.dit.blocks import Block, GatedMLP
from ...models.dit.geometry import Geometry
from ...models.dit.model import Conditioning, NaDiT
from ...models.dit.rope import RopeRounding
from ...models.precision import exact_float32
from .backend import TokenBackend, triton_tokens
from .graphs import VelocityGraphs
from .layers import ForwardPass, joined_rows
from .quantized import BlockFormat
from .streamed import StreamedDiT
from .tables import JointTables, Recent, joint_tables

log = logging.getLogger(__name__)

_REMEMBERED = 4
"""Geometries whose tables are kept."""


class FusedDiT(NaDiT):
    """Another model's weights, by the same names, and the same velocity up to rounding, in less time.

    What the plain model rounds to its 16 bits is rounded here too, but for the products that matter to nobody else.
    """

    def __init__(
        self,
        dit: NaDiT,
        backend: TokenBackend | None = None,
        *,
        graphs: bool = True,
        windows: WindowConfig | Refusal | None = None,
        attention_format: str | None = None,
    ) -> None:
        """Take over the modules of `dit`, which keeps working; its gated MLPs become views of one matrix each.

        graphs: whether small runs are recorded as CUDA graphs. windows: how attention is cut, or why PyTorch's is used;
        None chooses for the GPU. attention_format: "int8" or "fp8" for queries and keys, with values in FP8, to measure
        attention in 8 bits; nothing chooses it.
        """
        nn.Module.__init__(self)
        self.config = dit.config
        for name, module in dit.named_children():
            self.add_module(name, module)
        # Not a submodule: its modules are this one's already.
        self._source: Callable[[], NaDiT] = lambda: dit
        self._backend = backend or triton_tokens()
        self.windows = _choose_windows(dit) if windows is None else windows
        self._attention_format = attention_format
        self._geometries: dict[tuple[object, ...], Geometry] = {}
        self._tables = Recent[tuple[JointTables, JointTables]](_REMEMBERED)
        self._is_compiled = isinstance(dit, StreamedDiT) and dit.is_offloaded
        self.graphs = VelocityGraphs(dit, wanted=graphs)
        join_gates(dit)
        self._formats = tuple(BlockFormat.of(cast(Block, block)) for block in self.blocks)
        self.train(dit.training)

    @property
    def plain(self) -> NaDiT:
        """The model that was taken over, in plain PyTorch."""
        return self._source()

    @property
    def resident_bytes(self) -> int:
        """The plain model's."""
        return self.plain.resident_bytes

    def loaded_blocks(self) -> Iterator[Block]:
        """The plain model's."""
        return self.plain.loaded_blocks()

    def geometry(
        self,
        shape: tuple[int, ...],
        text_tokens: int,
        *,
        rope_rounding: RopeRounding = "float32",
        attention: AttentionKind | None = None,
    ) -> Geometry:
        """As the plain model's; one that was asked for lately is the same object."""
        key = (*shape, text_tokens, rope_rounding, attention)
        if key not in self._geometries:
            while len(self._geometries) >= _REMEMBERED:
                del self._geometries[next(iter(self._geometries))]
            self._geometries[key] = super().geometry(
                shape, text_tokens, rope_rounding=rope_rounding, attention=attention
            )
        return self._geometries[key]

    @torch.no_grad()
    def velocity(self, video: Tensor, geometry: Geometry, conditioning: Conditioning) -> Tensor:
        """As the plain model's, up to rounding; the same input gives the same bits."""
        clips = video if video.ndim == 5 else video.unsqueeze(0)
        self._check(video, clips, geometry, conditioning)
        clips = clips.to(self.device, self.dtype)
        if not self._is_compiled:
            # A run whose kernels are only compiled; it costs what the products do, once. Weights on the host would come
            # over the bus for it, which takes longer than it saves.
            self._is_compiled = True
            self.compile_kernels(clips, geometry, conditioning)
        out = self.graphs.run(self._velocity, clips, geometry, conditioning)
        return out if video.ndim == 5 else out.squeeze(0)

    @torch.no_grad()
    def compile_kernels(self, clips: Tensor, geometry: Geometry, conditioning: Conditioning) -> None:
        """Compile what `velocity` launches for such clips (clips, T, H, W, 33), and compute nothing that is of use."""
        clips = clips.to(self.device, self.dtype)
        self._backend.compile([lambda: self._velocity(clips, geometry, conditioning)])

    def _velocity(self, clips: Tensor, geometry: Geometry, conditioning: Conditioning) -> Tensor:
        with exact_float32():
            forward = self._forward_pass(geometry, conditioning)
            # Nobody but the pass holds the tokens, so that it can let go of them.
            out = self.vid_out.proj(forward.run(self._tokens(clips, geometry, conditioning), self.loaded_blocks()))
            return self.vid_out.positions(out, geometry.shape)

    def _tokens(self, clips: Tensor, geometry: Geometry, conditioning: Conditioning) -> Tensor:
        patches = self.vid_in.patches(clips)
        video_rows, text = len(patches), conditioning.text
        tokens = patches.new_empty(video_rows + len(clips) * len(text), self.config.width)
        torch.addmm(self.vid_in.proj.bias, patches, self.vid_in.proj.weight.t(), out=tokens[:video_rows])
        tokens[video_rows:].view(len(clips), *text.shape).copy_(text)
        return tokens

    def _forward_pass(self, geometry: Geometry, conditioning: Conditioning) -> ForwardPass:
        config = None if isinstance(self.windows, Refusal) or geometry.attention == "sdpa" else self.windows
        head = None
        if conditioning.head is not None:
            shift, scale = conditioning.head
            head = scale * self.vid_out_norm.weight.float(), shift
        return ForwardPass(
            self.config,
            conditioning,
            self._tables.get(
                (geometry,), lambda: joint_tables(geometry, config, in_8_bits=self._attention_format is not None)
            ),
            len(geometry.restore),
            head,
            geometry.attention,
            self._backend,
            self._formats,
            self._attention_format,
        )


def serve_dit(dit: NaDiT) -> NaDiT:
    """The fused transformer where it can run, else the plain one; says which and why in the log."""
    reason = reason_for_plain(dit)
    if reason:
        log.info("transformer: plain PyTorch, because %s", reason)
        return dit
    log.info("transformer: fused kernels")
    return FusedDiT(dit)


def reason_for_plain(dit: NaDiT) -> str:
    """Why the fused transformer cannot run this model; empty if it can."""
    if isinstance(dit, FusedDiT):
        return "it is fused already"
    if dit.device.type != "cuda":
        return f"it runs on {dit.device.type}, and the kernels need an NVIDIA GPU"
    if dit.dtype not in (torch.float16, torch.bfloat16):
        return f"it computes in {str(dit.dtype).removeprefix('torch.')}, and the kernels are for 16 bits"
    if is_before_ampere(dit.device):
        return "the GPU is older than sm_80"
    width = dit.config.head_width
    if width & (width - 1):
        return f"a head has {width} channels, which is no power of two"
    if find_spec("triton") is None:
        return "Triton is not installed"
    return ""


def _choose_windows(dit: NaDiT) -> WindowConfig | Refusal:
    if dit.device.type != "cuda" or dit.dtype.itemsize != 2:
        return Refusal("the kernel is for 16 bits on an NVIDIA GPU")
    major, minor = torch.cuda.get_device_capability(dit.device)
    return choose_window_config(dit.config.head_width, f"sm_{major}{minor}")


def join_gates(dit: NaDiT) -> None:
    """Make the two matrices of every gated MLP views of one, block by block; what is on the meta device stays."""
    for module in dit.modules():
        if isinstance(module, GatedMLP) and not module.proj_in.weight.is_meta:
            gate, up = module.proj_in_gate, module.proj_in
            if joined_rows(gate.weight, up.weight) is None:
                both = torch.cat([gate.weight.detach(), up.weight.detach()])
                for layer, rows in zip((gate, up), both.chunk(2), strict=True):
                    layer.weight = nn.Parameter(rows, requires_grad=layer.weight.requires_grad)
