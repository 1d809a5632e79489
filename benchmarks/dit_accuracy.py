"""What every number format of the transformer's products costs the decoded picture, by the references, on any machine.

    python -m benchmarks.dit_accuracy --clips 20 --json dit_accuracy.json

Clips are the trainers' procedural scenes that training does not draw. A transformer in FP32 and one in the format
restore them, both results are decoded, and the PSNR of the second against the first is printed: with all matrices in
the format, with those kept that the check keeps (from the engine's own clips), and with one kind of matrix at a time.
At the end the check's own measure, with operands rotated by a Hadamard matrix in groups and without.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from seedvr2_engine.engine.accuracy.dit_check import Sample, check_dit, matrix_errors, restored
from seedvr2_engine.engine.accuracy.sample_clips import sample_clips
from seedvr2_engine.engine.accuracy.sensitivity import mean_squared_error, picture
from seedvr2_engine.engine.dit.backend import reference_tokens
from seedvr2_engine.engine.dit.fused import FusedDiT
from seedvr2_engine.engine.dit.quantized import MATRICES, BlockFormat
from seedvr2_engine.engine.dit.weights import quantized
from seedvr2_engine.engine.optimize_dit import decode_latents, encode_clip
from seedvr2_engine.kernels.configs import WindowConfig
from seedvr2_engine.loading import load_vae
from seedvr2_engine.loading_dit import load_dit, load_text_embedding
from seedvr2_engine.models.dit.model import NaDiT
from seedvr2_engine.quality.metrics import decibel
from training.held_out import procedural_clips
from training.scenes import ClipShape

LIMITS_DB = {"int8": 50.0, "fp8": 50.0, "mxfp8": 50.0, "nvfp4": 42.0}
"""What the worst clip is to stay within, with the check."""
ROTATED = ("int8", "nvfp4")
ROTATION = 64
"""A power of four that divides the widths of all our models."""


def build(dit: NaDiT, formats: Sequence[BlockFormat]) -> NaDiT:
    """The transformer with these formats, on the references."""
    return FusedDiT(quantized(dit, formats), reference_tokens())


def with_attention(dit: NaDiT, attention: str, format: str | None) -> NaDiT:
    """The transformer with attention in 8 bits, and its products in a format or as they come; on the references."""
    source = dit if format is None else quantized(dit, [BlockFormat.all_in(format)] * dit.config.layers)
    # Attention in 8 bits goes with the kernel's tables, which CPUs have no other use for.
    cut = WindowConfig(64, 64, 4, 3, uses_tma=False)
    model = FusedDiT(source, reference_tokens(), windows=cut, attention_format=attention)
    model.geometry = partial(model.geometry, attention="torch-varlen")  # type: ignore[method-assign]
    return model


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dit", default="nano")
    parser.add_argument("--vae", default="nano")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--size", type=int, default=192, help="edge of the clips in pixels, a multiple of 48")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--formats", nargs="*", default=list(LIMITS_DB))
    parser.add_argument("--attention", action="store_true", help="measure attention in 8 bits, and nothing else")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    dit, vae = load_dit(options.dit, device=options.device, packed=False), load_vae(options.vae, device=options.device)
    text = load_text_embedding(options.dit)

    def sample(clip: torch.Tensor) -> Sample:
        return Sample(encode_clip(vae, clip.to(vae.device)), text)

    def decode(latents: torch.Tensor) -> torch.Tensor:
        return decode_latents(vae, latents)

    with torch.no_grad():
        shape = ClipShape(options.clips, 5, options.size, options.size)
        samples = [sample(clip[0]) for clip in procedural_clips(shape, torch.device("cpu")).values()]
        checked = [sample(clip) for clip in sample_clips(options.size)]
        expected = [picture(decode(restored(dit, one))) for one in samples]

    def psnr(formats: Sequence[BlockFormat], count: int | None = None) -> list[float]:
        model = build(dit, formats)
        pairs = zip(samples[:count], expected[:count], strict=True)
        return [decibel(mean_squared_error(picture(decode(restored(model, one))), e).item()) for one, e in pairs]

    found: dict[str, Any] = {}
    for attention in ("int8", "fp8") if options.attention else ():
        for format in (None, attention):
            model = with_attention(dit, attention, format)
            pairs = zip(samples, expected, strict=True)
            dbs = [decibel(mean_squared_error(picture(decode(restored(model, one))), e).item()) for one, e in pairs]
            print(
                f"attention with scores in {attention} and values in fp8, products in {format or 'full precision'}: "
                f"worst {min(dbs):.1f} dB, mean {statistics.fmean(dbs):.1f}",
                flush=True,
            )
    for format in () if options.attention else options.formats:
        whole = [BlockFormat.all_in(format)] * dit.config.layers
        facts: dict[str, Any] = {"all": psnr(whole)}
        check, _ = check_dit(dit, format, partial(build, dit), checked, decode, min_psnr_db=LIMITS_DB[format])
        facts["kept"] = [kept.name for kept in check.kept]
        facts["with the check"] = psnr(check.formats) if check.kept else facts["all"]
        facts["kinds"] = {
            matrix: min(psnr([BlockFormat(**{matrix: format})] * dit.config.layers, 2)) for matrix in MATRICES
        }
        rotations = (0, ROTATION) if format in ROTATED else (0,)
        facts["errors"] = {
            str(rotation): {
                matrix: statistics.fmean(e.error for e in errors if e.matrix == matrix) for matrix in MATRICES
            }
            for rotation in rotations
            for errors in [matrix_errors(dit, format, checked[0], rotation=rotation)]
        }
        found[format] = facts
        print(
            f"{format}: worst {min(facts['all']):.1f} dB, mean {statistics.fmean(facts['all']):.1f}; with the check "
            f"{min(facts['with the check']):.1f} (wanted {LIMITS_DB[format]:g}), kept: "
            f"{', '.join(facts['kept']) or 'nothing'}",
            flush=True,
        )
        print("  alone:", ", ".join(f"{name} {db:.1f} dB" for name, db in facts["kinds"].items()), flush=True)
        for rotation, errors in facts["errors"].items():
            shares = ", ".join(f"{name} {error:.2e}" for name, error in errors.items())
            print(f"  error in the block, groups of {rotation} rotated: {shares}", flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
