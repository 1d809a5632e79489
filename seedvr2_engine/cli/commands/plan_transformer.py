"""`seedvr2 plan --part transformer`: its memory and its time on a GPU, in every format that is computed there."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from ...errors import InvalidArgumentError
from ..model_files import model_file
from ..terminal.console import wide

if TYPE_CHECKING:
    from ...device import DeviceSpec
    from ...models.dit.config import DiTConfig


def print_transformer_plan(
    device: DeviceSpec, size: tuple[int, int], frames: int, dit: str, precision: str, *, json: bool
) -> None:
    """Print one line for each format: weights, activations, and the time of one run by a roofline.

    size: rows and columns of the picture. dit: 3b, 7b or a file. precision: a format, or auto for all.
    """
    from ...kernels.architectures import ARCHITECTURES
    from ...pipeline.chunks import latent_count, padded_count
    from ...pipeline.resize import TOKEN_PX
    from ...plan.describe import gigabytes
    from ...plan.dit.memory import activation_bytes, block_bytes, weight_bytes
    from ...plan.dit.roofline import Chunk, choose_transformer_format, transformer_formats, transformer_time
    from ...plan.execution_plan import LATENT_CELL_PX

    config = _config(dit)
    wanted = choose_transformer_format(precision, device)
    rows, columns = (edge + -edge % TOKEN_PX for edge in size)
    chunk = Chunk(latent_count(padded_count(frames)), rows // LATENT_CELL_PX, columns // LATENT_CELL_PX)
    tokens = chunk.frames * (rows // TOKEN_PX) * (columns // TOKEN_PX)
    activations = activation_bytes(config, 2, tokens)
    found: list[dict[str, Any]] = []
    for format in transformer_formats(device.sm) if precision == "auto" else (wanted,):
        time = transformer_time(config, chunk, format, device)
        from_host = transformer_time(config, chunk, format, device, offload=True)
        whole = weight_bytes(config, format)
        found.append(
            {
                "format": format,
                "weights_bytes": whole,
                "activations_bytes": activations,
                "offloaded_bytes": 2 * block_bytes(config, format) + activations,
                "time": None if time is None else {**asdict(time), "ms": time.ms},
                "offloaded_ms": None if from_host is None else from_host.ms,
            }
        )
    if json:
        facts = {"gpu": asdict(device), "transformer": asdict(config), "chunk": chunk._asdict(), "formats": found}
        typer.echo(json_format.dumps(facts, indent=1))
        return
    architecture = ARCHITECTURES[device.sm]
    use = architecture.efficiency
    facts_table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    facts_table.add_row("GPU", f"{device.name}, {device.sm}, {device.card_memory}")
    facts_table.add_row("work", f"transformer {config.family}, {size[1]}x{size[0]}, {frames} frames, {tokens} tokens")
    facts_table.add_row("kernels", architecture.evidence)
    facts_table.add_row(
        "time",
        f"a roofline, not a measurement: {use.matrix_8_bit:.0%} of the 8-bit rate, {use.matrix_16_bit:.0%} of the "
        f"16-bit rate, {use.windows:.0%} of it for attention, {use.bandwidth:.0%} of the bandwidth on paper "
        f"({use.source})",
    )
    wide().print(facts_table, markup=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("format", no_wrap=True)
    titles = ("weights", "activations", "products ms", "attention ms", "passes ms", "ms", "blocks on the host: memory")
    for title in (*titles, "ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for line in found:
        times = line["time"]
        ms = ["?"] * 4 if times is None else [f"{times[key]:.1f}" for key in _MS]
        away = line["offloaded_ms"]
        table.add_row(
            line["format"], gigabytes(line["weights_bytes"]), gigabytes(activations), *ms,
            gigabytes(line["offloaded_bytes"]), "?" if away is None else f"{away:.1f}",
        )  # fmt: skip
    wide().print(table, markup=False)


_MS = ("products_ms", "attention_ms", "passes_ms", "ms")


def _config(dit: str) -> DiTConfig:
    from ...checkpoint.detect_dit import detect_dit
    from ...checkpoint.opening import open_checkpoint
    from ...models.dit.config import PUBLIC_3B, PUBLIC_7B

    public = {"3b": PUBLIC_3B, "7b": PUBLIC_7B}
    if dit in public:
        return public[dit]
    path = model_file(dit)
    if not path.is_file():
        raise InvalidArgumentError(f"--dit: expected 3b, 7b or a transformer file, got {dit!r}.")
    with open_checkpoint(path) as checkpoint:
        return detect_dit(checkpoint)
