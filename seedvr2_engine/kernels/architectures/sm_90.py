"""Hopper: the one generation that everything was measured on."""

from dataclasses import replace

from ...device import MatrixRates
from ..configs import AttentionConfig, ConvConfig, ConvProblem, ProductConfig, WindowConfig
from .record import DATA_CENTRE, Architecture


def _whole_tiles(grid_px: tuple[int, int]) -> tuple[int, int]:
    """The rows and columns that tiles of 8x16 pixels cover."""
    rows, columns = grid_px
    return -(-rows // 8) * 8, -(-columns // 16) * 16


def conv_config(problem: ConvProblem) -> ConvConfig:
    """Tiles of one row through descriptors where the picture's width allows it, else 8x16 pixels through pointers."""
    block_k = 128 if problem.is_quantized else 64
    width = problem.grid_px[1]
    fills = width / (-(-width // 128) * 128) > 0.9
    if problem.paired:
        # Two sums of a tile take half of an SM's registers, so one program has it to itself.
        tile = (1, 128) if fills else (8, 16)
        config = ConvConfig(*tile, 128, block_k, warps=8, stages=3, uses_tma=fills, transposed=True)
        if not fills and problem.shortcut_channels and not config.divides(problem.grid_px):
            # With masks and a shortcut's second product channels as rows spill registers: 0.199 ms for 0.170 (256
            # channels, 164 x 116 px).
            return replace(config, transposed=False, epilogue_parts=4)
        return config
    # Descriptors: only a tile of one row goes from shared memory into the matrix unit as it is. Others pass through
    # registers, which Triton 3.6 overwrites while `wgmma` still reads them: results differ from run to run. Where
    # such tiles stick out too far, and where the sum is so long that 256 channels pay, pointers are faster.
    deep = problem.channels_in >= 512 and problem.channels_out >= 512
    uses_tma = fills and not deep
    if not uses_tma:
        # A shortcut's second product spills registers beside 256 channels and masks: 0.165 ms for 0.116 (164 x 116 px).
        is_tight = problem.shortcut_channels > 0 and problem.grid_px != _whole_tiles(problem.grid_px)
        if problem.channels_out % 256 == 0 and problem.format != "int8" and not is_tight:
            # The borders of an upsampler spill registers in four parts.
            parts = 8 if problem.phases == 4 else 4
            return ConvConfig(8, 16, 256, block_k, warps=8, stages=3, uses_tma=False, epilogue_parts=parts)
        # With 4 warps a shortcut's second product spills registers.
        warps = 8 if problem.shortcut_channels else 4
        return ConvConfig(8, 16, 128, block_k, warps=warps, stages=3, uses_tma=False, epilogue_parts=4)
    # The matrix unit wants at least 64 rows, and a range of each channel spills registers.
    transposed = problem.channels_out % 64 == 0 and not problem.has_range
    if transposed and problem.channels_out % 256 == 0:
        return ConvConfig(1, 128, 256, block_k, warps=8, stages=3, uses_tma=True, transposed=True)
    if problem.channels_in <= 32 and width % 128:
        # So do 128 channels with masks after a short sum: 0.081 ms for 0.065.
        return ConvConfig(1, 128, 64, block_k, 4, 3, uses_tma=True, transposed=transposed)
    # Two programs of 128 channels share an SM, so that one multiplies while the other finishes its tile.
    parts = 1 if transposed or problem.phases == 4 or problem.shortcut_channels or not problem.has_residual else 2
    return ConvConfig(1, 128, 128, block_k, 4, 3, uses_tma=True, epilogue_parts=parts, transposed=transposed)


_TWO_AN_SM = ProductConfig(128, 128, 128, warps=4, stages=3, uses_tma=True, parts=4)


ARCHITECTURE = Architecture(
    sm="sm_90",
    family="Hopper",
    products="H100, H200",
    evidence="measured on an H200, run on an H100",
    shared_memory_bytes=232_448,
    flop_per_sm_clock=MatrixRates(bf16=4096, fp8=8192, int8=8192, mxfp8=0),
    # INT8 as the time of the 3B at 1280x720 has it; the host as the 7B's blocks come from it, 16 GB in 317 ms.
    efficiency=replace(DATA_CENTRE, products={"int8": 0.62}, host_bytes_per_s=50e9),
    has_descriptors=True,
    formats=("fp8", "int8", "fp16", "bf16"),
    conv_config=conv_config,
    # An SM multiplies 64 x 256 tiles best, and 128 queries are needed to stay below the L2's bandwidth; so a program
    # takes half of the value's 512 dimensions.
    attention=AttentionConfig(128, 32, 256, warps=8, stages=2, uses_tma=True),
    attention_8bit=AttentionConfig(128, 64, 256, warps=8, stages=3, uses_tma=True, overlaps=True),
    # H200, 720p, 21 frames, 20 heads (`python -m benchmarks.dit --family --parts`): 0.60 and 0.50 ms with regular and
    # shifted windows; 128 queries and 8 warps 0.72 and 0.58, two stages 0.73 and 0.56, PyTorch's varlen 0.77 and 0.57.
    windows=WindowConfig(64, 64, warps=4, stages=3, uses_tma=True),
    # Two programs of an SM take turns: one multiplies while the other finishes its tile.
    matrices={"fp8": None, "int8": _TWO_AN_SM},
    # H200, 21,658 rows of the 3B, ms in two passes and so (`benchmarks/dit_kernels.py`): INT8 out 0.461 and 0.380, down
    # 0.877 and 0.726, gate and up 1.696 and 1.422. FP8 with the gate 1.330 and 1.453. FP8 with the sum is faster alone
    # (out 0.357 and 0.331, down 0.698 and 0.674), and slower in a whole velocity, which the card's power bounds: 129.6
    # and 137.9 ms in one run. So FP8 has PyTorch's products.
    ends={
        ("int8", "sum"): _TWO_AN_SM,
        ("int8", "gate"): _TWO_AN_SM,
    },
    pairs_frames=True,
    instructions={
        "fp8": "k32.f32.e4m3.e4m3",
        "int8": "k32.s32.s8.s8",
        "fp16": "k16.f32.f16.f16",
        "bf16": "k16.f32.bf16.bf16",
    },
    pipeline_buffers=(0, 0),
    # Triton 3.7.1, with masks. Cuts without spills are slower: 64 channels 0.432 ms for 0.374 (1012 x 36 px).
    known_spills={"fp8 decoder.up_blocks.2.upsamplers.0 4x2x2 in pairs": 48},
)
