"""The encoder settings that follow from a request, a source and a kind of file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import OutputError
from ..color_tags import ColorTags, Matrix
from ..info import SourceInfo
from ..profiles import name_of, tags_of
from .containers import Container, container_for
from .defaults import alpha_of, output_tags, wanted_depth
from .encoders import ENCODERS, encoder_options, require_encoder, require_hardware
from .hdr_output import hdr_losses, with_hdr10
from .options import NVENC, SinkOptions

_NVENC_FORMATS = {"yuv420p": "yuv420p", "yuv420p10le": "p010le"}


@dataclass(frozen=True)
class EncoderPlan:
    """Everything an encoder is told, and what of the request it could not follow."""

    encoder: str
    pix_fmt: str
    """Of the code values."""
    bit_depth: int
    has_alpha: bool
    color: ColorTags
    options: dict[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def stored_format(self) -> str:
        """What the encoder is given: the same code values, for NVENC in another order."""
        return _NVENC_FORMATS[self.pix_fmt] if self.encoder in NVENC else self.pix_fmt


def plan_encoder(path: Path, size: tuple[int, int], source: SourceInfo | None, options: SinkOptions) -> EncoderPlan:
    """Return the encoder settings for a clip of `size` (width, height); asks FFmpeg's build, and the GPU for NVENC.

    Raises OutputError for a codec that does not fit the container, is not in this FFmpeg build or on this GPU, or a
    bit depth, chroma or quality that the codec does not have.
    """
    container = container_for(path)
    name = _codec_name(container, source, options)
    if name not in container.codecs:
        raise OutputError(
            f"{path}: expected one of the codecs {', '.join(container.codecs)} in this kind of file, got {name}; "
            "choose one of them or another ending."
        )
    codec = ENCODERS[name]
    alpha = source is not None and source.has_alpha
    depth, depth_warning = _depth(name, source, options)
    chroma, chroma_warning = _chroma(name, size, source, options)
    alpha_warning = None
    if alpha and (chroma not in codec.alpha_chroma or not container.holds_alpha_of(name)):
        alpha = False
        advice = _alpha_advice(container, name)
        alpha_warning = f"{name} with {chroma} chroma holds no alpha; {alpha_of(source)} left out: {advice} to keep it."
    pix_fmt = _pix_fmt(chroma, depth, alpha)
    settings = encoder_options(name, chroma, options)
    if name in NVENC:
        stored = _NVENC_FORMATS[pix_fmt]
        require_encoder(codec.encoder, stored)
        require_hardware(codec.encoder, size, stored, settings)
    else:
        require_encoder(codec.encoder, pix_fmt)
    return EncoderPlan(
        encoder=codec.encoder,
        pix_fmt=pix_fmt,
        bit_depth=depth,
        has_alpha=alpha,
        color=output_tags(source, is_rgb=chroma == "rgb"),
        options=with_hdr10(codec.encoder, settings, source),
        warnings=(
            *filter(None, (depth_warning, chroma_warning, alpha_warning, _profile_warning(path, source))),
            *hdr_losses(name, depth, source),
        ),
    )


def _alpha_advice(container: Container, name: str) -> str:
    """What would keep alpha: another chroma, else another codec, else another kind of file."""
    if ENCODERS[name].alpha_chroma and container.holds_alpha_of(name):
        return f"use chroma {ENCODERS[name].alpha_chroma[0]}"
    for codec in ("ffv1", "prores"):
        if codec in container.codecs:
            return f"use codec {codec}"
    return "write .mov with codec prores, .webm, or .mkv with codec ffv1"


def _codec_name(container: Container, source: SourceInfo | None, options: SinkOptions) -> str:
    if options.codec != "auto":
        return options.codec
    depth = options.bit_depth or wanted_depth(source)
    return "h265" if depth > 8 and "h265" in container.codecs else container.codecs[0]


def _depth(name: str, source: SourceInfo | None, options: SinkOptions) -> tuple[int, str | None]:
    """The bit depth, and a warning if it is less than the source's."""
    depths = ENCODERS[name].depths
    if options.bit_depth is not None:
        if options.bit_depth not in depths:
            known = ", ".join(map(str, depths))
            raise OutputError(f"bit_depth {options.bit_depth}: {name} takes {known} bits; choose one of them.")
        return options.bit_depth, None
    wanted = wanted_depth(source)
    fitting = [depth for depth in depths if depth >= wanted]
    if fitting:
        return fitting[0], None
    if source is None or source.bit_depth <= depths[-1]:
        return depths[-1], None
    keeper = "h265" if wanted <= ENCODERS["h265"].depths[-1] and name.endswith("_nvenc") else "ffv1"
    return depths[-1], f"The source has {wanted} bits per sample, {name} takes {depths[-1]}; use {keeper} to keep them."


def _chroma(
    name: str, size: tuple[int, int], source: SourceInfo | None, options: SinkOptions
) -> tuple[str, str | None]:
    """The chroma resolution, and a warning if the size forbids the usual one."""
    known = ENCODERS[name].chroma
    # FFV1 rounds odd sizes up by itself; the others would refuse or crop them.
    odd = {} if name == "ffv1" else {"420": size[0] % 2 or size[1] % 2, "422": size[0] % 2}
    if options.chroma != "auto":
        if options.chroma not in known:
            raise OutputError(f"chroma {options.chroma}: {name} takes {', '.join(known)}; choose one of them.")
        if odd.get(options.chroma):
            raise OutputError(
                f"chroma {options.chroma} needs an even size, got {size[0]}x{size[1]}; choose chroma 444 or an even "
                "size."
            )
        return options.chroma, None
    if name == "ffv1" and source is not None and source.conversion.matrix is not Matrix.RGB:
        return next((kind for kind in ("420", "422") if f"{kind}p" in source.pix_fmt), "444"), None
    if name in ("prores", "vp9") and source is not None and source.has_alpha:
        # The only kinds of theirs that hold alpha; libvpx takes odd sizes as well.
        return ENCODERS[name].alpha_chroma[0], None
    if odd.get(known[0]) and "444" not in known:
        raise OutputError(f"{name} needs an even size, got {size[0]}x{size[1]}; choose codec h265 or an even size.")
    if odd.get(known[0]):
        return "444", f"{size[0]}x{size[1]} is odd, which {known[0]} chroma cannot hold; written as 4:4:4."
    return known[0], None


def _profile_warning(path: Path, source: SourceInfo | None) -> str | None:
    """A sentence about an ICC profile of pictures that a clip's colour tags cannot say."""
    profile = None if source is None or source.metadata is None else source.metadata.icc
    if profile is None or tags_of(profile) is not None:
        return None
    return (
        f"The pictures' colour profile ({name_of(profile)}) is left out, because {path.suffix} has no tags for it, so "
        "colours will look different; convert the pictures to sRGB or Display P3 first."
    )


def _pix_fmt(chroma: str, depth: int, alpha: bool) -> str:
    if chroma == "rgb" and depth == 8:
        return "bgra" if alpha else "bgr0"
    name = "gbr" if chroma == "rgb" else "yuv"
    planes = f"{name}{'a' if alpha else ''}{'' if chroma == 'rgb' else chroma}p"
    return planes if depth == 8 else f"{planes}{depth}le"
