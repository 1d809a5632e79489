"""`seedvr2 doctor`: is everything right on this machine?"""

from __future__ import annotations

import re
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
    warm: Annotated[
        bool, typer.Option("--warm", help="Compile what a clip needs and is not compiled yet; check no kernels.")
    ] = False,
    size: Annotated[
        list[str] | None,
        typer.Option(
            help="With --warm: pictures of this size, such as 1280x720; may be repeated; every size if not given."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Say what is installed and used; check no kernels.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Where to write the findings as JSON; refuses to replace a file.")
    ] = None,
) -> None:
    """Say what this machine has and what will be used, and check every kernel on its GPU against plain PyTorch."""
    from ...device import resolve_device
    from ...doctor.machine import DoctorReport, inspect_machine, what_is_used
    from ...errors import InvalidArgumentError
    from ...output.unfinished import check_target, write_whole

    if report is not None:
        check_target(report, overwrite=False)
    resolved = resolve_device(device)
    machine = inspect_machine(resolved)
    _print_machine(machine, what_is_used(machine))
    began = time.monotonic()
    checks: tuple[Check, ...] = ()
    if size and not warm:
        raise InvalidArgumentError("--size: expected --warm beside it, which compiles for these sizes; add it.")
    if warm:
        _warm(machine, tuple(format or ()), size or [])
    elif not quick:
        if machine.gpu is None or machine.triton == "none":
            out.print("\nThe kernels were not checked: they need an NVIDIA GPU, PyTorch with CUDA, and Triton.")
        else:
            checks = _check(machine, tuple(format or ()), device)
    findings = DoctorReport(machine, what_is_used(machine), checks, round(time.monotonic() - began, 1))
    if report is not None:
        write_whole(report, findings.to_json().encode(), overwrite=False)
        err.print(f"Written: {report}", markup=False)
    _conclude(findings)


def _warm(machine: Installation, formats: tuple[str, ...], sizes: list[str]) -> None:
    from ...doctor.packing import warm_cache
    from ...errors import InvalidArgumentError

    pixels = [re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", one) for one in sizes]
    if not all(pixels):
        wrong = next(one for one, found in zip(sizes, pixels, strict=True) if not found)
        raise InvalidArgumentError(f"--size: expected width and height such as 1280x720, got {wrong!r}.")
    if machine.gpu is None or machine.triton == "none":
        out.print("\nNothing was compiled: that needs an NVIDIA GPU, PyTorch with CUDA, and Triton.")
        return
    rows_columns = [(int(found[2]), int(found[1])) for found in pixels if found is not None]
    with err.status("compiling") as status:
        warmed = warm_cache(machine.gpu, formats, rows_columns, status.update)
    out.print(
        f"\n{warmed.compiled} kernels were compiled, {warmed.found} were there already ({warmed.seconds:.0f} s).",
        markup=False,
    )


def _check(machine: Installation, wanted: tuple[str, ...], device: str) -> tuple[Check, ...]:
    from ...device import resolve_device
    from ...doctor.machine import check_kernels, check_transformer, plans_to_check
    from ...kernels.architectures import ARCHITECTURES, formats_of
    from ...models.vae.config import VAEConfig

    assert machine.gpu is not None
    sm, resolved = machine.gpu.sm, resolve_device(device)
    offered, only_matrices = formats_of(sm), set(ARCHITECTURES[sm].matrices) - set(formats_of(sm))
    formats: list[Format] = [f for f in wanted or offered if f not in only_matrices]  # type: ignore[misc]
    plans = plans_to_check(machine.gpu, formats, VAEConfig())
    out.print("\nEvery kernel is compiled and compared with plain PyTorch; the first time takes some minutes.")
    with err.status("checking") as status:

        def say(check: Check) -> None:
            status.update(f"{check.kernel} {check.format}: {check.wrong or 'right'}")

        checks = check_kernels(plans, resolved, on_check=say) + check_transformer(sm, wanted, resolved, say)
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
