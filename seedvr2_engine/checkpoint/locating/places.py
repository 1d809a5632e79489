"""Folders that a user's settings name, also where there is no home: a container's user may have no name at all."""

from pathlib import Path

from ...errors import ModelFileError


def home() -> Path | None:
    """The user's home folder; None where the system knows none."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def expanded(folder: str, setting: str) -> Path:
    """A folder with `~` and `~user` put in; raises ModelFileError, which names the setting, for no such home."""
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise ModelFileError(
            f"{setting}: expected a folder, got {folder!r}, whose home folder is not known here; write the whole path."
        ) from error
