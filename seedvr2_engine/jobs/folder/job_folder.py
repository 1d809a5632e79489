"""`OUT.job/` beside an output while it is made: a manifest, and a file for each unit that is finished."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from ...errors import InvalidArgumentError, OutputError
from ...output.lock import TargetLock
from ...output.names import earlier_siblings
from ...output.unfinished import PARTIAL_MARK, system_errors, write_whole
from ...video.writing.pictures.picture_names import PictureNames, is_sequence
from ..units.unit_file import Stored, is_whole, number_of
from .manifest import NAME, Manifest, read_manifest

ENDING = ".job"
_JOINING = "joining"
"""Holds where the output is being written until it has its name."""


def folder_for(target: Path) -> Path:
    """The folder of the job that makes this output."""
    place = PictureNames.of(target, None).folder if is_sequence(target) else target
    return place.with_name(place.name + ENDING)


def was_joined(target: Path) -> bool:
    """Whether a job was killed after its output had got its name, and before its folder was removed."""
    try:
        name = (folder_for(target) / _JOINING).read_text()
    except (OSError, ValueError):
        return False
    place = PictureNames.of(target, None).folder if is_sequence(target) else target
    is_unfinished = any(path.name == name for path in (*earlier_siblings(place, PARTIAL_MARK), *_unended(place)))
    return place.exists() and not is_unfinished


class JobFolder:
    """The folder of one job, held by one process; use it in a `with` statement."""

    def __init__(self, path: Path) -> None:
        """Make the folder, if there is none, and hold it; raises OutputError where another process does."""
        self.path = path
        self._joining = path / _JOINING
        self._is_its_own = False
        self.finished: dict[int, Path] = {}
        """The files of finished units by number."""
        if path.exists() and not (path / NAME).exists() and any(not _is_ours(entry) for entry in _entries(path)):
            raise OutputError(f"{path}: expected the folder of a job, found one with other files; move it away.")
        with system_errors(path):
            path.mkdir(exist_ok=True)
        with system_errors(path):
            self._lock = TargetLock(path)

    def __enter__(self) -> JobFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_its_own and not self.finished:
            with suppress(OSError, OutputError):
                self.remove()
        with suppress(OSError):
            if not any(self.path.iterdir()):
                self.path.rmdir()
        self._lock.release()

    def go_on(self, manifest: Manifest, *, restart: bool, tell: Callable[[str], None]) -> Manifest:
        """Take over what an earlier run of the same job has finished, or begin; what the job is to go by from here on.

        Raises InvalidArgumentError where the folder is of another job: with the first difference.
        """
        if restart:
            self._empty()
        before = read_manifest(self.path)
        if before is None:
            self._empty()
            manifest.write(self.path)
            self._is_its_own = True
            return manifest
        if difference := before.difference(manifest):
            raise InvalidArgumentError(
                f"{self.path}: it is of another job: {difference}; run that one's command, or begin anew (--restart)."
            )
        if before.versions != manifest.versions:
            tell(
                f"{self.path}: it was begun with {_versions(before)}, and this is {_versions(manifest)}; units that "
                "are made now may differ from it in their last bits."
            )
        if more := [gpu for gpu in manifest.gpus if gpu not in before.gpus]:
            tell(
                f"{self.path}: it was begun on {', '.join(before.gpus)}, and {', '.join(more)} computes other last "
                "bits."
            )
        now = replace(before, gpus=(*before.gpus, *more))
        if now != before:
            now.write(self.path)
        self._find_finished(len(now.units), tell)
        self._is_its_own = True
        return now

    def finish(self, stored: Stored) -> None:
        """Take note of a unit's file."""
        number = number_of(stored.path)
        assert number is not None
        self.finished[number] = stored.path

    def lose(self, number: int) -> None:
        """Throw a finished unit away, which turned out to be damaged."""
        with suppress(OSError):
            self.finished.pop(number).unlink()

    def note_joining(self, partial: Path | None) -> None:
        """Write down where the output is being written, so that the next run can remove it."""
        if partial is not None:
            write_whole(self._joining, str(partial.name).encode(), overwrite=True)

    def forget_joining(self) -> None:
        """The output that was being written is gone."""
        with suppress(OSError):
            self._joining.unlink(missing_ok=True)

    def remove_joining(self, place: Path) -> None:
        """Remove what an earlier run of this job had begun to write in the output's folder."""
        try:
            name = self._joining.read_text()
        except (OSError, ValueError):
            return
        with system_errors(self.path):
            for partial in (*earlier_siblings(place, PARTIAL_MARK), *_unended(place)):
                if partial.name == name:
                    shutil.rmtree(partial) if partial.is_dir() and not partial.is_symlink() else partial.unlink()
            self._joining.unlink()

    def remove(self) -> None:
        """Remove what this package has written into the folder, and the folder at the end of the `with` block."""
        self._empty()
        self.forget_joining()

    def _find_finished(self, count: int, tell: Callable[[str], None]) -> None:
        for path in sorted(_entries(self.path)):
            number = number_of(path)
            if number is None or number >= count or number in self.finished:
                if number is not None or _is_unfinished(path):
                    _remove(path)
                continue
            if is_whole(path):
                self.finished[number] = path
            else:
                tell(f"{path}: the file of this unit is damaged; it is made anew.")
                _remove(path)

    def _empty(self) -> None:
        for path in _entries(self.path):
            if number_of(path) is not None or _is_unfinished(path) or path.name == NAME:
                _remove(path)
        self.finished.clear()


def _versions(manifest: Manifest) -> str:
    return " and ".join(f"{name} {version}" for name, version in manifest.versions.items())


def _entries(path: Path) -> list[Path]:
    with system_errors(path):
        return list(path.iterdir())


def _unended(place: Path) -> list[Path]:
    return [
        *earlier_siblings(place, PARTIAL_MARK, keeps_ending=False),
        *earlier_siblings(place / "pictures", PARTIAL_MARK, keeps_ending=False),
    ]


def _is_unfinished(path: Path) -> bool:
    return f".{PARTIAL_MARK}-" in path.name


def _is_ours(path: Path) -> bool:
    return number_of(path) is not None or _is_unfinished(path) or path.name == _JOINING


def _remove(path: Path) -> None:
    with system_errors(path):
        path.unlink()
