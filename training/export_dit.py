"""Write the small transformer that a training run learned as a GGUF file: `python -m training.export_dit STATE`.

Of the last weights and their average, the better by the run's last measurement is taken, or the one named. The
layout is that of the public GGUF files: block matrices in Q8_0, the rest in 16 or 32 bits. The text embedding is in it.
"""

import argparse
import csv
from pathlib import Path

import gguf
import numpy as np
import torch
from torch import Tensor

from training.dit_measure import STORED_IN, Kind, better_kind
from training.dit_network import TEXT, initial_weights, is_quantised, trained
from training.network import Weights
from training.optimiser import FlatWeights
from training.state import Progress, load_state

GGUF = Path("seedvr2_engine/nano/nano_dit_q8_0.gguf")
ARCHITECTURE = "seedvr2"


def learned_weights(state: Path, kind: Kind | None = None) -> tuple[Weights, Progress, Kind]:
    """All weights of a training state, frozen ones included, FP32; its progress; and which kind they are."""
    weights = initial_weights(torch.Generator().manual_seed(0))
    flat = FlatWeights(trained(weights))
    progress = load_state(state, {})
    kind = kind or better_kind(progress.rows)
    stored = {STORED_IN[kind]: flat.vector}
    load_state(state, stored)
    return weights | flat.views(), progress, kind


def stored_type(name: str, weight: Tensor) -> gguf.GGMLQuantizationType:
    """Matrices inside the model as Q8_0, those at its ends as F16, vectors and the text as F32."""
    kinds = gguf.GGMLQuantizationType
    if is_quantised(name):
        return kinds.Q8_0
    return kinds.F16 if weight.ndim == 2 and name != TEXT else kinds.F32


def write_gguf(weights: Weights, path: Path) -> None:
    """Write the file; it appears under its name when it is complete."""
    partial = path.with_name(path.name + ".partial")
    writer = gguf.GGUFWriter(partial, ARCHITECTURE)
    writer.add_name("SeedVR2 nano transformer")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for name, weight in weights.items():
        kind = stored_type(name, weight)
        values = weight.detach().cpu().float().numpy()
        if kind == gguf.GGMLQuantizationType.Q8_0:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values.astype(np.float16 if kind == gguf.GGMLQuantizationType.F16 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


def write_curve(progress: Progress, path: Path) -> None:
    """Write the learning curve as CSV, a row a report."""
    names = list(dict.fromkeys(name for row in progress.rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(progress.rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path, help="output folder of training.train_dit")
    parser.add_argument("--gguf", type=Path, default=GGUF)
    parser.add_argument("--weights", choices=list(STORED_IN), help="default: the better ones")
    parser.add_argument("--curve", type=Path, help="CSV file for the learning curve")
    arguments = parser.parse_args()
    weights, progress, kind = learned_weights(arguments.state, arguments.weights)
    write_gguf(weights, arguments.gguf)
    print(f"{arguments.gguf}: {arguments.gguf.stat().st_size:,} bytes, {kind} weights after {progress.step} steps")
    if arguments.curve:
        write_curve(progress, arguments.curve)


if __name__ == "__main__":
    main()
