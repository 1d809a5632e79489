"""What the accuracy check chose, kept for the next run: measured once for the same weights on the same architecture."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ...checkpoint.locating.hub import user_cache
from ...errors import ModelFileError, OutputError
from ...models.vae.model import VideoVAE
from ...output.unfinished import write_whole
from ...quant import QuantRecipe
from ...version import __version__
from .check import AccuracyResult, E, KeptLayer

log = logging.getLogger(__name__)

_METHOD = "two clips made by NumPy, layers by error and cost, pairs counted in"
"""How layers are chosen, and by which clips; another way makes earlier choices void."""


def check_once(
    cache_file: Path | None,
    min_psnr_db: float,
    recipe: QuantRecipe,
    build: Callable[[QuantRecipe, E | None], E],
    check: Callable[[], tuple[AccuracyResult, E]],
) -> tuple[AccuracyResult, E]:
    """The choice that an earlier run kept in `cache_file` for this limit, built; or what `check` gives, then kept.

    cache_file: of `cache_path`; None keeps nothing. build: makes the engine for a recipe.
    """
    known = None if cache_file is None else _read(cache_file, min_psnr_db)
    if known is not None:
        return known, build(known.applied_to(recipe), None)
    result, engine = check()
    if cache_file is not None:
        _write(cache_file, result)
    return result, engine


def cache_path(vae: VideoVAE, recipe: QuantRecipe, architecture: str) -> Path | None:
    """Where the choice for these weights, this recipe, architecture and version is kept: in the user's cache folder.

    None where the user has none, as in many containers: then it is measured in every run.
    """
    try:
        cache = user_cache()
    except ModelFileError as error:
        log.info("The accuracy check's choice is not kept for the next run: %s", error)
        return None
    facts = (weights_digest(vae), repr(recipe), architecture, _METHOD, __version__, torch.__version__)
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    return cache.parent / "accuracy" / f"{key}.json"


def weights_digest(vae: VideoVAE) -> str:
    """SHA-256 over names, formats, shapes and bytes of all weights: the same for one model in whatever file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _read(path: Path, min_psnr_db: float) -> AccuracyResult | None:
    """The choice that an earlier run kept, if it was made for this limit."""
    try:
        facts = json.loads(path.read_text())
        kept = tuple(KeptLayer(str(layer["name"]), float(layer["psnr_db"])) for layer in facts["kept"])
        limit, before, now = (float(facts[key]) for key in ("min_psnr_db", "before_db", "psnr_db"))
        result = AccuracyResult(limit, before, now, kept, from_cache=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.info("The accuracy is measured again: %s cannot be read (%s).", path, error)
        return None
    return result if result.min_psnr_db == min_psnr_db else None


def _write(path: Path, result: AccuracyResult) -> None:
    facts = asdict(replace(result, from_cache=False))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{json.dumps(facts, indent=1)}\n".encode(), overwrite=True)
    except (OSError, OutputError) as error:
        log.info("The accuracy check's choice is not kept for the next run: %s (%s).", path, error)
