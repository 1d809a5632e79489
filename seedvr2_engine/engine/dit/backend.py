"""What computes between a transformer's matrix products: the Triton kernels, or their FP32 references anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.configs import WindowConfig
from ...kernels.tokens import reference
from ...kernels.tokens.operands import JoinStep, Placement, TokenStep

QKV = tuple[Tensor, Tensor, Tensor]
Parts = tuple[Tensor | None, Tensor | None, Tensor | None]


class StepTokens(Protocol):
    """A gated change is added to tokens, which are then normalised."""

    def __call__(self, x: Tensor, step: TokenStep, *, kept: Tensor | None, out: Tensor | None) -> None: ...


class TokenBackend(NamedTuple):
    """The passes of the fused transformer; `kernels.tokens.reference` says what each computes."""

    name: str
    step_tokens: StepTokens
    join_parts: Callable[[Tensor, JoinStep, Parts], None]
    collect_rows: Callable[[Tensor, Placement, Tensor], None]
    gate_silu: Callable[[Tensor, Tensor], None]
    attend_windows: Callable[[QKV, Tensor, Tensor, Tensor, WindowConfig], None]
    project_gelu: Callable[[Tensor, Tensor, Tensor, Tensor], None]
    """x, weight, bias -> out: a linear layer and GELU in its tanh form."""
    compile: Callable[[Iterable[Callable[[], object]]], None]
    """Compiles what calls of the functions above need, side by side, and runs none of it but `project_gelu`."""


def reference_tokens() -> TokenBackend:
    """The FP32 references: slow, and independent of any GPU."""
    return TokenBackend(
        "reference",
        reference.step_tokens,
        reference.join_parts,
        reference.collect_rows,
        reference.gate_silu,
        reference.attend_windows,
        _project_gelu,
        lambda calls: None,
    )


def triton_tokens() -> TokenBackend:
    """The kernels; raises ImportError where Triton is missing."""
    from ...kernels import launch
    from ...kernels.attention import windows
    from ...kernels.tokens import gates, joint

    return TokenBackend(
        "Triton",
        gates.step_tokens,
        joint.join_parts,
        joint.collect_rows,
        gates.gate_silu,
        windows.attend_windows,
        _project_gelu_in_epilogue if torch.cuda.is_available() else _project_gelu,
        launch.compile_ahead,
    )


def _project_gelu(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    out.copy_(F.gelu(F.linear(x, weight, bias), approximate="tanh"))


def _project_gelu_in_epilogue(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    # On a GPU this is cuBLAS's epilogue, which has the tanh form; on the CPU it would be the exact one.
    torch._addmm_activation(bias, x, weight.t(), use_gelu=True, out=out)
