"""`seedvr2 doctor`: is everything right on this machine?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..terminal.console import err, fail, out, wide

if TYPE_CHECKING:
    from ...doctor.kernel_checks import Check
    from ...doctor.machine import DoctorReport, Installation
    from ...kernels.configs import Format

EXIT_WRONG = 1
"""Something on this machine computes what it should not."""


def doctor(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    format: Annotated[
        list[str] | None, typer.Option(help="Check this number format only; all that the GPU offers if not given.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Say what is installed and used; check no kernels.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Where to write the findings as JSON; refuses to replace a file.")
    ] = None,
) -> None:
    """Say what this machine has and what will be used, and check every kernel on its GPU against plain PyTorch."""
    from ...device import resolve_device
    from ...doctor.machine import DoctorReport, inspect_machine, what_is_used
    from ...output.unfinished import check_target, write_whole

    if report is not None:
        check_target(report, overwrite=False)
    resolved = resolve_device(device)
    machine = inspect_machine(resolved)
    _print_machine(machine, what_is_used(machine))
    began = time.monotonic()
    checks: tuple[Check, ...] = ()
    if not quick:
        if machine.gpu is None or machine.triton == "none":
            out.print("\nThe kernels were not checked: they need an NVIDIA GPU, PyTorch with CUDA, and Triton.")
        else:
            checks = _check(machine, tuple(format or ()), device)
    findings = DoctorReport(machine, what_is_used(machine), checks, round(time.monotonic() - began, 1))
    if report is not None:
        write_whole(report, findings.to_json().encode(), overwrite=False)
        err.print(f"Written: {report}", markup=False)
    _conclude(findings)


def _check(machine: Installation, wanted: tuple[str, ...], device: str) -> tuple[Check, ...]:
    from ...device import resolve_device
    from ...doctor.machine import check_kernels, plans_to_check
    from ...kernels.architectures import formats_of
    from ...models.vae.config import VAEConfig

    assert machine.gpu is not None
    formats: tuple[Format, ...] = wanted or formats_of(machine.gpu.sm)  # type: ignore[assignment]
    plans = plans_to_check(machine.gpu, formats, VAEConfig())
    out.print("\nEvery kernel is compiled and compared with plain PyTorch; the first time takes some minutes.")
    with err.status("checking") as status:
        checks = check_kernels(
            plans,
            resolve_device(device),
            on_check=lambda check: status.update(f"{check.kernel} {check.format}: {check.wrong or 'right'}"),
        )
    _print_checks(checks)
    return checks


def _print_machine(machine: Installation, uses: str) -> None:
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    gpu = machine.gpu
    if gpu is None:
        facts.add_row("GPU", "none that PyTorch can use")
    else:
        bandwidth = f", {gpu.bandwidth_bytes_per_s / 1e9:.0f} GB/s" if gpu.bandwidth_bytes_per_s else ""
        facts.add_row("GPU", f"{gpu.name}, {gpu.sm}, {gpu.sm_count} SMs, {gpu.card_memory}{bandwidth}")
    facts.add_row("driver", machine.driver)
    facts.add_row("PyTorch", f"{machine.torch}, CUDA {machine.cuda}")
    facts.add_row("Triton", machine.triton)
    facts.add_row("system", f"{machine.system}, Python {machine.python}, seedvr2-engine {machine.engine}")
    facts.add_row("used", uses)
    wide().print(facts, markup=False)


def _print_checks(checks: tuple[Check, ...]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("kernel", "format", "first layer", "configuration", "error", "result"):
        table.add_column(title, no_wrap=title in ("kernel", "format", "error"))
    for check in checks:
        error = "" if check.error is None else f"{check.error:.1e}"
        table.add_row(check.kernel, check.format, check.layer, check.config, error, check.wrong or "right")
    wide().print(table, markup=False)


def _conclude(findings: DoctorReport) -> None:
    failures = findings.failures
    if not findings.checks:
        return
    if not failures:
        out.print(f"\nAll {len(findings.checks)} kernels are right ({findings.seconds:.0f} s).")
        return
    names = "; ".join(f"{check.kernel} {check.format} ({check.layer}): {check.wrong}" for check in failures[:4])
    more = f" and {len(failures) - 4} more" if len(failures) > 4 else ""
    raise typer.Exit(
        fail(f"{len(failures)} of {len(findings.checks)} kernels are wrong: {names}{more}; use --precision reference "
             "until this is mended, and send the file that --report writes.", EXIT_WRONG)
    )  # fmt: skip
