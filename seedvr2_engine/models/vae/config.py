"""The hyper-parameters of the SeedVR2 VAE, and the names and shapes of its tensors."""

from collections.abc import Iterator
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class VAEConfig:
    """What distinguishes one SeedVR2 VAE from another; the defaults are the public model's.

    Source: ByteDance-Seed/SeedVR, `models/video_vae_v3` and `configs_3b/main.yaml`.
    """

    block_out_channels: tuple[int, int, int, int] = (128, 256, 512, 512)
    """Channels of the four resolution levels, from full resolution to the latent grid."""
    layers_per_block: int = 2
    """Resnets of an encoder level; a decoder level has one more."""
    image_channels: int = 3
    """Channels of a picture (RGB)."""
    latent_channels: int = 16
    """Channels of a latent; the encoder gives twice as many (mean and log-variance)."""
    norm_groups: int = 32
    """Groups of consecutive channels in every GroupNorm."""
    norm_eps: float = 1e-6
    """Added to the variance in every GroupNorm."""
    scaling_factor: float = 0.9152
    """What the diffusion pipeline multiplies a latent by; `encode` and `decode` never apply it."""

    @property
    def spatial_compression(self) -> int:
        """Picture pixels along one edge of a latent cell."""
        return 1 << (len(self.block_out_channels) - 1)

    @property
    def temporal_compression(self) -> int:
        """Picture frames of one latent frame (the first latent frame holds one picture frame)."""
        return 4

    def encoder_downsamples_time(self, level: int) -> bool:
        """Whether the downsampler that leaves encoder `level` also halves the frame rate."""
        return level in (1, 2)

    def decoder_upsamples_time(self, block: int) -> bool:
        """Whether the upsampler that ends decoder `block` also doubles the frame rate."""
        return block in (0, 1)

    def tensor_shapes(self) -> dict[str, Shape]:
        """Every tensor of the model: name in the public checkpoint -> shape in PyTorch's order."""
        return dict([*_encoder_tensors(self), *_decoder_tensors(self)])


NamedShape = tuple[str, Shape]


def _affine(name: str, weight: Shape) -> list[NamedShape]:
    return [(f"{name}.weight", weight), (f"{name}.bias", weight[:1])]


def _resnet(name: str, channels_in: int, channels_out: int) -> Iterator[NamedShape]:
    yield from _affine(f"{name}.norm1", (channels_in,))
    yield from _affine(f"{name}.conv1", (channels_out, channels_in, 3, 3, 3))
    yield from _affine(f"{name}.norm2", (channels_out,))
    yield from _affine(f"{name}.conv2", (channels_out, channels_out, 3, 3, 3))
    if channels_in != channels_out:
        yield from _affine(f"{name}.conv_shortcut", (channels_out, channels_in, 1, 1, 1))


def _mid_block(name: str, channels: int) -> Iterator[NamedShape]:
    yield from _affine(f"{name}.attentions.0.group_norm", (channels,))
    for projection in ("to_q", "to_k", "to_v", "to_out.0"):
        yield from _affine(f"{name}.attentions.0.{projection}", (channels, channels))
    for i in range(2):
        yield from _resnet(f"{name}.resnets.{i}", channels, channels)


def _encoder_tensors(config: VAEConfig) -> Iterator[NamedShape]:
    widths = config.block_out_channels
    yield from _affine("encoder.conv_in", (widths[0], config.image_channels, 3, 3, 3))
    channels = widths[0]
    for level, width in enumerate(widths):
        block = f"encoder.down_blocks.{level}"
        for i in range(config.layers_per_block):
            yield from _resnet(f"{block}.resnets.{i}", channels, width)
            channels = width
        if level < len(widths) - 1:
            kernel = (3, 3, 3) if config.encoder_downsamples_time(level) else (1, 3, 3)
            yield from _affine(f"{block}.downsamplers.0.conv", (channels, channels, *kernel))
    yield from _mid_block("encoder.mid_block", channels)
    yield from _affine("encoder.conv_norm_out", (channels,))
    yield from _affine("encoder.conv_out", (2 * config.latent_channels, channels, 3, 3, 3))


def _decoder_tensors(config: VAEConfig) -> Iterator[NamedShape]:
    widths = config.block_out_channels[::-1]
    channels = widths[0]
    yield from _affine("decoder.conv_in", (channels, config.latent_channels, 3, 3, 3))
    yield from _mid_block("decoder.mid_block", channels)
    for index, width in enumerate(widths):
        block = f"decoder.up_blocks.{index}"
        for i in range(config.layers_per_block + 1):
            yield from _resnet(f"{block}.resnets.{i}", channels, width)
            channels = width
        if index < len(widths) - 1:
            phases = 8 if config.decoder_upsamples_time(index) else 4
            yield from _affine(f"{block}.upsamplers.0.upscale_conv", (phases * channels, channels, 1, 1, 1))
            yield from _affine(f"{block}.upsamplers.0.conv", (channels, channels, 3, 3, 3))
    yield from _affine("decoder.conv_norm_out", (channels,))
    yield from _affine("decoder.conv_out", (config.image_channels, channels, 3, 3, 3))
