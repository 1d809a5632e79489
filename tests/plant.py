"""Plant one fault in a copy of the repository and see whether tests notice it.

    python -m tests.plant FILE OLD NEW TESTS...
    python -m tests.plant seedvr2_engine/pipeline/resize.py "CELL_PX = 16" "CELL_PX = 8" tests/pipeline/test_resize.py

FILE has OLD exactly once, which becomes NEW. TESTS are what pytest takes; they must be green as it is. The working tree
is copied as it stands, what git ignores left out, and never written to. Exits with 0 where a test failed, 1 where none
did.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def copy_tree(target: Path) -> None:
    """Copy what git knows or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def run_tests(folder: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run pytest in a copy until the first failure."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def plant(path: Path, old: str, new: str) -> None:
    """Replace the only `old` in a file; SystemExit where there is none, or more than one."""
    text = path.read_text()
    if text.count(old) != 1:
        raise SystemExit(f"{path.name}: expected {old!r} once, found it {text.count(old)} times.")
    path.write_text(text.replace(old, new))


def main(arguments: Sequence[str]) -> int:
    """Say which test noticed the fault, or that none did."""
    if len(arguments) < 4:
        raise SystemExit(__doc__)
    name, old, new, *tests = arguments
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_tree(folder)
        before = run_tests(folder, tests)
        if before.returncode:
            raise SystemExit(f"Expected green tests before anything is planted, found:\n{before.stdout[-2000:]}")
        plant(folder / name, old, new)
        after = run_tests(folder, tests)
    # 1 is a failed test; anything else is a run that did not take place.
    noticed = [line for line in after.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if after.returncode not in (0, 1) and not noticed:
        raise SystemExit(f"Expected a run of the tests, found:\n{after.stdout[-2000:]}{after.stderr[-2000:]}")
    print("\n".join(noticed) if after.returncode else f"SURVIVED: {name}: {old!r} -> {new!r}")
    return 0 if after.returncode else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
