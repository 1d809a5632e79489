"""Find a model file on this machine, or download it, verify it, and move it into place atomically."""

import contextlib
import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import ModelFileError
from .extra_paths import extra_folders
from .names import MODEL_SUFFIXES, is_plain_name, model_paths
from .places import expanded, home
from .registry import MODEL_FILES, ModelFile
from .transfer import Progress, fetch, hub_address, open_partial

log = logging.getLogger(__name__)

DISK_MARGIN_BYTES = 256 << 20
"""Free disk that a download leaves untouched."""


@dataclass(frozen=True)
class LocalModel:
    """A model file that lies in one of the searched folders."""

    name: str
    """What `find_model` accepts: the path inside the folder, with `/`."""
    path: Path
    """Where it lies."""
    size_bytes: int
    """Its size."""
    known: ModelFile | None
    """The public file of the same name; None for any other file."""
    verified: bool | None
    """Whether its bytes are those of `known`; None when that was not checked or nothing is known."""


def search_folders() -> list[Path]:
    """Folders that may hold model files, in order, whether or not they exist.

    ComfyUI's (`is_default` entries of `extra_model_paths.yaml`, `models/SEEDVR2`, `models/vae`, the other
    entries), then those of SEEDVR2_MODELS (separated as PATH is), then the user cache. Raises `ModelFileError`
    for a COMFYUI_PATH that is no folder and for an `extra_model_paths.yaml` that cannot be understood.
    """
    folders: list[Path] = []
    root = _comfyui_root()
    if root is not None:
        models = root / "models"
        first, last = extra_folders(root / "extra_model_paths.yaml")
        entries = sorted(models.iterdir()) if models.is_dir() else []
        own = [entry for entry in entries if entry.name.lower() == "seedvr2"] or [models / "SEEDVR2"]
        folders += [*first, *own, models / "vae", *last]
    listed = os.environ.get("SEEDVR2_MODELS", "").split(os.pathsep)
    folders += [expanded(entry, "SEEDVR2_MODELS") for entry in listed if entry]
    if (cache := _user_cache()) is not None:
        folders.append(cache)
    return list(dict.fromkeys(folders))


def user_cache() -> Path:
    """`seedvr2/models` in LOCALAPPDATA on Windows, elsewhere in XDG_CACHE_HOME or `~/.cache`.

    Raises `ModelFileError` where none of them is set and the user has no home, as in many containers.
    """
    cache = _user_cache()
    if cache is None:
        variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
        raise ModelFileError(
            f"user cache: expected a home folder or {variable}, found neither; name a folder with --folder, set "
            f"{variable}, or list your own folders in SEEDVR2_MODELS."
        )
    return cache


def _user_cache() -> Path | None:
    if sys.platform == "win32":
        base, inside = os.environ.get("LOCALAPPDATA", ""), Path("AppData", "Local")
    else:
        base, inside = os.environ.get("XDG_CACHE_HOME", ""), Path(".cache")
    # The XDG specification has relative values ignored.
    if Path(base).is_absolute():
        return Path(base, "seedvr2", "models")
    own = home()
    return None if own is None else own / inside / "seedvr2" / "models"


def find_model(name_or_path: str | Path, *, folders: Sequence[Path] | None = None) -> Path:
    """The model file at this path, or of this name in one of `folders` (None: `search_folders()`).

    A name may hold subfolders, as in ComfyUI's lists. Raises `ModelFileError` saying where it was looked for.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.is_dir():
        raise ModelFileError(f"{path}: expected a model file, got a folder; name the file inside it.")
    if path.is_absolute() or ".." in path.parts:
        raise ModelFileError(f"{path}: no such model file; check the path.")
    searched = search_folders() if folders is None else list(folders)
    for folder in searched:
        if (folder / path).is_file():
            return folder / path
    places = ", ".join(str(folder) for folder in searched) or "any folder, since no user cache is known"
    known = any(model.name == str(path) for model in MODEL_FILES)
    remedy = (
        f"fetch it with `seedvr2 download {path}`" if known else "`seedvr2 models` lists what is known and what is here"
    )
    raise ModelFileError(f"{path}: no such model file, neither as a path nor in {places}; {remedy}.")


def local_models(folders: Sequence[Path] | None = None, *, verify: bool = False) -> list[LocalModel]:
    """Model files in `folders` (None: `search_folders()`) and below, in search order, then by name.

    `verify` reads every known file to its end to compare its SHA-256; without it only a wrong size shows.
    """
    by_name = {model.name: model for model in MODEL_FILES}
    found: list[LocalModel] = []
    for folder in search_folders() if folders is None else folders:
        for path in model_paths(folder):
            known = by_name.get(path.name)
            if known is None and path.suffix not in MODEL_SUFFIXES:
                continue
            size_bytes = path.stat().st_size
            verified: bool | None = None
            if known is not None and (verify or size_bytes != known.size_bytes):
                verified = has_content_of(path, known)
            found.append(LocalModel(path.relative_to(folder).as_posix(), path, size_bytes, known, verified))
    return found


def download(
    model: ModelFile,
    folder: Path | None = None,
    *,
    on_progress: Progress | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """Put the verified file at `folder / model.name` (None: the user cache) and return that path.

    A right file that is already there is read once and kept. No record of earlier checks is stored: it could
    be wrong about the bytes, and SHA-256 is about as fast as a disk. An interrupted download leaves
    `<name>.<hash>.partial`, which the next call continues. Bytes that fail their verification, and a wrong
    file that stood under the name, are renamed to `<name>.rejected[-N]`; no file is deleted or overwritten.

    `token` and `endpoint` default to those of huggingface_hub (HF_TOKEN or the saved login; HF_ENDPOINT). Its
    own cache is looked at first and, with `local_files_only` or HF_HUB_OFFLINE, alone. Raises `ModelFileError`.
    """
    if not is_plain_name(model.name):
        raise ModelFileError(f"{model.name!r}: expected a plain file name; correct the registry entry.")
    folder = user_cache() if folder is None else folder
    target = folder / model.name
    if has_content_of(target, model):
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_process(target):
            if not has_content_of(target, model):
                partial = folder / f"{model.name}.{model.sha256[:8]}.partial"
                _check_own(partial)
                _check_space(model, partial)
                cached = _from_hub_cache(model)
                if cached is not None:
                    with cached.open("rb") as source, open_partial(partial) as file:
                        file.truncate()
                        shutil.copyfileobj(source, file, 1 << 20)
                else:
                    _check_online(model, local_files_only)
                    fetch(model, hub_address(model, endpoint, token), partial, on_progress)
                _move_into_place(model, partial, target)
    except OSError as error:
        raise ModelFileError(
            f"{target}: cannot be written ({error.strerror or error}); what was fetched is kept, so make room "
            "or name another folder and run the same command again."
        ) from error
    return target


def _comfyui_root() -> Path | None:
    """COMFYUI_PATH, or the folder whose `custom_nodes` holds this package (also through a symbolic link)."""
    named = os.environ.get("COMFYUI_PATH")
    if named:
        root = expanded(named, "COMFYUI_PATH")
        if not root.is_dir():
            raise ModelFileError(
                f"COMFYUI_PATH: expected ComfyUI's folder, got {root}, which is no folder; correct it."
            )
        return root
    for file in (Path(__file__).absolute(), Path(__file__).resolve()):
        for parent in file.parents:
            if parent.name == "custom_nodes":
                return parent.parent
    return None


def has_content_of(path: Path, model: ModelFile) -> bool:
    """Whether `path` is a file of the size and SHA-256 of `model`; `ModelFileError` if it cannot be read."""
    if not path.is_file() or path.stat().st_size != model.size_bytes:
        return False
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from error
    return digest.hexdigest() == model.sha256


@contextlib.contextmanager
def _only_process(target: Path) -> Iterator[None]:
    """Hold `target`'s lock file: two processes that continue one partial file would spoil it."""
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(f"{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ModelFileError(f"{target}: another process is downloading it; wait until that one ends.") from error
    try:
        yield
    finally:
        lock.release()
        # Windows refuses while another process has the file open; that one removes it later.
        with contextlib.suppress(PermissionError):
            Path(lock.lock_file).unlink(missing_ok=True)


def _check_own(partial: Path) -> None:
    """Refuse to continue what is no file of ours: a link would have the bytes written wherever it points to."""
    if os.path.lexists(partial) and (partial.is_symlink() or not partial.is_file()):
        what = "a link" if partial.is_symlink() else "no ordinary file"
        raise ModelFileError(f"{partial}: expected the part of an earlier download, found {what}; remove it.")


def _check_space(model: ModelFile, partial: Path) -> None:
    """Refuse before the first byte when the rest of the file and a margin do not fit."""
    there = partial.stat().st_size if partial.is_file() else 0
    needed_bytes = max(model.size_bytes - there, 0) + DISK_MARGIN_BYTES
    free_bytes = shutil.disk_usage(partial.parent).free
    if free_bytes < needed_bytes:
        raise ModelFileError(
            f"{model.name}: needs {needed_bytes / 1e6:,.0f} MB of free disk (with a margin of "
            f"{DISK_MARGIN_BYTES / 1e6:,.0f} MB), but {partial.parent} has {free_bytes / 1e6:,.0f} MB; "
            "make room or name another folder."
        )


def _from_hub_cache(model: ModelFile) -> Path | None:
    """The file in huggingface_hub's own cache, if it is there and right."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model.repository, model.path, revision=model.revision)
    if not isinstance(cached, str) or not has_content_of(Path(cached), model):
        return None
    return Path(cached)


def _check_online(model: ModelFile, local_files_only: bool) -> None:
    """Refuse a download that the caller or the environment forbids."""
    from huggingface_hub import constants

    if local_files_only or constants.HF_HUB_OFFLINE:
        switch = "local_files_only" if local_files_only else "HF_HUB_OFFLINE"
        raise ModelFileError(
            f"{model.name}: not on this machine, and {switch} forbids the download; allow it, or bring "
            f"{model.path} of {model.repository} here by other means."
        )


def _move_into_place(model: ModelFile, partial: Path, target: Path) -> None:
    """Rename the verified `partial` to `target` (same folder, so atomic), setting wrong bytes aside."""
    if not has_content_of(partial, model):
        aside = _set_aside(partial, target)
        raise ModelFileError(
            f"{model.name}: expected {model.size_bytes:,} bytes with SHA-256 {model.sha256}, but what "
            f"arrived differs; it was set aside as {aside}, so download it again."
        )
    if target.exists():
        aside = _set_aside(target, target)
        log.warning("%s: another file stood under this name; it was set aside as %s", target, aside)
    partial.replace(target)


def _set_aside(path: Path, target: Path) -> Path:
    """Rename `path` to the first free `<target>.rejected[-N]` and return that."""
    aside = target.with_name(f"{target.name}.rejected")
    count = 1
    while os.path.lexists(aside):
        count += 1
        aside = target.with_name(f"{target.name}.rejected-{count}")
    path.rename(aside)
    return aside
