"""Write what a training run learned as the files that ship: `python -m training.export_vae STATE`.

The averaged weights are folded to the model's own epsilon, each latent channel is scaled to unit variance (after the
checkpoint's scaling factor), and the result is saved in FP16 and converted to Q8_0. Both steps are exact rewrites.
`--decoder-only` is for a state of `training.tune_decoder`: encoder and latents stay those of the file that is replaced.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from seedvr2_engine.checkpoint.convert import convert_to_gguf
from training.network import NANO, Network, Weights, decoder_part, fold_soft_norms, initial_weights
from training.optimiser import FlatWeights
from training.scenes import ClipShape, SceneBank
from training.state import load_state

SAFETENSORS = Path("training/weights/nano_vae_f16.safetensors")
GGUF = Path("seedvr2_engine/nano/nano_vae_q8_0.gguf")
MEASURED_ON = ((24, ClipShape(1, 1, 192, 192)), (8, ClipShape(1, 5, 128, 128)))
"""How many of which procedural clips the latents' spread is measured on."""
CANVASES, CANVAS_PX = 8, 384
"""Of the bank that those clips are filmed from."""


def averaged_weights(state: Path) -> Weights:
    """The averaged weights of a training state, still with soft norms."""
    flat = FlatWeights(initial_weights(torch.Generator().manual_seed(0)))
    load_state(state, {"average": flat.vector})
    return flat.views()


@torch.no_grad()
def latent_spread(weights: Weights, seed: int = 5) -> Tensor:
    """Standard deviation of each latent channel, posterior noise included, over procedural clips; (16,)."""
    network = Network(soft=False)
    bank = SceneBank(torch.Generator().manual_seed(seed), canvases=CANVASES, size_px=CANVAS_PX)
    moments = [network.encode(weights, bank.film(shape)) for count, shape in MEASURED_ON for _ in range(count)]
    means = torch.cat([mean.flatten(0, -2) for mean, _ in moments])
    noise = torch.cat([log_variance.exp().flatten(0, -2) for _, log_variance in moments])
    return torch.sqrt(means.var(0) + noise.mean(0))


def scale_latents(weights: Weights, factors: Tensor) -> Weights:
    """Weights whose latents are `factors` (16,) times as large and whose reconstructions are the same."""
    scaled = dict(weights)
    rows = torch.cat([factors, torch.ones_like(factors)])
    scaled["encoder.conv_out.weight"] = weights["encoder.conv_out.weight"] * rows.view(-1, 1, 1, 1, 1)
    log_variance_shift = torch.cat([torch.zeros_like(factors), 2 * torch.log(factors)])
    scaled["encoder.conv_out.bias"] = weights["encoder.conv_out.bias"] * rows + log_variance_shift
    scaled["decoder.conv_in.weight"] = weights["decoder.conv_in.weight"] / factors.view(1, -1, 1, 1, 1)
    return scaled


def export(state: Path, safetensors: Path, gguf: Path) -> None:
    """Write both files; existing ones are replaced. Raises FileNotFoundError without a state."""
    weights = fold_soft_norms(averaged_weights(state))
    spread = latent_spread(weights) * NANO.scaling_factor
    print("latent standard deviation before scaling:", " ".join(f"{value:.3f}" for value in spread.tolist()))
    write(scale_latents(weights, 1 / spread), safetensors, gguf)


def export_decoder(state: Path, shipped: Path, safetensors: Path, gguf: Path) -> None:
    """Write both files with the decoder of a state of `tune_decoder` and the rest of an FP16 file."""
    weights: Weights = load_file(shipped)
    flat = FlatWeights(decoder_part(weights))
    load_state(state, {"average": flat.vector})
    write(weights | fold_soft_norms(flat.views()), safetensors, gguf)


def write(weights: Weights, safetensors: Path, gguf: Path) -> None:
    """Write folded weights in FP16 and, converted, in Q8_0."""
    safetensors.parent.mkdir(parents=True, exist_ok=True)
    gguf.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in weights.items()}, safetensors)
    report = convert_to_gguf(safetensors, gguf, "Q8_0", overwrite=True)
    print(f"{report.target}: {report.target_bytes:,} bytes, relative rms {report.relative_rms:.2e}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path, help="output folder of training.train_vae")
    parser.add_argument("--safetensors", type=Path, default=SAFETENSORS)
    parser.add_argument("--gguf", type=Path, default=GGUF)
    parser.add_argument("--decoder-only", action="store_true", help="the state is of training.tune_decoder")
    arguments = parser.parse_args()
    if arguments.decoder_only:
        export_decoder(arguments.state, SAFETENSORS, arguments.safetensors, arguments.gguf)
    else:
        export(arguments.state, arguments.safetensors, arguments.gguf)


if __name__ == "__main__":
    main()
