"""Which model files the options of a command mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidArgumentError, ModelFileError
from ..spans import span
from .terminal.console import err

if TYPE_CHECKING:
    from ..pipeline.setup import ModelFiles, Setup

PUBLIC_VAE = "ema_vae_fp16.safetensors"
PUBLIC_DITS = (
    "seedvr2_ema_3b_fp16.safetensors",
    "seedvr2_ema_3b_fp8_e4m3fn.safetensors",
    "seedvr2_ema_3b-Q8_0.gguf",
    "seedvr2_ema_3b-Q4_K_M.gguf",
    "seedvr2_ema_7b_fp16.safetensors",
    "seedvr2_ema_7b_fp8_e4m3fn_mixed_block35_fp16.safetensors",
    "seedvr2_ema_7b-Q4_K_M.gguf",
    "seedvr2_ema_7b_sharp_fp16.safetensors",
    "seedvr2_ema_7b_sharp_fp8_e4m3fn_mixed_block35_fp16.safetensors",
    "seedvr2_ema_7b_sharp-Q4_K_M.gguf",
)
"""The public transformers, in the order in which `auto` takes the first that is here."""
NANO = "nano"


@dataclass(frozen=True)
class ModelChoice:
    """What a command was told about models and the machine."""

    dit: str
    vae: str
    text: str
    device: str
    precision: str
    offload: str
    dit_precision: str = "auto"
    gpu: str | None = None
    """A GPU of the table, to plan for."""

    def setup(self) -> Setup:
        """What will run; raises ModelFileError, CheckpointError or InvalidArgumentError where nothing can."""
        with span("imports"):
            from ..device import resolve_device
            from ..pipeline.setup import plan_setup
            from ..plan.gpus import find_gpu

        with span("headers"):
            gpu = None if self.gpu is None else find_gpu(self.gpu)
            device = resolve_device(self.device)
            files = choose_models(self.dit, self.vae, self.text)
            return plan_setup(
                files,
                device,
                precision=self.precision,
                dit_precision=self.dit_precision,
                offload=self.offload,
                gpu=gpu,
            )


def model_file(choice: str) -> Path:
    """The model file at this path, of this public name, or in this package."""
    from ..checkpoint.locating.hub import find_model
    from ..loading import NANO_VAE
    from ..loading_dit import NANO_DIT

    inside = {NANO: NANO_VAE, NANO_VAE.name: NANO_VAE, NANO_DIT.name: NANO_DIT}
    return inside[choice] if choice in inside and not Path(choice).is_file() else find_model(choice)


def choose_vae(choice: str) -> str | Path:
    """The file that `--vae` means where no transformer is involved, and for `auto` a line that says which."""
    from ..checkpoint.locating.hub import find_model

    if choice == NANO:
        return choice
    if choice != "auto":
        return find_model(choice)
    path = _first_here((PUBLIC_VAE,))
    if path is None:
        err.print(
            f"VAE: nano, the small model of this package; `seedvr2 download {PUBLIC_VAE}` gets the public one.",
            markup=False,
        )
        return NANO
    err.print(f"VAE: {path}", markup=False)
    return path


def choose_models(dit: str, vae: str, text: str) -> ModelFiles:
    """The files that `--dit`, `--vae` and `--text` mean; raises ModelFileError that says what is missing, and more.

    The small transformer goes with the small VAE and the public ones with the public VAE: latents of one mean
    nothing to the other.
    """
    from ..loading import NANO_VAE
    from ..loading_dit import NANO_DIT, dit_file
    from ..pipeline.setup import ModelFiles

    if dit == "auto":
        here = _first_here(PUBLIC_DITS)
        if here is None:
            small = ", or use the small one of this package with `--dit nano`" if NANO_DIT.is_file() else ""
            raise ModelFileError(
                f"No transformer on this machine: expected {PUBLIC_DITS[0]} or another public one, found none; fetch "
                f"one with `seedvr2 download {PUBLIC_DITS[0]}`{small}."
            )
        dit_path = here
    else:
        dit_path = dit_file(NANO) if dit == NANO else model_file(dit)
    has_text = _carries_text(dit_path)
    is_nano = dit_path.resolve() == NANO_DIT.resolve()
    if vae == NANO or (vae == "auto" and is_nano):
        vae_path = NANO_VAE
    elif vae == "auto":
        found = _first_here((PUBLIC_VAE,))
        if found is None:
            raise ModelFileError(
                f"No VAE on this machine: expected {PUBLIC_VAE} beside {dit_path.name}, found none; fetch it with "
                f"`seedvr2 download {PUBLIC_VAE}`, or name another with --vae."
            )
        vae_path = found
    else:
        vae_path = model_file(vae)
    if is_nano and vae_path.resolve() != NANO_VAE.resolve():
        raise InvalidArgumentError(
            f"--vae: expected the small VAE beside the small transformer (`--dit nano`), got {vae}; leave it out, or "
            "name another transformer."
        )
    return ModelFiles(dit_path, vae_path, dit_path if text == "auto" and has_text else _text_file(dit_path, text))


def _carries_text(dit: Path) -> bool:
    """Whether a transformer's file has a text embedding; raises CheckpointError if it is none that can be used.

    This comes before anything that goes with it is missed: nobody should fetch a VAE for a file that is no transformer.
    """
    from ..checkpoint.detect_dit import POSITIVE_TEXT, detect_dit
    from ..checkpoint.opening import open_checkpoint

    with open_checkpoint(dit) as checkpoint:
        detect_dit(checkpoint)
        return any(name.endswith(POSITIVE_TEXT) for name in checkpoint.tensors)


def _text_file(dit: Path, choice: str) -> Path:
    from ..checkpoint.text_embedding import PUBLIC_TEXT

    if choice != "auto":
        return model_file(choice)
    found = _first_here((PUBLIC_TEXT,))
    if found is None:
        raise ModelFileError(
            f"{dit} carries no text embedding: expected {PUBLIC_TEXT} on this machine, found none; fetch it with "
            f"`seedvr2 download {PUBLIC_TEXT}`, or name another with --text."
        )
    return found


def _first_here(names: tuple[str, ...]) -> Path | None:
    from ..checkpoint.locating.hub import search_folders

    folders = search_folders()
    return next((folder / name for name in names for folder in folders if (folder / name).is_file()), None)
