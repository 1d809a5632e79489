"""The models that the nodes offer: names, folders, and the file that a name means."""

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

import folder_paths

from ..checkpoint.detect import is_dit, is_vae
from ..checkpoint.locating.hub import download, has_content_of
from ..checkpoint.locating.names import MODEL_SUFFIXES, model_paths, stays_inside
from ..checkpoint.locating.registry import MODEL_FILES, ModelFile
from ..checkpoint.opening import open_checkpoint
from ..errors import CheckpointError, ModelFileError
from ..loading import NANO_VAE
from ..loading_dit import NANO_DIT, dit_file

log = logging.getLogger(__name__)

Kind = Literal["vae", "dit", "text"]
OnBytes = Callable[[int, int], None]
"""Called with (bytes here, bytes in all) while a file is downloaded; raise from it to cancel."""

DEFAULT_VAE = "ema_vae_fp16.safetensors"
DEFAULT_DIT = "seedvr2_ema_3b_fp8_e4m3fn.safetensors"
DEFAULT_NATIVE_DIT = "seedvr2_3b_int8_convrot.safetensors"
"""The transformer of ComfyUI's own workflows."""
NANO = "nano"
"""The small models that come with the package."""

_SHARED_TYPES = {"vae": "vae", "dit": "diffusion_models"}


def own_folders() -> list[Path]:
    """Folders registered under SEEDVR2 in any letter case, and ComfyUI's `models/SEEDVR2`, which takes downloads."""
    registered = [name for name in folder_paths.folder_names_and_paths if name.lower() == "seedvr2"]
    folders = [Path(folder) for name in registered for folder in folder_paths.get_folder_paths(name)]
    models = Path(folder_paths.models_dir)
    own = [entry for entry in models.iterdir() if entry.name.lower() == "seedvr2"] if models.is_dir() else []
    return list(dict.fromkeys([*folders, *(own or [models / "SEEDVR2"])]))


def download_folder(known: ModelFile | None = None) -> Path:
    """Where downloads and conversions go: the first folder of the pack's own.

    Files of ComfyUI's own SeedVR2 go where its loaders look.
    """
    shared = _shared_folders(known.kind) if known is not None and known.is_native else []
    return (shared or own_folders())[0]


def model_names(kind: Kind) -> list[str]:
    """The public files, the small model of this package, and what lies in ComfyUI's folders.

    A file in the pack's own folders that is unreadable is offered too: choosing it says what is wrong with it.
    """
    names = [model.name for model in MODEL_FILES if model.kind == kind and Path(model.name).suffix in MODEL_SUFFIXES]
    if (NANO_VAE if kind == "vae" else NANO_DIT).is_file():
        names.append(NANO)
    found = set()
    for folder, accepted in [(folder, {kind, None}) for folder in own_folders()] + [
        (folder, {kind}) for folder in _shared_folders(kind)
    ]:
        for path in model_paths(folder):
            name = path.relative_to(folder).as_posix()
            if path.suffix in MODEL_SUFFIXES and stays_inside(name) and _kind_of(*file_identity(path)) in accepted:
                found.add(name)
    return [*names, *sorted(found.difference(names))]


def file_identity(path: Path) -> tuple[str, int, int]:
    """(path, bytes, time of the last change in ns): other numbers mean another file."""
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def identity_of(name: str, kind: Kind) -> tuple[str, int, int] | None:
    """The identity of the file that a name means; None while it is not on this machine."""
    path = _local(name, kind)
    return None if path is None else file_identity(path)


def locate(name: str, kind: Kind, on_bytes: OnBytes | None = None) -> Path:
    """The file of this name in ComfyUI's folders; a public one that is not there is downloaded and verified.

    A public name promises the public file: another size is refused, and so is other content where that is quickly
    read (VAE and text). Raises ModelFileError.
    """
    known = next((model for model in MODEL_FILES if model.name == name), None)
    path = _local(name, kind)
    if path is None and known is None:
        raise ModelFileError(_unknown(name))
    if path is None:
        assert known is not None
        folder = download_folder(known)
        log.info("[SeedVR2] Downloading %s (%.2f GB) to %s", name, known.size_bytes / 1e9, folder)
        return download(known, folder, on_progress=on_bytes)
    if known is not None:
        _check_content(path, known, reads=kind != "dit")
    return path


def check_model(name: object, kind: Kind) -> str | None:
    """Why a name cannot be meant, in one sentence; None where it can, or where it is not known yet."""
    if not isinstance(name, str) or name in model_names(kind) or _local(name, kind) is not None:
        return None
    return _unknown(name)


def _shared_folders(kind: Kind) -> list[Path]:
    folder_type = _SHARED_TYPES.get(kind)
    return [] if folder_type is None else [Path(folder) for folder in folder_paths.get_folder_paths(folder_type)]


def _local(name: str, kind: Kind) -> Path | None:
    """The file of this name, inside the folders and nowhere else: a workflow may come from anyone."""
    if name == NANO:
        return NANO_VAE if kind == "vae" else dit_file(NANO)
    if not isinstance(name, str) or not stays_inside(name):
        return None
    # Workflows from Windows have `\\` between folders.
    candidates = (folder / name.replace("\\", "/") for folder in [*own_folders(), *_shared_folders(kind)])
    try:
        return next((path for path in candidates if path.is_file()), None)
    except OSError:  # Too long together with the folder.
        return None


def _unknown(name: object) -> str:
    shown = repr(str(name)[:200])
    return f"model: {shown} is none of the offered files; choose one, or put the file into {download_folder()}."


def _check_content(path: Path, known: ModelFile, *, reads: bool) -> None:
    size_bytes = path.stat().st_size
    if size_bytes != known.size_bytes:
        found = f"{size_bytes:,} bytes"
    elif reads and not has_content_of(path, known):
        found = "other content of the same size"
    else:
        return
    raise ModelFileError(
        f"{path}: expected the public file of {known.size_bytes:,} bytes, found {found}; the download is damaged or "
        "this is another model, so delete the file to have it downloaded again, or give it another name."
    )


@lru_cache(maxsize=1024)
def _kind_of(path: str, size_bytes: int, changed_ns: int) -> Kind | Literal["other"] | None:
    """What a file holds, from its header; None if it cannot be read. The numbers make a changed file a new one."""
    try:
        with open_checkpoint(path) as checkpoint:
            return "dit" if is_dit(checkpoint) else "vae" if is_vae(checkpoint) else "other"
    except (CheckpointError, ModelFileError):
        return None
