"""Plant every fault of some lists, one after the other, and see which of them tests notice.

    python -m tests.plant_list LIST... [--only WORD] [--trust] [--limit SECONDS]
    python -m tests.plant_list tests/faults/quant.toml --only mxfp8

LIST is a TOML file of `[[fault]]` tables: `file`, `old` and `new` as `tests.plant` takes them, `kind`, `tests`, and
`survives` with the reason where no test is to notice it. With a WORD only faults whose file or text has it. Each set of
tests must be green as it is, which is tried once, but for --trust. Exits with 0 where all came out as the lists say.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch  # noqa: F401
import torch  # noqa: F401

from .plant import ROOT, copy_tree, plant

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


KINDS = ("constant", "comparison", "index", "term", "order", "dtype", "clamp", "sign", "check", "unit")
"""What can be wrong: a `term` is dropped or put in, `order` is that of arguments, a `check` is skipped."""
LIMIT_S = 300
"""How long a run may take unless --limit says so; one that hangs has noticed the fault, too."""


@dataclass(frozen=True)
class Fault:
    """One fault and what is to notice it."""

    file: str
    """In the repository."""
    old: str
    """What the file has once."""
    new: str
    """What takes its place."""
    kind: str
    """One of KINDS."""
    tests: str
    """What pytest takes, separated by spaces."""
    survives: str = ""
    """Why no test has to notice it."""

    def __str__(self) -> str:
        return f"{self.file}: {_short(self.old)!r} -> {_short(self.new)!r}"


def read_faults(path: Path) -> list[Fault]:
    """The faults of a list; TypeError where one has other fields."""
    return [Fault(**fault) for fault in tomllib.loads(path.read_text())["fault"]]


def run_tests(folder: Path, tests: str, limit_s: int = LIMIT_S) -> tuple[int, str]:
    """Run pytest in a copy until the first failure: its exit code and what it said.

    In a fork that has PyTorch imported already, which takes longer than most tests. After `limit_s` it is ended, and
    so are the processes that its tests have started.
    """
    output = folder / ".said"
    child = os.fork()
    if child == 0:
        code = 70
        os.setpgrp()
        signal.alarm(limit_s)
        try:
            with output.open("w") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "seedvr2_engine")]:
                del sys.modules[name]
            os.chdir(folder)
            os.environ["PYTHONPATH"] = str(folder)
            sys.path[:] = [str(folder), *(place for place in sys.path if Path(place or ".").resolve() != ROOT)]
            sys.dont_write_bytecode = True
            code = int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests.split()]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return code, output.read_text()


def try_fault(folder: Path, fault: Fault, limit_s: int = LIMIT_S) -> str:
    """Plant it in a copy, run its tests, take it out again: the first test that noticed it, or nothing."""
    target = folder / fault.file
    plant(target, fault.old, fault.new)
    try:
        code, said = run_tests(folder, fault.tests, limit_s)
    finally:
        shutil.copy(ROOT / fault.file, target)
    noticed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    # 1 is a failed test; anything else is a run that did not take place.
    if code == -signal.SIGALRM:
        return f"no end within {limit_s} s"
    if code not in (0, 1) and not noticed:
        raise SystemExit(f"Expected a run of the tests, found:\n{said[-2000:]}")
    return "\n".join(noticed[:1] or ["noticed"]) if code else ""


def try_faults(faults: Sequence[Fault], *, trusts: bool, limit_s: int = LIMIT_S) -> list[bool]:
    """Say of every fault what noticed it; whether each came out as its list says. trusts: that all tests are green."""
    green = {fault.tests for fault in faults if trusts}
    as_listed = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_tree(folder)
        for number, fault in enumerate(faults, 1):
            if fault.tests not in green:
                code, said = run_tests(folder, fault.tests)
                if code:
                    raise SystemExit(f"Expected green tests before anything is planted, found:\n{said[-2000:]}")
                green.add(fault.tests)
            began = time.monotonic()
            noticed = try_fault(folder, fault, limit_s)
            as_listed.append(bool(noticed) != bool(fault.survives))
            said = noticed or f"SURVIVED: {fault.survives or 'expected a test to notice it'}"
            print(f"{number}. {fault}\n    {said[:200]} ({time.monotonic() - began:.0f} s)", flush=True)
    return as_listed


def main(arguments: Sequence[str]) -> int:
    """Try all faults of the lists and count."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("lists", nargs="+", type=Path)
    parser.add_argument("--only", default="", help="a word in the file or in the change")
    parser.add_argument("--trust", action="store_true", help="the tests are known to be green")
    parser.add_argument("--limit", type=int, default=LIMIT_S, metavar="SECONDS", help="ends a run that hangs")
    asked = parser.parse_args(arguments)
    faults = [
        fault
        for path in asked.lists
        for fault in read_faults(path)
        if asked.only in f"{fault.file} {fault.old} {fault.new}"
    ]
    as_listed = try_faults(faults, trusts=asked.trust, limit_s=asked.limit)
    for path, wrong in Counter(f.file for f, right in zip(faults, as_listed, strict=True) if not right).items():
        print(f"Not as listed: {wrong} in {path}")
    print(f"{sum(as_listed)} of {len(faults)} faults came out as listed.")
    return 0 if all(as_listed) else 1


def _short(text: str) -> str:
    return " ".join(text.split())[:80]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
