"""Compile every kernel for GPUs that are not here, and print what it will need there.

    python -m benchmarks.compile_kernels sm_90 sm_120
    python -m benchmarks.compile_kernels sm_120 --format mxfp8 --json report.json

Which kernels those are is asked of the planner: every one that any size needs, with pairs of frames and without.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seedvr2_engine.color.backend import LAB_MATCHING
from seedvr2_engine.device import DeviceSpec, MatrixRates
from seedvr2_engine.kernels.architectures import ARCHITECTURES
from seedvr2_engine.kernels.configs import AttentionConfig, ConvConfig, Format
from seedvr2_engine.kernels.dispatch import shared_memory_bytes
from seedvr2_engine.models.dit.config import PUBLIC_3B, PUBLIC_7B
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.plan.coverage import ALL_PX, covering_plans, distinct_kernels
from seedvr2_engine.plan.describe import describe_config, operation_name
from seedvr2_engine.plan.execution_plan import Operation

from .aot.color import compile_color
from .aot.compiler import compile_attention, compile_attention_8bit, compile_conv3d
from .aot.tokens import compile_tokens


def device(sm: str) -> DeviceSpec:
    return DeviceSpec(sm, sm, 0, ARCHITECTURES[sm].shared_memory_bytes, 0, 0.0, MatrixRates(0, 0, 0, 0))


def planned(sm: str, format: Format) -> list[Operation]:
    """The convolutions and attentions that any plan in a format needs there, one for each compiled kernel."""
    return list(distinct_kernels(covering_plans(device(sm), [format], VAEConfig(), ALL_PX)).values())


def conv_reports(sm: str, format: Format, only: str | None) -> Iterator[dict[str, Any]]:
    for operation in planned(sm, format):
        problem, config = operation.problem, operation.config
        layer = operation_name(operation)
        if problem is None or not isinstance(config, ConvConfig) or (only is not None and only not in layer):
            continue
        yield {
            "sm": sm,
            "layer": layer,
            "format": problem.format,
            "channels_in": problem.channels_in,
            "channels_out": problem.channels_out,
            "config": config.describe(),
            "threads": 32 * config.warps,
            "masks": not config.divides(problem.grid_px),
            "planned_shared_memory_bytes": shared_memory_bytes(problem, config, sm),
            **asdict(compile_conv3d(problem, config, sm)),
        }


def attention_reports(sm: str) -> Iterator[dict[str, Any]]:
    seen = set()
    for operation in (operation for format in ARCHITECTURES[sm].formats for operation in planned(sm, format)):
        config, dim = operation.config, operation.size[2] // 3
        if not isinstance(config, AttentionConfig) or (operation.format, config) in seen:
            continue
        seen.add((operation.format, config))
        if operation.format in ("fp16", "bf16"):
            compiled = compile_attention(dim, config, sm, operation.format)
        else:
            compiled = compile_attention_8bit(dim, config, sm, operation.format)
        yield {
            "sm": sm,
            "layer": "attention",
            "format": operation.format,
            "config": describe_config(config),
            "threads": 32 * config.warps,
            **asdict(compiled),
        }


def token_reports(sm: str) -> Iterator[dict[str, Any]]:
    """The passes of both public transformers; the 7B model has no gated MLP, but a gate of its width compiles too."""
    for family, config in (("3b", PUBLIC_3B), ("7b", PUBLIC_7B)):
        for name, report in compile_tokens(config.width, config.heads, config.mlp_width, sm):
            yield {"sm": sm, "layer": f"{family} {name}", "format": "bf16", "config": "", **asdict(report)}


def color_reports(sm: str) -> Iterator[dict[str, Any]]:
    for name, report in compile_color(LAB_MATCHING, sm):
        yield {"sm": sm, "layer": f"colour {name}", "format": "fp16", "config": "", **asdict(report)}


def show(report: dict[str, Any]) -> None:
    instructions = ", ".join(name.split(".", 1)[0] + " ..." + name[-24:] for name in report["matrix_instructions"])
    print(
        f"{report['sm']:7}{report['format']:6} {report['layer']:44} {report['config']:62} "
        f"{report['registers']:4} registers {report['spilled_bytes']:4} B spilled "
        f"{report['shared_memory_bytes']:7} B shared  {instructions}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sm", nargs="*", help=f"of {', '.join(ARCHITECTURES)}; all of them if none is named")
    parser.add_argument("--format", help="one format; all of the architecture's without it")
    parser.add_argument("--layer", help="only layers whose name contains this")
    parser.add_argument("--attention", action="store_true", help="only the attention")
    parser.add_argument("--tokens", action="store_true", help="only the transformer's passes")
    parser.add_argument("--color", action="store_true", help="only the colour kernels")
    parser.add_argument("--json", help="a file to write, or - for standard output in place of the table")
    arguments = parser.parse_args()
    if unknown := [sm for sm in arguments.sm if sm not in ARCHITECTURES]:
        parser.error(f"expected any of {', '.join(ARCHITECTURES)}, got {unknown[0]}")
    kinds = {"attention": attention_reports, "tokens": token_reports, "color": color_reports}
    only = [kind for kind in kinds if getattr(arguments, kind)]
    everything = arguments.layer is None and arguments.format is None
    reports = []
    for sm in arguments.sm or ARCHITECTURES:
        formats = () if only else ARCHITECTURES[sm].formats
        for format in formats:
            if arguments.format in (None, format):
                for report in conv_reports(sm, format, arguments.layer):
                    reports.append(report)
                    if arguments.json != "-":
                        show(report)
        others = [report for kind in only or (kinds if everything else ()) for report in kinds[kind](sm)]
        reports += others
        if arguments.json != "-":
            for report in others:
                show(report)
    if arguments.json == "-":
        json.dump(reports, sys.stdout)
    elif arguments.json:
        Path(arguments.json).write_text(json.dumps(reports, indent=1) + "\n")


if __name__ == "__main__":
    main()
