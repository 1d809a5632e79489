"""Where a converted file may go: its place, what it may replace, and whether it fits there."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import CheckpointError, ModelFileError, OutputError
from ..base import Checkpoint
from ..locating.registry import MODEL_FILES
from ..opening import open_checkpoint


def check_target(
    source: Path, target: Path, overwrite: bool, replaceable: str, is_replaceable: Callable[[Checkpoint], bool]
) -> None:
    """Raise OutputError if a file must not be written there.

    replaceable: what may be overwritten, in words; is_replaceable says whether a file is that.
    """
    if not target.parent.is_dir():
        raise OutputError(f"{target}: expected an existing folder, found none; create {target.parent} first.")
    if target.is_dir():
        raise OutputError(f"{target}: expected the name of a file, found a folder; add a file name.")
    if target.name.casefold() in {model.name.casefold() for model in MODEL_FILES}:
        raise OutputError(
            f"{target}: expected a name of your own, got that of a public file, which promises other content; choose "
            "another name."
        )
    if not os.path.lexists(target):
        return
    # By the file and not by its name: hard links, and names that differ in case alone.
    if target.exists() and target.samefile(source):
        raise OutputError(f"{target}: expected another file than the source; choose another name.")
    if not overwrite:
        raise OutputError(
            f"{target}: expected no such file, found one; choose another name or ask to overwrite it (--overwrite)."
        )
    _check_replaceable(target, replaceable, is_replaceable)


def _check_replaceable(target: Path, replaceable: str, is_replaceable: Callable[[Checkpoint], bool]) -> None:
    """Whoever asks to overwrite means an older conversion: a transformer of 16 GB is never replaced by a VAE."""
    try:
        with open_checkpoint(target) as existing:
            found = "" if is_replaceable(existing) else "another model"
    except (CheckpointError, ModelFileError):
        found = "a file that is no model"
    if found:
        raise OutputError(
            f"{target}: expected {replaceable} to overwrite, found {found}; choose another name, or remove it yourself."
        )


def check_space(target: Path, data_bytes: int) -> None:
    """Raise OutputError if so much does not fit beside `target`."""
    free_bytes = shutil.disk_usage(target.parent).free
    if free_bytes < data_bytes:
        raise OutputError(
            f"{target}: expected {data_bytes / 1e6:.0f} MB of free space, found {free_bytes / 1e6:.0f} MB; "
            "make room or choose another folder."
        )


@contextmanager
def output_errors(target: Path) -> Iterator[None]:
    """What the system refuses while `target` is written, as OutputError."""
    try:
        yield
    except OSError as error:
        # numpy reports a full disk without an error number, in words only.
        raise OutputError(
            f"{target}: the file could not be written ({error.strerror or error}) and nothing was left behind; "
            "make room or choose another folder."
        ) from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
