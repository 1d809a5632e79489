"""The file that a conversion writes before it gets its name; what a killed one left is removed by the next."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .names import WORKING_PREFIX

_LOCK, _FILE = "lock", "converting.partial"
"""All that such a folder holds. No model's ending: whatever lists models passes it over."""


@contextmanager
def working_file(folder: Path) -> Iterator[Path]:
    """A path for a file in `folder` that is gone when the block ends, unless it was moved.

    It lies in a folder of its own, whose lock this process holds: no other one takes it for left behind.
    """
    from filelock import FileLock

    _remove_left_behind(folder)
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=WORKING_PREFIX, ignore_cleanup_errors=True) as own,
        FileLock(Path(own, _LOCK)),
    ):
        yield Path(own, _FILE)


def _remove_left_behind(folder: Path) -> None:
    """Remove what is surely ours: a folder with nothing but these two files in it, whose lock nobody holds."""
    from filelock import FileLock, Timeout

    for left in folder.glob(f"{WORKING_PREFIX}*"):
        if left.is_symlink() or not left.is_dir():
            continue
        with contextlib.suppress(OSError, Timeout):
            names = {path.name for path in left.iterdir()}
            if _LOCK not in names or not names <= {_LOCK, _FILE}:
                continue
            with FileLock(left / _LOCK, timeout=0):
                (left / _FILE).unlink(missing_ok=True)
            shutil.rmtree(left)
