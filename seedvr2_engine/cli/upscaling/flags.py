"""The options of `seedvr2 upscale`, as its help shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..pages import PAGE_HELP, PAGE_MEDIA_HELP

_SIZE, _MODELS, _CHUNKS, _LOOK, _OUTPUT = "Size", "Models and machine", "Time", "Look", "Input and output"

Source = Annotated[
    str, typer.Argument(metavar="IN", help="A clip, a picture, a folder of clips, a folder or pattern of pictures.")
]
Target = Annotated[Path, typer.Argument(metavar="OUT", help="The clip, picture or folder to write.")]
Resolution = Annotated[
    int | None, typer.Option(help="Shortest edge in pixels; 1080 unless --scale is given.", rich_help_panel=_SIZE)
]
Scale = Annotated[float | None, typer.Option(help="Factor for both edges instead.", rich_help_panel=_SIZE)]
MaxResolution = Annotated[
    int | None, typer.Option(help="Longest edge that the result may have, in pixels.", rich_help_panel=_SIZE)
]
Dit = Annotated[str, typer.Option(help="A transformer file, a known name, or `nano`.", rich_help_panel=_MODELS)]
Vae = Annotated[str, typer.Option(help="A VAE file, a known name, or `nano`.", rich_help_panel=_MODELS)]
Text = Annotated[
    str, typer.Option(help="The text embedding; the transformer's own or the public one.", rich_help_panel=_MODELS)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=_MODELS)]
Devices = Annotated[
    str | None,
    typer.Option(help="Several devices: all, or a list such as cuda:0,cuda:1 or cpu,cpu.", rich_help_panel=_MODELS),
]
Shots = Annotated[
    str,
    typer.Option(
        metavar="auto|off|FILE",
        help="Shots, at which models, noise and colours start anew: found, none, or listed by a file.",
        rich_help_panel=_CHUNKS,
    ),
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="Begin a long clip anew, without what OUT.job holds.", rich_help_panel=_OUTPUT),
]
KeepJob = Annotated[
    bool,
    typer.Option(
        "--keep-job", help="Leave OUT.job, the units of a long clip, when it is done.", rich_help_panel=_OUTPUT
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="Of the VAE: fp8, mxfp8, int8, fp16 or bf16 on the engine; float32, float16 or bfloat16 without it; "
        "or auto.",
        rich_help_panel=_MODELS,
    ),
]
DitPrecision = Annotated[
    str,
    typer.Option(
        help="Of the transformer's matrix products: bf16, fp16, fp8, mxfp8, int8 or nvfp4; auto: the fastest "
        "that leaves the decoded picture within 50 dB of 16 bits.",
        rich_help_panel=_MODELS,
    ),
]
Offload = Annotated[
    str,
    typer.Option(
        help="blocks: keep the transformer in the host's memory. auto, none or blocks.", rich_help_panel=_MODELS
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(help="Tiles of this many pixels for the VAE; not exact.", rich_help_panel=_MODELS),
]
TileOverlap = Annotated[int, typer.Option(help="Pixels shared by neighbouring tiles.", rich_help_panel=_MODELS)]
ChunkFrames = Annotated[
    int | None,
    typer.Option(help="Frames that are upscaled together, 4n+1; as many as fit if not given.", rich_help_panel=_CHUNKS),
]
Overlap = Annotated[int | None, typer.Option(help="Frames that neighbouring chunks share.", rich_help_panel=_CHUNKS)]
VaeSpan = Annotated[
    str,
    typer.Option(help="What the VAE sees as one: clip, chunk (less memory), or auto.", rich_help_panel=_CHUNKS),
]
PrependFrames = Annotated[
    int, typer.Option(help="Mirrored frames before the first one, left out again.", rich_help_panel=_CHUNKS)
]
Color = Annotated[str, typer.Option(help="lab, wavelet, wavelet_adaptive, hsv, adain or none.", rich_help_panel=_LOOK)]
Seed = Annotated[int, typer.Option(help="Number that the noise follows from.", rich_help_panel=_LOOK)]
InputNoise = Annotated[float, typer.Option(help="Noise on the source, 0 to 1; calms artefacts.", rich_help_panel=_LOOK)]
LatentNoise = Annotated[
    float, typer.Option(help="Noise on its latents, 0 to 1; the model draws more freely.", rich_help_panel=_LOOK)
]
Noise = Annotated[str, typer.Option(help="position, or reference (anew for every chunk).", rich_help_panel=_LOOK)]
Hdr = Annotated[
    str,
    typer.Option(
        help="auto: PQ passes through the models on an SDR-like scale and back; off: as it is.",
        rich_help_panel=_LOOK,
    ),
]
Start = Annotated[int, typer.Option(help="Frames to skip at the start.", rich_help_panel=_OUTPUT)]
Frames = Annotated[int | None, typer.Option(help="Frames to take; all if not given.", rich_help_panel=_OUTPUT)]
Each = Annotated[
    bool,
    typer.Option("--each", help="Pictures of a folder one by one, not as a sequence.", rich_help_panel=_OUTPUT),
]
KeepDamaged = Annotated[
    bool,
    typer.Option(
        "--keep-damaged", help="Take what can be read of a damaged or truncated clip.", rich_help_panel=_OUTPUT
    ),
]
Codec = Annotated[
    str,
    typer.Option(
        help="auto, h264, h265, ffv1, prores, vp9, av1, or by an NVIDIA GPU h264_nvenc, hevc_nvenc, av1_nvenc.",
        rich_help_panel=_OUTPUT,
    ),
]
Quality = Annotated[
    float | None,
    typer.Option(help="Constant rate factor, or 1 to 100 for JPEG and WebP.", rich_help_panel=_OUTPUT),
]
Preset = Annotated[
    str, typer.Option(help="Speed of H.264, H.265 and AV1, ultrafast to placebo.", rich_help_panel=_OUTPUT)
]
BitDepth = Annotated[
    int | None, typer.Option(help="Bits per sample; the input's if not given.", rich_help_panel=_OUTPUT)
]
Chroma = Annotated[str, typer.Option(help="auto, 420, 422, 444 or rgb.", rich_help_panel=_OUTPUT)]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace existing outputs; a folder skips them otherwise.", rich_help_panel=_OUTPUT
    ),
]
Page = Annotated[Path | None, typer.Option(help=PAGE_HELP, rich_help_panel=_OUTPUT)]
PageMedia = Annotated[str, typer.Option(help=PAGE_MEDIA_HELP, rich_help_panel=_OUTPUT)]
Rate = Annotated[
    str | None,
    typer.Option(
        help="Frames per second of a picture sequence, as 25 or 24000/1001; 24 if not given.",
        rich_help_panel=_OUTPUT,
    ),
]
Deinterlace = Annotated[
    str,
    typer.Option(
        help="auto, off, bwdif (one frame for each stored one) or bwdif-fields (twice the rate).",
        rich_help_panel=_OUTPUT,
    ),
]
Detelecine = Annotated[
    str,
    typer.Option(help="Undo 3:2 pulldown, 29.97 to 23.976 frames: auto, off or on.", rich_help_panel=_OUTPUT),
]
Plan = Annotated[bool, typer.Option("--plan", help="Print what would run, its memory and time, and exit.")]
Gpu = Annotated[
    str | None,
    typer.Option(help="With --plan: a GPU that need not be here, such as rtx5070ti.", rich_help_panel=_MODELS),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
