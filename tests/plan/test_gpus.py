"""The table of GPUs against facts that it is not made of: published rates, cores and bandwidths."""

from dataclasses import replace

import pytest

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.plan.gpus import GPUS, find_gpu, with_known_rates

# name: CUDA cores, GB/s, and what NVIDIA publishes of the matrix rates (TFLOP/s, dense), in the format named.
# The papers of GA102 and AD102 and of the Blackwell RTX parts give FP16 with FP32 accumulation. Where there are only
# "AI TOPS", these are sparse: of INT8 for the RTX 40 series, twice the dense rate; of FP4 for the RTX 50 series, four
# times the dense block-scaled FP8 rate. For laptops NVIDIA gives a figure that fits no published clock.
PUBLISHED = {
    "RTX 3050": (2560, 224, None, 0),
    "RTX 3060": (3584, 360, "bf16", 25.5),
    "RTX 3060 Ti": (4864, 448, "bf16", 32.4),
    "RTX 3070": (5888, 448, "bf16", 40.6),
    "RTX 3070 Ti": (6144, 608, "bf16", 43.5),
    "RTX 3080": (8704, 760, "bf16", 59.5),
    "RTX 3080 12GB": (8960, 912, "bf16", 61.3),
    "RTX 3080 Ti": (10240, 912, "bf16", 68.2),
    "RTX 3090": (10496, 936, "bf16", 71.2),
    "RTX 3090 Ti": (10752, 1008, "bf16", 80.0),
    "RTX 3060 Laptop": (3840, 336, None, 0),
    "RTX 3070 Laptop": (5120, 448, None, 0),
    "RTX 3080 Laptop": (6144, 448, None, 0),
    "RTX 3080 Ti Laptop": (7424, 512, None, 0),
    "RTX 4060": (3072, 272, "int8", 242 / 2),
    "RTX 4060 Ti": (4352, 288, "int8", 353 / 2),
    "RTX 4060 Ti 16GB": (4352, 288, "int8", 353 / 2),
    "RTX 4070": (5888, 504, "int8", 466 / 2),
    "RTX 4070 Super": (7168, 504, "int8", 568 / 2),
    "RTX 4070 Ti": (7680, 504, "int8", 641 / 2),
    "RTX 4070 Ti Super": (8448, 672, "int8", 706 / 2),
    "RTX 4080": (9728, 717, "int8", 780 / 2),
    "RTX 4080 Super": (10240, 736, "int8", 836 / 2),
    "RTX 4090": (16384, 1008, "bf16", 165.2),
    "RTX 4060 Laptop": (3072, 256, None, 0),
    "RTX 4070 Laptop": (4608, 256, None, 0),
    "RTX 4080 Laptop": (7424, 432, None, 0),
    "RTX 4090 Laptop": (9728, 576, None, 0),
    "RTX 5050": (2560, 320, "mxfp8", 421 / 4),
    "RTX 5060": (3840, 448, "mxfp8", 614 / 4),
    "RTX 5060 Ti": (4608, 448, "mxfp8", 759 / 4),
    "RTX 5060 Ti 16GB": (4608, 448, "mxfp8", 759 / 4),
    "RTX 5070": (6144, 672, "fp8", 123.5),
    "RTX 5070 Ti": (8960, 896, "bf16", 87.9),
    "RTX 5080": (10752, 960, "fp8", 225.1),
    "RTX 5090": (21760, 1792, "int8", 838),
    "RTX 5060 Laptop": (3328, 384, None, 0),
    "RTX 5070 Laptop": (4608, 384, None, 0),
    "RTX 5070 Ti Laptop": (5888, 672, None, 0),
    "RTX 5080 Laptop": (7680, 896, None, 0),
    "RTX 5090 Laptop": (10496, 896, None, 0),
    "A10": (9216, 600, "bf16", 125),
    "A40": (10752, 696, "bf16", 149.7),
    "RTX A6000": (10752, 768, "bf16", 154.8),
    "L4": (7424, 300, "bf16", 121),
    "L40S": (18176, 864, "fp8", 733),
    "RTX 6000 Ada": (18176, 960, "fp8", 728.5),
    "RTX PRO 6000 Blackwell": (24064, 1792, "mxfp8", 4000 / 4),
    "A100 40GB": (6912, 1555, "int8", 624),
    "A100 80GB": (6912, 2039, "bf16", 312),
    "H100 PCIe": (14592, 2039, "fp8", 1513),
    "H100": (16896, 3352, "fp8", 1979),
    "H200": (16896, 4800, "bf16", 989),
    "B200": (18944, 8000, "fp8", 4500),
    "B300": (18944, 8000, "fp8", 4500),
    "GB10": (6144, 273, "mxfp8", 1000 / 4),
}


def test_every_row_is_checked():
    assert {gpu.name for gpu in GPUS} == set(PUBLISHED)


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_rows_agree_with_published_facts(gpu):
    cores, gb_per_s, format, tflops = PUBLISHED[gpu.name]
    spec = gpu.spec()
    assert spec.sm_count * (64 if spec.sm == "sm_80" else 128) == cores
    assert spec.bandwidth_bytes_per_s == pytest.approx(gb_per_s * 1e9, rel=0.01)
    if format is not None:
        assert getattr(spec.tflops, format) == pytest.approx(tflops, rel=0.02)


def test_memory_is_in_binary_gigabytes():
    assert find_gpu("rtx4090").vram_bytes == 24 << 30
    assert find_gpu("h200").vram_bytes == 141 << 30


def test_formats_a_gpu_lacks_have_no_rate():
    assert find_gpu("a100").tflops.fp8 == 0
    assert find_gpu("rtx 4090").tflops.mxfp8 == 0
    assert find_gpu("rtx 5090").tflops.mxfp8 == 2 * find_gpu("rtx 5090").tflops.fp8


@pytest.mark.parametrize(
    ("loose", "name"),
    [
        ("rtx5070ti", "RTX 5070 Ti"),
        ("RTX 5070 Ti", "RTX 5070 Ti"),
        ("5070-ti", "RTX 5070 Ti"),
        ("NVIDIA GeForce RTX 5070 Ti Laptop GPU", "RTX 5070 Ti Laptop"),
        ("h200", "H200"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA B300 SXM6 AC", "B300"),
        ("NVIDIA GB10", "GB10"),
        ("DGX Spark", "GB10"),
        ("H100 SXM", "H100"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 Blackwell"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("a6000", "RTX A6000"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100 80GB", "A100 80GB"),
        ("RTX 4060 Ti 16 GB", "RTX 4060 Ti 16GB"),
    ],
)
def test_names_are_taken_loosely(loose, name):
    assert find_gpu(loose).name == name


def test_every_name_finds_its_own_row():
    assert [find_gpu(gpu.name).name for gpu in GPUS] == [gpu.name for gpu in GPUS]


def test_a_gpu_at_hand_gets_the_rates_of_its_row():
    row = find_gpu("l40s")
    asked = replace(
        row, name="NVIDIA L40S", vram_bytes=47 << 30, tflops=row.tflops.scaled(0), bandwidth_bytes_per_s=0.0
    )
    known = with_known_rates(asked)
    assert (known.tflops, known.bandwidth_bytes_per_s) == (row.tflops, row.bandwidth_bytes_per_s)
    assert (known.name, known.vram_bytes) == (asked.name, asked.vram_bytes)
    for other in (replace(asked, name="NVIDIA L41"), replace(asked, sm="sm_90")):
        assert with_known_rates(other) == other


def test_unknown_names_are_refused_with_those_that_come_near():
    with pytest.raises(InvalidArgumentError, match="RTX 5070 Ti"):
        find_gpu("rtx5075ti")
    with pytest.raises(InvalidArgumentError, match="H200"):
        find_gpu("voodoo")
