"""What PQ pictures lose on their way through the models, as they are and on the SDR-like scale.

python -m benchmarks.hdr [FOLDER OF PICTURES]

First through models that do nothing, from file to file: the largest error in code values, tags, metadata. Then through
the small VAE with a transformer that does nothing, and through both small models, twofold, from sources that were
averaged down and got noise. Errors are root mean squares in 10-bit PQ codes, and mean colour differences after ITU-R
BT.2124, by the luminance of the reference. Pictures become HDR scenes: white at 203 nits, what is bright spread up to
1,800, and coloured highlights of up to 4,000.
"""

import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from seedvr2_engine import UpscaleOptions, Upscaler, load_dit, load_text_embedding, load_vae
from seedvr2_engine.color.hdr import PQ_TRANSFER, HdrChoice, nits_from_pq, pq_from_nits
from seedvr2_engine.loading_dit import NANO_DIT
from seedvr2_engine.video import (
    ColorRange,
    ColorTags,
    ContentLight,
    HdrMetadata,
    MasteringDisplay,
    Matrix,
    SinkOptions,
    open_sink,
    open_source,
)

BANDS_NITS = (0, 1, 20, 203, 600, 2000, 10001)
HIGHLIGHTS = (
    (1000, (1, 1, 1)),
    (4000, (1, 1, 1)),
    (1000, (1, 0.2, 0.05)),
    (4000, (1, 0.8, 0.5)),
    (600, (0.05, 0.1, 1)),
)
HEIGHT, WIDTH = 192, 208
METADATA = HdrMetadata(
    MasteringDisplay(((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), (0.3127, 0.329), 0.005, 4000.0),
    ContentLight(4000, 400),
)
# ITU-R BT.2087; ITU-R BT.2100, table 7; ITU-R BT.2124.
BT2020_FROM_BT709 = torch.tensor([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
LMS = torch.tensor([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) / 4096
ICTCP = torch.tensor([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]]) / 4096


class VaeOfNothing:
    """Decodes the pictures that it was given to encode."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        self._waiting: deque[Tensor] = deque()

    def stream_encode(self, frames, *, slice_frames, tile) -> Iterator[Tensor]:
        for index, frame in enumerate(frames):
            self._waiting.append(frame)
            if index % 4 == 0:
                yield torch.zeros(1, 16, frame.shape[2] // 8, frame.shape[3] // 8)

    def stream_decode(self, latents, *, slice_frames, tile) -> Iterator[Tensor]:
        for index, _ in enumerate(latents):
            for _ in range(4 if index else 1):
                yield self._waiting.popleft()


class TransformerOfNothing:
    """Its velocity leads to the latents that it was given."""

    device, dtype = torch.device("cpu"), torch.float32

    def conditioning(self, text, timestep) -> None:
        return None

    def geometry(self, shape, text_tokens) -> None:
        return None

    def velocity(self, video: Tensor, geometry, conditioning) -> Tensor:
        noise, condition, _ = video.split([16, 16, 1], dim=-1)
        return noise - condition


def synthetic() -> Tensor:
    """(3, H, W) nits: a ramp, a dark one, saturated ones up to 1,000 nits, and discs of 203, 1,000 and 4,000 nits."""
    nits = torch.full((3, HEIGHT, WIDTH), 20.0)
    ramp = torch.linspace(0, 1, WIDTH)
    nits[:, :20] = nits_from_pq(ramp)
    nits[:, 20:36] = nits_from_pq(ramp / 4)
    for row, color in enumerate(((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1))):
        nits[:, 36 + 10 * row : 46 + 10 * row] = torch.tensor(color)[:, None, None] * nits_from_pq(ramp * 0.75)
    for x, peak in ((40, 203), (104, 1000), (168, 4000)):
        nits = _with_disc(nits, (144, x), 22.0, torch.full((3,), float(peak)))
    return nits


def photographed(path: Path, seed: int) -> Tensor:
    """(3, H, W) nits of a picture that was made an HDR scene."""
    with open_source(path) as source:
        rgb = next(iter(source)).rgb
    rgb = F.interpolate(rgb[None], scale_factor=0.8, mode="area")[0]
    height, width = (min(most, there) // 2 * 2 for most, there in zip((HEIGHT, WIDTH), rgb.shape[1:], strict=True))
    rgb = rgb[:, :height, :width]
    light = torch.einsum("ij,jhw->ihw", BT2020_FROM_BT709, rgb**2.4)
    nits = light * 203 * (1 + 16 * (light.amax(0) - 0.5).clamp(min=0))
    generator = torch.Generator().manual_seed(seed)
    for peak, color in HIGHLIGHTS:
        y, x, size = torch.rand(3, generator=generator).tolist()
        nits = _with_disc(nits, (y * nits.shape[1], x * nits.shape[2]), 4 + 8 * size, torch.tensor(color) * peak)
    return nits


def _with_disc(nits: Tensor, centre: tuple[float, float], radius: float, color: Tensor) -> Tensor:
    y, x = torch.meshgrid(torch.arange(nits.shape[1]), torch.arange(nits.shape[2]), indexing="ij")
    share = torch.sigmoid(radius - ((y - centre[0]) ** 2 + (x - centre[1]) ** 2).sqrt())
    return nits * (1 - share) + color[:, None, None] * share


def differences(signal: Tensor, reference: Tensor) -> list[float]:
    """For each band and for all: root mean square in 10-bit codes, and mean colour difference; NaN where empty."""
    itp = [torch.einsum("ij,jhw->ihw", ICTCP, pq_from_nits(_lms(each))) for each in (signal, reference)]
    color = 720 * ((itp[0] - itp[1]) * torch.tensor([1, 0.5, 1])[:, None, None]).square().sum(0).sqrt()
    codes = ((signal - reference) * 1023).square().mean(0)
    nits = nits_from_pq(reference).amax(0)
    masks = [(nits >= low) & (nits < high) for low, high in pairwise(BANDS_NITS)]
    return [
        value for mask in (*masks, nits >= 0) for value in (codes[mask].mean().sqrt().item(), color[mask].mean().item())
    ]


def _lms(signal: Tensor) -> Tensor:
    return torch.einsum("ij,jhw->ihw", LMS, nits_from_pq(signal))


def from_file_to_file(folder: Path) -> None:
    """The synthetic scene through models that do nothing, in RGB of 10 bits and in 16-bit PNG."""
    scene = (pq_from_nits(synthetic()) * 1023).round() / 1023
    tags = ColorTags(ColorRange.FULL, Matrix.RGB, 9, PQ_TRANSFER)
    lossless = SinkOptions("ffv1", chroma="rgb", bit_depth=10, overwrite=True)
    with open_sink(folder / "plain.mkv", width=WIDTH, height=HEIGHT, options=lossless) as sink:
        sink.write(scene)
    info = replace(open_source(folder / "plain.mkv").info, color=tags, conversion=tags, hdr=METADATA)
    with open_sink(folder / "source.mkv", width=WIDTH, height=HEIGHT, source=info, options=lossless) as sink:
        for _ in range(9):
            sink.write(scene)
    options = UpscaleOptions(scale=1, color="none", chunk_frames=5, overlap=1, vae_span="clip")
    upscaler = Upscaler(TransformerOfNothing(), VaeOfNothing(), options, text=torch.zeros(1, 1))
    for name, codec in (("result.mkv", lossless), ("result_%02d.png", SinkOptions(overwrite=True))):
        with open_source(folder / "source.mkv") as clip:
            info = clip.info
            with open_sink(folder / name, width=WIDTH, height=HEIGHT, source=info, options=codec) as sink:
                for frame in upscaler.upscale((frame.rgb for frame in clip), transfer=info.color.transfer):
                    sink.write(frame)
        with open_source(folder / name) as result, open_source(folder / "source.mkv") as clip:
            error = max((a.rgb - b.rgb).abs().max().item() for a, b in zip(result, clip, strict=True))
            same = (result.info.color, result.info.hdr) == (info.color, info.hdr)
            print(f"{name}: largest error {error * 1023:.3f} of 1023; tags and metadata {'kept' if same else 'LOST'}")


def table(name: str, upscaler: Upscaler, scenes: dict[str, list[Tensor]], choice: HdrChoice) -> None:
    """Print a line for each kind of scene."""
    scale = upscaler.options.scale
    upscaler.options = replace(upscaler.options, hdr=choice)
    for kind, members in scenes.items():
        rows = []
        for nits in members:
            reference = pq_from_nits(nits)
            source = reference
            if scale == 2:
                source = pq_from_nits(F.avg_pool2d(nits, 2))
                source += 0.006 * torch.randn(source.shape, generator=torch.Generator().manual_seed(0))
            source = (source.clamp(0, 1) * 1023).round() / 1023
            out = next(iter(upscaler.upscale([source], transfer=PQ_TRANSFER)))
            rows.append(differences(out, reference))
        means = torch.tensor(rows).nanmean(0).tolist()
        cells = "  ".join(f"{code:5.1f} {color:5.1f}" for code, color in zip(means[::2], means[1::2], strict=True))
        print(f"{name:18} {choice:4} {kind:9}  {cells}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        from_file_to_file(Path(folder))
    pictures = sorted(path for path in Path(sys.argv[1]).iterdir() if path.suffix == ".jpg") if sys.argv[1:] else []
    scenes = {"synthetic": [synthetic()]}
    if pictures:
        scenes["pictures"] = [photographed(path, seed) for seed, path in enumerate(pictures)]
    vae = load_vae("nano")
    small, text = load_dit("nano"), load_text_embedding(NANO_DIT)
    bands = [f"{low}-{high if high < 10000 else ''}" for low, high in pairwise(BANDS_NITS)]
    print(f"{'nits':34}" + "".join(f"{band:13}" for band in (*bands, "all")))
    for name, dit, scale in (("VAE alone", TransformerOfNothing(), 1), ("both, twofold", small, 2)):
        for choice in ("off", "auto"):
            upscaler = Upscaler(dit, vae, UpscaleOptions(scale=scale, chunk_frames=1, vae_span="clip"), text=text)
            table(name, upscaler, scenes, choice)


if __name__ == "__main__":
    main()
