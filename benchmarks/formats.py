"""Write `docs/formats.md`: which number format, kernel and cut every kind of layer gets on every generation of GPUs.

    python -m benchmarks.formats

Nothing in it is written by hand: the rows are those of compiled plans, the reasons are the dispatch's own.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from seedvr2_engine.device import DeviceSpec, MatrixRates
from seedvr2_engine.kernels.architectures import ARCHITECTURES
from seedvr2_engine.kernels.configs import FORMATS, Format, Refusal
from seedvr2_engine.kernels.dispatch import choose_window_config
from seedvr2_engine.kernels.layout import element_bytes
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.plan import VAEShape, compile_vae_plan
from seedvr2_engine.plan.choices import choose_precision
from seedvr2_engine.plan.coverage import PARTS
from seedvr2_engine.plan.describe import describe_config
from seedvr2_engine.plan.execution_plan import Operation
from seedvr2_engine.quant import QuantRecipe

TARGET = Path(__file__).parent.parent / "docs" / "formats.md"
ROWS_PX, COLUMNS_PX = 720, 1280
HEAD_CHANNELS = 128
"""Of a head of the public transformers."""

INTRODUCTION = f"""# Layers, number formats and generations of GPUs

Generated from the dispatch by `python -m benchmarks.formats`; a test compares. The VAE has the public widths, the
picture is {COLUMNS_PX}x{ROWS_PX}, the clip has many frames, and memory is not short: with less of it frames are
computed one by one where this says "in pairs". Other sizes get other cuts (`kernels/dispatch.py`,
`kernels/architectures/`) and the same formats. What a layer is computed in can still change when weights are loaded:
the accuracy check moves to 16 bits what 8 bits would spoil.

How to read a cut: a tile is rows x columns of the picture, N its output channels, K the input channels of one step;
"descriptors" are those of the tensor memory accelerator, "pointers" plain loads.
"""

HEADING = "| layers | computed in | kernel | cut | why this format |\n|---|---|---|---|---|"


class Row(NamedTuple):
    """What several kinds of layer have in common."""

    kernel: str
    format: str
    cut: str
    reason: str


def device(sm: str) -> DeviceSpec:
    """A GPU of a generation, of which only what its kernels depend on is known."""
    return DeviceSpec(sm, sm, 0, ARCHITECTURES[sm].shared_memory_bytes, 0, 0.0, MatrixRates(0, 0, 0, 0))


def kind_of(operation: Operation) -> str:
    """The layers that an operation stands for, in a few words."""
    part = operation.layer.split(".")[0]
    if operation.layer.endswith((".conv_in", ".conv_out")):
        return f"{part}'s {'first' if operation.layer.endswith('in') else 'last'} convolution"
    if operation.kernel == "attention":
        return "attention"
    assert operation.problem is not None
    if ".attentions." in operation.layer:
        return "the attention's projections"
    widths = (
        f"{operation.problem.channels_in}" if operation.problem.channels_in == operation.problem.channels_out else ""
    )
    widths = widths or f"{operation.problem.channels_in} to {operation.problem.channels_out}"
    if "samplers" in operation.layer:
        return f"{'up' if operation.problem.phases == 4 else 'down'}sampler {widths}"
    added = " with shortcut" if operation.problem.shortcut_channels else ""
    return f"resnet {widths}{added}"


def kernel_of(operation: Operation) -> str:
    """The module of `kernels` that computes an operation, or PyTorch."""
    if operation.kernel == "attention":
        if operation.config is None:
            return "PyTorch"
        return "attention.eight_bit" if element_bytes(operation.format) == 1 else "attention.flash"
    assert operation.problem is not None
    return "conv.paired" if operation.problem.paired else "conv.conv3d"


def rows_of(sm: str, format: Format) -> dict[Row, list[str]]:
    """What the layers are computed with, and which kinds of layer are computed so, in the order of the plans."""
    found: dict[Row, list[str]] = {}
    for part in PARTS:
        shape = VAEShape(part, ROWS_PX, COLUMNS_PX, frames=None)
        plan = compile_vae_plan(VAEConfig(), QuantRecipe(format), device(sm), shape, sys.maxsize)
        if plan.refusals:
            raise SystemExit(f"{sm}, {format}: expected a plan, found {plan.refusals[0]}.")
        for operation in plan.steady.operations:
            if operation.kernel in ("conv3d", "attention"):
                row = Row(kernel_of(operation), operation.format, describe_config(operation.config), operation.reason)
                kinds = found.setdefault(row, [])
                if kind_of(operation) not in kinds:
                    kinds.append(kind_of(operation))
    return found


def overview() -> Iterator[str]:
    """Formats by generations: which is offered, and why not."""
    yield f"| | {' | '.join(FORMATS)} | windows of the transformer | its products in 8 and 4 bits |"
    yield f"|---|{'---|' * (len(FORMATS) + 2)}"
    for sm, architecture in ARCHITECTURES.items():
        automatic = choose_precision("auto", device(sm)).format
        cells = []
        for format in FORMATS:
            if format in architecture.formats:
                cells.append("yes, `auto`" if format == automatic else "yes")
            else:
                cells.append(f"no: {architecture.left_out[format]}" if format in architecture.left_out else "no units")
        windows = "PyTorch" if isinstance(choose_window_config(HEAD_CHANNELS, sm), Refusal) else "our kernel"
        products = ", ".join(architecture.matrices) or "none"
        yield f"| {sm} | {' | '.join(cells)} | {windows} | {products} |"


def tables(sm: str) -> Iterator[str]:
    """The tables of a generation, one for each format; BF16's is FP16's where only the name differs."""
    shown: dict[str, str] = {}
    for format in ARCHITECTURES[sm].formats:
        lines = [
            f"| {'; '.join(kinds)} | {row.format} | {row.kernel} | {row.cut} | {row.reason} |"
            for row, kinds in rows_of(sm, format).items()
        ]
        text = "\n".join(lines)
        same = next((name for name, other in shown.items() if other == text.replace(format, name)), None)
        shown[format] = text
        if same is not None:
            yield f"\n`{format}`: as `{same}`, in {format}."
            continue
        yield f"\n`{format}`\n\n{HEADING}\n{text}"


def document() -> str:
    """The whole text of `docs/formats.md`."""
    parts = [INTRODUCTION, *overview()]
    shown: dict[str, str] = {}
    for sm, architecture in ARCHITECTURES.items():
        pairs = "Frames are computed in pairs." if architecture.pairs_frames else "Frames are computed one by one."
        known = f"{architecture.products}: {architecture.evidence}. {pairs}"
        parts += ["", f"## {sm}", "", known]
        text = "\n".join(tables(sm))
        same = next((name for name, other in shown.items() if other == text), None)
        shown[sm] = text
        parts.append(f"\nAll as on {same}." if same else text)
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    TARGET.write_text(document())
    print(TARGET)
