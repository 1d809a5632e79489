"""What a folder holds: clips, pictures, and the files that systems leave behind."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from ...errors import VideoError
from .container.choice import main_video
from .container.demuxers import clip_endings, is_picture
from .container.one_file import opened

_SYSTEM_NAMES = frozenset(
    ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "@eadir", "#recycle", "$recycle.bin")
) | {"system volume information", "lost+found", "__macosx"}


@dataclass(frozen=True)
class FolderClips:
    """The clips of a folder, and what else is in it."""

    clips: list[Path]
    """In natural order."""
    others: list[Path]
    """Visible files and folders that are no clips."""

    def skipped(self, folder: Path) -> str | None:
        """A sentence about what is not a clip; None if there is nothing."""
        if not self.clips or not self.others:
            return None
        names = ", ".join(entry.name for entry in self.others[:5])
        more = f" and {len(self.others) - 5} more" if len(self.others) > 5 else ""
        return f"{folder}: {names}{more} {'is' if len(self.others) == 1 else 'are'} no clip, and skipped."


def visible(folder: Path) -> list[Path]:
    """The entries of a folder in natural order, without hidden ones and those that systems leave behind.

    Raises VideoError if the folder cannot be read.
    """
    try:
        return sorted((entry for entry in folder.iterdir() if not is_hidden(entry)), key=natural)
    except OSError as error:
        raise VideoError(f"{folder}: this folder cannot be read ({error.strerror}); check its permissions.") from error


def is_hidden(path: Path) -> bool:
    """Whether a file or folder is one that people do not see: dot files, thumbnails, recycle bins."""
    if path.name.startswith((".", "~$")) or path.name.lower() in _SYSTEM_NAMES:
        return True
    try:
        attributes = getattr(path.lstat(), "st_file_attributes", 0)
    except OSError:
        return False
    return bool(attributes & getattr(stat, "FILE_ATTRIBUTE_HIDDEN", 0))


def clips_in(folder: Path) -> FolderClips:
    """Look through a folder, not into its folders: a file is a clip by its ending, or else by what FFmpeg finds in it.

    Raises VideoError if the folder cannot be read.
    """
    clips: list[Path] = []
    others: list[Path] = []
    for entry in visible(folder):
        (clips if _is_clip(entry) else others).append(entry)
    return FolderClips(clips, others)


def natural(path: Path) -> list[tuple[int, str]]:
    """Sort key under which frame2 comes before frame10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", path.name)]


def _is_clip(path: Path) -> bool:
    try:
        if is_picture(path) or not path.is_file():
            return False
        if path.suffix.lower() in clip_endings():
            return True
        with opened(path) as container:
            main_video(container, path)
            return not container.format.name.endswith("_pipe")
    except (OSError, VideoError):
        return False
