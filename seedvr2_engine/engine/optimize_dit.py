"""From a transformer in 16 bits to the fastest number format that its weights bear on the GPU at hand."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from ..checkpoint.locating.hub import user_cache
from ..errors import InvalidArgumentError, ModelFileError, OutputError
from ..kernels.architectures import ARCHITECTURES
from ..models.dit.model import NaDiT
from ..models.vae.config import VAEConfig
from ..output.unfinished import write_whole
from ..quant.block_scaled import BLOCKS
from ..spans import span
from ..version import __version__
from .accuracy.dit_check import DEFAULT_MIN_PSNR_DB, DitCheck, Sample, check_dit
from .accuracy.sample_clips import sample_clips
from .dit.fused import FusedDiT, reason_for_plain
from .dit.quantized import DATA_TYPES, MATRICES, BlockFormat
from .dit.weights import quantized

log = logging.getLogger(__name__)

DitPrecision = Literal["auto", "bf16", "fp16", "fp8", "mxfp8", "int8", "nvfp4"]
DIT_PRECISIONS: tuple[DitPrecision, ...] = get_args(DitPrecision)
_SAMPLED_BYTES = 1 << 12


class Codec(Protocol):
    """The VAE as the check needs it: `VideoVAE`'s streams."""

    @property
    def device(self) -> torch.device:
        """Where results are."""

    def stream_encode(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """4n+1 pictures (1, 3, H, W) in [-1, 1] -> n+1 latents (1, 16, H/8, W/8)."""

    def stream_decode(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """The way back."""


@dataclass(frozen=True)
class DitReport:
    """In which numbers a transformer computes, and why."""

    precision: str
    """The format of its products: "bf16", "fp16", "fp32", "fp8", "mxfp8", "int8" or "nvfp4"."""
    reason: str
    """One clause."""
    check: DitCheck | None = None
    """What the accuracy check found, of a format in 8 bits."""
    from_cache: bool = False
    """Whether an earlier run measured it."""

    def describe(self) -> str:
        """One line for people."""
        return f"transformer in {self.precision}: {self.reason}"


def optimize_dit(
    dit: NaDiT,
    vae: Codec,
    text: Tensor,
    *,
    precision: DitPrecision = "auto",
    min_psnr_db: float = DEFAULT_MIN_PSNR_DB,
    offload: bool = False,
    cache: bool = True,
) -> tuple[NaDiT, DitReport]:
    """Compute a transformer's matrix products in 8 bits where its weights bear it: the model to use, and why so.

    dit: as loaded, in 16 bits on a GPU; it may not be used afterwards. vae: decodes what the formats give, so that
    pictures are compared. text: the embedding (tokens, text width).
    precision: "auto" takes the first of the GPU's formats that stays within `min_psnr_db` of 16 bits with most matrices
    in it, else 16 bits. "fp8", "mxfp8", "int8" or "nvfp4" is given, with the matrices kept that the limit asks for, or
    refused (InvalidArgumentError). "bf16" and "fp16" name what the model has been loaded in.
    offload: keep the blocks on the host. cache: keep the choice in the user's cache folder, and use an earlier run's.
    """
    if precision not in DIT_PRECISIONS:
        raise InvalidArgumentError(f"dit precision: expected one of {', '.join(DIT_PRECISIONS)}, got {precision!r}.")
    plain = dit.plain if isinstance(dit, FusedDiT) else dit
    own = {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(dit.dtype, "fp32")
    candidates, refusal = _candidates(plain)
    if precision in DATA_TYPES:
        if precision not in candidates:
            raise InvalidArgumentError(
                f"dit precision: {precision} was asked for, but {refusal or f'this GPU computes {_listed(candidates)}'}"
                "; use auto or a format in 16 bits."
            )
        candidates = (precision,)
    elif precision != "auto" or not candidates:
        return dit, DitReport(own, "asked for" if precision != "auto" else refusal)
    tried = []
    for format in candidates:
        with span("accuracy check"):
            report, model = _tried(plain, format, vae, text, min_psnr_db, offload=offload, cache=cache)
        check = report.check
        assert check is not None
        in_8_bits = sum(getattr(block, matrix) is not None for block in check.formats for matrix in MATRICES)
        if precision == format and check.holds and in_8_bits:
            return model, report
        if precision == "auto" and check.holds and 2 * in_8_bits >= len(MATRICES) * len(check.formats):
            return model, report
        del model
        tried.append(f"{format} leaves {check.before_db:.1f} dB")
        if precision == format:
            raise InvalidArgumentError(
                f"dit precision: {format} was asked for, but {_missed(check, in_8_bits)}, and the limit is "
                f"{min_psnr_db:g} dB; use auto, {own}, or a lower limit."
            )
    return dit, DitReport(own, f"{' and '.join(tried)} of a limit of {min_psnr_db:g} dB")


def _missed(check: DitCheck, in_8_bits: int) -> str:
    """Why a format cannot be given."""
    if in_8_bits:
        return f"even with matrices kept in 16 bits the decoded picture is {check.psnr_db:.1f} dB from that of 16 bits"
    return f"every matrix would have to stay in 16 bits: the decoded picture is {check.before_db:.1f} dB from theirs"


def _candidates(dit: NaDiT) -> tuple[tuple[str, ...], str]:
    """The 8-bit formats for this model on its GPU, the fastest first; or why there are none."""
    reason = reason_for_plain(dit)
    if reason:
        return (), reason
    major, minor = torch.cuda.get_device_capability(dit.device)
    architecture = ARCHITECTURES.get(f"sm_{major}{minor}")
    if architecture is None or not architecture.matrices:
        return (), f"sm_{major}{minor} has no products of the transformer in 8 or 4 bits"
    widths = (dit.config.width, dit.config.attention_width, dit.config.mlp_width)
    fitting = tuple(name for name in architecture.matrices if not any(w % BLOCKS.get(name, 16) for w in widths))
    return fitting, "" if fitting else "a width of the model is no multiple of 16"


def _tried(
    dit: NaDiT, format: str, vae: Codec, text: Tensor, min_psnr_db: float, *, offload: bool, cache: bool
) -> tuple[DitReport, NaDiT]:

    def build(formats: Sequence[BlockFormat]) -> NaDiT:
        return FusedDiT(quantized(dit, formats, offload=offload))

    file = _cache_file(dit, format) if cache else None
    known = None if file is None else _read(file, format, dit.config.layers, min_psnr_db)
    if known is not None:
        return DitReport(format, f"{known.describe()}, by an earlier run", known, True), build(known.formats)
    check, model = check_dit(
        FusedDiT(dit), format, build, _samples(vae, text), lambda z: decode_latents(vae, z), min_psnr_db=min_psnr_db
    )
    if file is not None:
        _write(file, check)
    return DitReport(format, check.describe(), check), model


def _samples(vae: Codec, text: Tensor) -> list[Sample]:
    with torch.no_grad():
        return [Sample(encode_clip(vae, clip.to(vae.device)), text) for clip in sample_clips()]


def encode_clip(vae: Codec, clip: Tensor) -> Tensor:
    """(3, T, H, W) -> latents (t, h, w, 16) as the transformer takes them."""
    latents = vae.stream_encode(frame[None] for frame in clip.unbind(1))
    return torch.stack([latent[0].movedim(0, -1).float() for latent in latents]) * VAEConfig.scaling_factor


def decode_latents(vae: Codec, latents: Tensor) -> Tensor:
    """Latents (t, h, w, 16) -> (1, 3, T, H, W)."""
    unscaled = (latents / VAEConfig.scaling_factor).movedim(-1, 1).to(vae.device)
    with torch.no_grad():
        return torch.stack([picture.float() for picture in vae.stream_decode(unscaled.split(1))], dim=2)


def _listed(formats: Sequence[str]) -> str:
    return " and ".join(formats) or "none"


def _cache_file(dit: NaDiT, format: str) -> Path | None:
    try:
        cache = user_cache()
    except ModelFileError as error:
        log.info("The transformer's check is not kept for the next run: %s", error)
        return None
    capability = torch.cuda.get_device_capability(dit.device)
    facts = (_digest(dit), format, str(dit.dtype), str(capability), __version__, torch.__version__)
    return cache.parent / "accuracy" / f"dit-{hashlib.sha256(repr(facts).encode()).hexdigest()}.json"


def _digest(dit: NaDiT) -> str:
    """SHA-256 over names, shapes and the first bytes of every weight: reading all of them would take seconds."""
    digest = hashlib.sha256()
    named = [(name, tensor) for name, tensor in dit.state_dict().items() if not tensor.is_meta]
    for layer, block in enumerate(dit.loaded_blocks()):
        named += [(f"blocks.{layer}.{name}", tensor[:1].clone()) for name, tensor in block.state_dict().items()]
    for name, tensor in named:
        head = tensor.detach().flatten()[: _SAMPLED_BYTES // tensor.element_size()].contiguous().cpu()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(head.view(torch.uint8).numpy())
    return digest.hexdigest()


def _read(file: Path, format: str, layers: int, min_psnr_db: float) -> DitCheck | None:
    try:
        facts = json.loads(file.read_text())
        if float(facts["min_psnr_db"]) != min_psnr_db or int(facts["layers"]) != layers:
            return None
        formats = [BlockFormat.all_in(format)] * layers
        for layer, matrix in facts["kept"]:
            if matrix not in MATRICES:
                raise ValueError(f"unknown matrix {matrix!r}")
            formats[int(layer)] = replace(formats[int(layer)], **{matrix: None})
        return DitCheck(format, min_psnr_db, float(facts["before_db"]), float(facts["psnr_db"]), tuple(formats))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        log.info("The transformer's accuracy is measured again: %s cannot be read (%s).", file, error)
        return None


def _write(file: Path, check: DitCheck) -> None:
    facts = {
        "min_psnr_db": check.min_psnr_db,
        "layers": len(check.formats),
        "before_db": check.before_db,
        "psnr_db": check.psnr_db,
        "kept": [[kept.layer, kept.matrix] for kept in check.kept],
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, f"{json.dumps(facts, indent=1)}\n".encode(), overwrite=True)
    except (OSError, OutputError) as error:
        log.info("The transformer's check is not kept for the next run: %s (%s).", file, error)
