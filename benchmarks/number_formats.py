"""What each GGUF type costs the nano VAE's decode: `python -m benchmarks.number_formats`.

PSNR (peak 2) against the FP16 master, over two of scikit-image's photographs.
"""

import tempfile
from pathlib import Path

import torch
from skimage import data

from seedvr2_engine import load_vae
from seedvr2_engine.checkpoint.convert import WRITABLE_TYPES, convert_to_gguf

MASTER = Path("training/weights/nano_vae_f16.safetensors")


def main() -> None:
    master = load_vae(MASTER)
    pictures = [torch.from_numpy(picture[:256, 128:384].copy()) for picture in (data.astronaut(), data.coffee())]
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        latents = [master.encode(p.permute(2, 0, 1)[None, :, None].float() / 127.5 - 1) for p in pictures]
        expected = [master.decode(latent) for latent in latents]
        for name in WRITABLE_TYPES:
            path = Path(folder) / f"{name}.gguf"
            convert_to_gguf(MASTER, path, name)
            vae = load_vae(path)
            error = [(vae.decode(z) - y).square().mean() for z, y in zip(latents, expected, strict=True)]
            print(f"{name}: {10 * torch.log10(4 / torch.stack(error).mean()):.1f} dB", flush=True)


if __name__ == "__main__":
    main()
