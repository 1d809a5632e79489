"""What a machine says of itself, in the units that everything else counts with."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from seedvr2_engine import device
from seedvr2_engine.errors import InvalidArgumentError

GPU = torch.device("cuda")


def test_a_card_on_paper(monkeypatch):
    """A GeForce RTX 4090: 10501 MHz, 384 bits, 1.008 TB/s; PyTorch gives kHz."""
    properties = SimpleNamespace(
        name="A card", major=8, minor=9, multi_processor_count=128, shared_memory_per_block_optin=101376,
        shared_memory_per_block=49152, total_memory=24 << 30, memory_clock_rate=10_501_000, memory_bus_width=384,
        clock_rate=2_520_000,
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    spec, clock_hz = device.ask_gpu(GPU)
    assert (spec.sm, spec.sm_count, spec.shared_memory_bytes) == ("sm_89", 128, 101376)
    assert spec.bandwidth_bytes_per_s == pytest.approx(1.008e12, rel=1e-3)
    assert clock_hz == 2.52e9
    assert spec.card_memory == "24.0 GiB"
    with pytest.raises(InvalidArgumentError, match="expected a CUDA GPU, got cpu"):
        device.ask_gpu(torch.device("cpu"))


def test_rates_are_scaled_each_for_itself():
    assert device.MatrixRates(1, 2, 3, 4).scaled(10) == device.MatrixRates(10, 20, 30, 40)


@pytest.mark.parametrize(("limit", "expected"), [("max", 8 << 30), ("1000000\n", 10**6), (str(1 << 60), 8 << 30)])
def test_a_container_may_have_less_than_its_machine(limit, expected, tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(device, "Path", lambda _: Path(tmp_path / "memory.max"))
    monkeypatch.setattr(device.os, "sysconf", {"SC_PHYS_PAGES": 1 << 21, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert device.total_memory_bytes(torch.device("cpu")) == expected


def test_gpus_are_counted_from_0(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InvalidArgumentError, match=r"cuda:2 was asked for, but PyTorch .* sees 2 CUDA GPUs"):
        device.resolve_device("cuda:2")


@pytest.mark.parametrize(("capability", "before"), [((7, 5), True), ((8, 0), False), ((9, 0), False)])
def test_kernels_begin_with_ampere(capability, before, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert device.is_before_ampere(GPU) == before


@pytest.mark.parametrize(
    "words",
    [
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: ...",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes",
        "Can't allocate memory",
        "Cannot allocate memory",
        "std::bad_alloc",
    ],
)
def test_what_a_cpu_says_without_memory(words):
    assert device.is_out_of_memory(RuntimeError(words))
    assert not device.is_out_of_memory(ValueError(words))
