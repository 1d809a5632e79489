"""The VAE's layers as a list of operations in the order in which they run: kernel, format and tensors of each."""

from dataclasses import dataclass, field, replace
from typing import Literal

from ..kernels.configs import ConvConfig, ConvProblem, Format, Refusal
from ..kernels.dispatch import choose_attention_config, choose_attention_format, choose_config
from ..kernels.layout import WIDTH, attention_bytes, element_bytes, tiles_per_chunk
from ..quant.recipe import ALWAYS_16_BIT
from .execution_plan import FRAMES_PER_STEP, LATENT_CELL_PX, Operation, Part, RingSlot, TemporalRate
from .target import Activation, RingKey, Target, exponents_buffer, fold_problem, pair_problem

FLOAT_BYTES = 4
WIDEST = 1024
"""Most channels a norm can take: a power of two, so that a program reads whole pixels."""


@dataclass
class Lowering:
    """Collects the operations of one step; `one_frame` folds the temporal taps."""

    target: Target
    part: Part
    one_frame: bool
    remembers: bool
    """Whether later steps will need this one's frames."""
    operations: list[Operation] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of every buffer."""
    members: dict[RingKey, int] = field(default_factory=dict)
    """Remembered frames of each ring so far."""
    names: dict[RingKey, str] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    segment: int = 0

    def frames(self, segment: int) -> int:
        """Frames that one run of a segment computes."""
        in_step = 1 << segment if self.part == "decode" else FRAMES_PER_STEP >> segment
        return 2 if self.target.pairs and not self.one_frame and in_step > 1 else 1

    def _is_paired(self, problem: ConvProblem, temporal_rate: TemporalRate = "same") -> bool:
        """Whether a convolution computes two frames from four Winograd inputs."""
        # One with a single spatial tap is bound by memory.
        taps, *space = problem.kernel
        return (
            self.frames(self.segment) == 2
            and taps == 3
            and max(space) > 1
            and problem.stride == 1
            and temporal_rate == "same"
        )

    def load(self, layer: str, source: str, size: tuple[int, int, int]) -> RingSlot:
        """Copy a 16-bit tensor as it is into the ring of a convolution that is kept in 16 bits."""
        slot = self._ring(RingKey(self.segment, size, self._format_16_bit), layer, 2)
        frames = self.frames(self.segment)
        self.operations.append(
            Operation(
                layer=layer, kernel="load", segment=self.segment, source=source, target="", size=size, slot=slot,
                format=self._format_16_bit, frames=frames,
            )
        )  # fmt: skip
        return slot

    def norm(self, x: Activation, layer: str, norm: str, problem: ConvProblem, past: int) -> RingSlot | str:
        """Prepare x for the convolution `layer`, which computes `problem` and remembers `past` frames.

        `norm` is the GroupNorm; without one the tensor is only quantised. Returns where the convolution reads: the
        ring, or a buffer of Winograd inputs.
        """
        format, reason = self._format(layer, problem)
        activates = bool(norm) and ".attentions." not in norm
        channels = x.size[2]
        slot = self._ring(RingKey(self.segment, x.size, format), layer, past)
        assert x.counts is not None
        tiles = _tiles(x.counts)
        chunks = -(-tiles // tiles_per_chunk(tiles))
        frames = self.frames(self.segment)
        self.sizes[f"{layer}.combined"] = frames * 4 * FLOAT_BYTES * chunks * channels
        self.sizes[f"{layer}.affine"] = frames * 4 * FLOAT_BYTES * channels
        winograd = ""
        if self._is_paired(problem):
            winograd = f"{layer}.winograd"
            self.sizes[winograd] = 4 * x.size[0] * x.size[1] * channels * element_bytes(format)
            self.sizes[exponents_buffer(winograd)] = 4 * FLOAT_BYTES
        self.operations.append(
            Operation(
                layer=layer, kernel="norm", segment=self.segment, source=x.buffer, target=winograd, size=x.size,
                partials=x.partials, counts=x.counts, slot=slot, norm=norm, activates=activates,
                format=format, reason=reason, frames=frames,
            )
        )  # fmt: skip
        return winograd or slot

    def conv(
        self,
        layer: str,
        problem: ConvProblem,
        window: RingSlot | str,
        *,
        shortcut: Activation | None = None,
        residual: Activation | None = None,
        temporal_rate: TemporalRate = "same",
    ) -> Activation:
        """Convolve; the problem is that of a later step, its format still open."""
        format, reason = self._format(layer, problem)
        problem = replace(problem, format=format)
        frames = self.frames(self.segment)
        if self.one_frame:
            problem = fold_problem(problem)
        elif self._is_paired(problem, temporal_rate):
            problem = pair_problem(problem)
        else:
            problem = replace(problem, frames=frames)
        config = self._config(layer, problem)
        rows, columns = problem.output_px
        target = residual.buffer if residual else f"{layer}.y"
        self.sizes[target] = frames * rows * columns * problem.channels_out * element_bytes(problem.output)
        counts = (*problem.grid_px, config.tile_h, config.tile_w, problem.phases)
        partials = ""
        if problem.has_statistics:
            partials = f"{layer}.partials"
            self.sizes[partials] = frames * problem.statistic_rows * FLOAT_BYTES * _tiles(counts) * problem.channels_out
        self.operations.append(
            Operation(
                layer=layer, kernel="conv3d", segment=self.segment, target=target, partials=partials,
                source=window if isinstance(window, str) else "", shortcut=shortcut.buffer if shortcut else "",
                size=(problem.height_px, problem.width_px, problem.channels_in),
                slot=window if isinstance(window, RingSlot) else None, temporal_rate=temporal_rate,
                problem=problem, config=config, format=format, reason=reason, frames=frames,
            )
        )  # fmt: skip
        return Activation(target, (rows, columns, problem.channels_out), partials, counts)

    def resnet(self, x: Activation, name: str, channels: int) -> Activation:
        """norm, conv1, norm, conv2, beside a shortcut."""
        inner, outer = f"{name}.conv1", f"{name}.conv2"
        problem = self._problem(x.size, channels)
        hidden = self.conv(inner, problem, self.norm(x, inner, f"{name}.norm1", problem, 2))
        problem = self._problem(hidden.size, channels)
        if x.size[2] == channels:
            problem = replace(problem, has_residual=True)
            return self.conv(outer, problem, self.norm(hidden, outer, f"{name}.norm2", problem, 2), residual=x)
        problem = replace(problem, shortcut_channels=x.size[2])
        return self.conv(outer, problem, self.norm(hidden, outer, f"{name}.norm2", problem, 2), shortcut=x)

    def middle(self, x: Activation, name: str) -> Activation:
        """Resnet, attention, resnet."""
        channels = x.size[2]
        x = self.resnet(x, f"{name}.resnets.0", channels)
        block = f"{name}.attentions.0"
        qkv, out = f"{block}.to_qkv", f"{block}.to_out"
        linear = replace(self._problem(x.size, 3 * channels), kernel=(1, 1, 1), has_statistics=False)
        slot = self.norm(x, qkv, f"{block}.group_norm", linear, 0)
        projected = self.conv(qkv, linear, slot)
        config = None
        format, reason = self._attention_format(block, channels)
        if format != self._format_16_bit:
            self.sizes[f"{block}.operands"] = attention_bytes(x.size[0] * x.size[1], channels)
        if self.target.fuses_attention:
            chosen = choose_attention_config(channels, self.target.device, format)
            if isinstance(chosen, Refusal):
                self._refuse(block, chosen.reason)
            else:
                config = chosen
        attended = f"{block}.y"
        self.sizes[attended] = x.size[0] * x.size[1] * channels * element_bytes(self._format_16_bit)
        self.operations.append(
            Operation(
                layer=block, kernel="attention", segment=self.segment, source=projected.buffer, target=attended,
                size=projected.size, config=config, format=format, reason=reason,
            )
        )  # fmt: skip
        linear = replace(self._problem(x.size, channels), kernel=(1, 1, 1), has_residual=True)
        x = self.conv(out, linear, attended, residual=x)
        return self.resnet(x, f"{name}.resnets.1", channels)

    def ending(self, x: Activation, name: str, channels_out: int, kernel: tuple[int, int, int]) -> Activation:
        """The last norm and convolution, FP32."""
        problem = replace(self._problem(x.size, channels_out), kernel=kernel, has_statistics=False, output="fp32")
        slot = self.norm(x, f"{name}.conv_out", f"{name}.conv_norm_out", problem, 2)
        return self.conv(f"{name}.conv_out", problem, slot)

    def decoder(self, rows: int, columns: int) -> None:
        """One latent frame to pictures; `rows` and `columns` of the latent."""
        config = self.target.config
        widths = config.block_out_channels[::-1]
        size = (rows, columns, config.latent_channels)
        x = self.conv("decoder.conv_in", self._problem(size, widths[0]), self.load("decoder.conv_in", "input", size))
        x = self.middle(x, "decoder.mid_block")
        for block, channels in enumerate(widths):
            for index in range(config.layers_per_block + 1):
                x = self.resnet(x, f"decoder.up_blocks.{block}.resnets.{index}", channels)
            if block < len(widths) - 1:
                doubles = config.decoder_upsamples_time(block)
                layer = f"decoder.up_blocks.{block}.upsamplers.0"
                problem = replace(self._problem(x.size, channels), kernel=(2 if doubles else 3, 2, 2), phases=4)
                slot = self.norm(x, layer, "", problem, 1 if doubles else 2)
                self.segment += doubles
                x = self.conv(layer, problem, slot, temporal_rate="up" if doubles else "same")
        taps = self.ending(x, "decoder", WIDTH, (3, 1, 1))
        frames = self.frames(self.segment)
        self.operations.append(
            Operation(
                layer="decoder.conv_out",
                kernel="fold",
                segment=self.segment,
                source=taps.buffer,
                target="output",
                size=taps.size,
                format=self._format_16_bit,
                frames=frames,
            )
        )

    def encoder(self, rows: int, columns: int) -> None:
        """Pictures of `rows` and `columns` to one frame of moments."""
        config = self.target.config
        widths = config.block_out_channels
        size = (rows, columns, WIDTH)
        frames = self.frames(0)
        self.sizes["encoder.unfolded"] = frames * rows * columns * WIDTH * element_bytes(self._format_16_bit)
        self.operations.append(
            Operation(
                layer="encoder.conv_in",
                kernel="unfold",
                segment=0,
                source="input",
                target="encoder.unfolded",
                size=size,
                format=self._format_16_bit,
                frames=frames,
            )
        )
        problem = replace(self._problem(size, widths[0]), kernel=(3, 1, 1))
        x = self.conv("encoder.conv_in", problem, self.load("encoder.conv_in", "encoder.unfolded", size))
        for level, channels in enumerate(widths):
            for index in range(config.layers_per_block):
                x = self.resnet(x, f"encoder.down_blocks.{level}.resnets.{index}", channels)
            if level < len(widths) - 1:
                halves = config.encoder_downsamples_time(level)
                layer = f"encoder.down_blocks.{level}.downsamplers.0.conv"
                problem = replace(self._problem(x.size, channels), kernel=(3 if halves else 1, 3, 3), stride=2)
                # One run of the next segment sees two frames more for each further frame that it computes.
                seen = 2 * self.frames(self.segment + 1) + 1
                slot = self.norm(x, layer, "", problem, seen - self.frames(self.segment) if halves else 0)
                self.segment += halves
                x = self.conv(layer, problem, slot, temporal_rate="down" if halves else "same")
        x = self.middle(x, "encoder.mid_block")
        moments = self.ending(x, "encoder", 2 * config.latent_channels, (3, 3, 3))
        assert self.operations[-1].target == moments.buffer
        self.operations[-1] = replace(self.operations[-1], target="output")
        self.sizes["output"] = self.sizes.pop(moments.buffer)

    @property
    def _format_16_bit(self) -> Literal["fp16", "bf16"]:
        recipe = self.target.recipe
        return "bf16" if recipe.precision == "bf16" else recipe.format_16_bit if recipe.is_quantized else "fp16"

    def _problem(self, size: tuple[int, int, int], channels_out: int) -> ConvProblem:
        rows, columns, channels = size
        has_range = self.target.recipe.precision == "int8"
        return ConvProblem(
            channels,
            channels_out,
            (3, 3, 3),
            1,
            rows,
            columns,
            self._format_16_bit,
            has_range=has_range,
            output=self._format_16_bit,
        )

    def _format(self, layer: str, problem: ConvProblem) -> tuple[Format, str]:
        """The layer's format and the reason: one format for both its problems, which read the same ring."""
        if ".attentions." in layer:
            return self._format_16_bit, "the attention's projections are kept in 16 bits"
        if layer.endswith(".conv_in"):
            return self._format_16_bit, ALWAYS_16_BIT[layer]
        format, reason = self.target.recipe.layer_precision(layer)
        if format != self._format_16_bit:
            variants = [problem, fold_problem(problem)]
            variants += [pair_problem(problem)] if self._is_paired(problem) else []
            for variant in variants:
                chosen = choose_config(replace(variant, format=format), self.target.device)
                if isinstance(chosen, Refusal):
                    return self._format_16_bit, chosen.reason
        return format, reason

    def _attention_format(self, block: str, dim: int) -> tuple[Format, str]:
        """The format of an attention's queries and keys, and the reason."""
        precision, reason = self.target.recipe.layer_precision(block)
        if not self.target.fuses_attention:
            return self._format_16_bit, "PyTorch computes it"
        if precision == self._format_16_bit:
            return precision, reason
        chosen = choose_attention_format(precision, dim, self.target.device)
        if isinstance(chosen, Refusal):
            return self._format_16_bit, chosen.reason
        return chosen, f"scores in {chosen.upper()}, values in FP8"

    def _config(self, layer: str, problem: ConvProblem) -> ConvConfig:
        chosen = choose_config(problem, self.target.device)
        if isinstance(chosen, ConvConfig):
            return chosen
        self._refuse(layer, chosen.reason)
        return _ANY_CONFIG

    def _refuse(self, layer: str, reason: str) -> None:
        if f"{layer}: {reason}" not in self.refusals:
            self.refusals.append(f"{layer}: {reason}")

    def _ring(self, key: RingKey, layer: str, past: int) -> RingSlot:
        if not self.remembers:
            past = 0
        if not self.remembers or layer in self.target.host_layers:
            key = replace(key, layer=layer)
        channels = key.size[2]
        if channels & (channels - 1) or channels > WIDEST:
            self._refuse(layer, f"{channels} channels are not a power of two up to {WIDEST}")
        base = self.members.get(key, 0)
        self.members[key] = base + past
        self.names.setdefault(key, f"{layer} {key.format}")
        return RingSlot(list(self.members).index(key), base)


_ANY_CONFIG = ConvConfig(8, 16, 16, 16, 4, 2, False)
"""Stands in a plan that is refused anyway, so that its memory can still be told."""


def _tiles(counts: tuple[int, int, int, int, int]) -> int:
    rows, columns, tile_h, tile_w, phases = counts
    return -(-rows // tile_h) * -(-columns // tile_w) * phases


def lower(target: Target, part: Part, size_px: tuple[int, int], *, one_frame: bool, remembers: bool) -> Lowering:
    """All operations of one step for a picture or tile of `size_px` (rows, columns)."""
    lowered = Lowering(target, part, one_frame, remembers)
    rows, columns = size_px
    if part == "decode":
        lowered.decoder(rows // LATENT_CELL_PX, columns // LATENT_CELL_PX)
    else:
        lowered.encoder(rows, columns)
    return lowered
