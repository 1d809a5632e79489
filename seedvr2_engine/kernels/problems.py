"""The distinct convolutions of a SeedVR2 VAE, as problems for the kernels."""

from collections.abc import Iterator
from dataclasses import replace

from .dispatch import ConvProblem, Format, OutputFormat
from .layout import WIDTH


def decoder_problems(
    widths: tuple[int, ...], latent_px: tuple[int, int], format: Format, output: OutputFormat = "fp16"
) -> Iterator[tuple[str, ConvProblem]]:
    """(layer name, problem of one frame) for each distinct convolution of the decoder, in order.

    widths: channels by level, from full resolution to the latent grid. A layer that runs with its temporal taps folded
    (the first frame of a clip, single pictures) has the same name with ` (one frame)` and a kernel of depth 1.
    """
    top, upper, lower, latent = widths
    high: Format = "bf16" if output == "bf16" else "fp16"
    h, w = latent_px
    base = ConvProblem(latent, latent, (3, 3, 3), 1, h, w, format, output=output, has_range=format == "int8")
    yield "conv_in", replace(base, channels_in=16, format=high)
    yield from _resnet("mid_block", base)
    linear = replace(base, kernel=(1, 1, 1), format=high)
    yield "attention qkv", replace(linear, channels_out=3 * latent, has_statistics=False)
    yield "attention to_out", replace(linear, has_residual=True)
    yield from _with_first("up_blocks.0 upsampler", replace(base, kernel=(2, 2, 2), phases=4))
    base = replace(base, channels_in=lower, channels_out=lower, height_px=2 * h, width_px=2 * w)
    yield from _resnet("up_blocks.1", base)
    yield from _with_first("up_blocks.1 upsampler", replace(base, kernel=(2, 2, 2), phases=4))
    base = replace(base, channels_in=upper, channels_out=upper, height_px=4 * h, width_px=4 * w)
    yield from _widening("up_blocks.2", lower, base)
    yield from _resnet("up_blocks.2", base)
    yield from _with_first("up_blocks.2 upsampler", replace(base, kernel=(3, 2, 2), phases=4))
    base = replace(base, channels_in=top, channels_out=top, height_px=8 * h, width_px=8 * w)
    yield from _widening("up_blocks.3", upper, base)
    yield from _resnet("up_blocks.3", base)
    last = replace(base, channels_out=WIDTH, kernel=(3, 1, 1), format=high, has_statistics=False, output="fp32")
    yield "conv_out", last


def encoder_problems(
    widths: tuple[int, ...], picture_px: tuple[int, int], format: Format, output: OutputFormat = "fp16"
) -> Iterator[tuple[str, ConvProblem]]:
    """(layer name, problem of one frame) for each distinct convolution of the encoder, in order."""
    high: Format = "bf16" if output == "bf16" else "fp16"
    h, w = picture_px
    base = ConvProblem(widths[0], widths[0], (3, 3, 3), 1, h, w, format, output=output, has_range=format == "int8")
    yield "conv_in", replace(base, channels_in=WIDTH, kernel=(3, 1, 1), format=high)
    channels = widths[0]
    for level, width in enumerate(widths):
        base = replace(base, channels_in=width, channels_out=width, height_px=h, width_px=w)
        if width != channels:
            yield from _widening(f"down_blocks.{level}", channels, base)
        yield from _resnet(f"down_blocks.{level}", base)
        channels = width
        if level < len(widths) - 1:
            kernel = (1, 3, 3) if level == 0 else (3, 3, 3)
            yield from _with_first(f"down_blocks.{level} downsampler", replace(base, kernel=kernel, stride=2))
            h, w = h // 2, w // 2
    yield "conv_out", replace(base, channels_out=32, format=high, has_statistics=False, output="fp32")


def _resnet(block: str, base: ConvProblem) -> Iterator[tuple[str, ConvProblem]]:
    yield from _with_first(f"{block} conv1", base)
    yield from _with_first(f"{block} conv2", replace(base, has_residual=True))


def _widening(block: str, channels: int, base: ConvProblem) -> Iterator[tuple[str, ConvProblem]]:
    yield from _with_first(f"{block}.0 conv1", replace(base, channels_in=channels))
    yield from _with_first(f"{block}.0 conv2", replace(base, shortcut_channels=channels))


def _with_first(name: str, problem: ConvProblem) -> Iterator[tuple[str, ConvProblem]]:
    yield name, problem
    if problem.kernel[0] > 1:
        yield f"{name} (one frame)", replace(problem, kernel=(1, *problem.kernel[1:]))
