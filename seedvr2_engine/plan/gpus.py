"""GPUs that a plan can be made for: those of a table, without having them, and the one at hand.

Sources: NVIDIA's architecture papers (GA102, AD102, Blackwell RTX), its data sheets of the professional and data-centre
parts and its product pages. Matrix rates are not written down here: they follow from SM count, clock and architecture.
"""

from dataclasses import dataclass, replace
from difflib import get_close_matches

import torch

from ..device import DeviceSpec, ask_gpu
from ..errors import InvalidArgumentError
from ..kernels.architectures import ARCHITECTURES


@dataclass(frozen=True)
class GPU:
    """One product."""

    name: str
    """NVIDIA's name for it, without the maker's own."""
    sm: str
    """Architecture, such as `sm_120`."""
    sm_count: int
    """Streaming multiprocessors."""
    boost_mhz: int
    """Clock under load that NVIDIA gives; of laptops, the fastest that is allowed."""
    vram_gib: int
    """Memory in GiB."""
    bus_bits: int
    """Width of the memory bus."""
    bus_gbps: float
    """Bits a second and pin of the memory, in units of 1e9."""
    is_professional: bool = False
    """Whether it multiplies 16-bit and FP8 numbers with FP32 accumulation at twice the rate of the GeForce parts."""

    def spec(self) -> DeviceSpec:
        """The GPU as the planner sees it."""
        architecture = ARCHITECTURES[self.sm]
        per_clock = architecture.flop_per_sm_clock
        if self.is_professional:
            per_clock = replace(per_clock, bf16=2 * per_clock.bf16, fp8=2 * per_clock.fp8)
        return DeviceSpec(
            name=self.name,
            sm=self.sm,
            sm_count=self.sm_count,
            shared_memory_bytes=architecture.shared_memory_bytes,
            vram_bytes=self.vram_gib << 30,
            bandwidth_bytes_per_s=self.bus_bits / 8 * self.bus_gbps * 1e9,
            tflops=per_clock.scaled(self.sm_count * self.boost_mhz / 1e6),
        )


GPUS = (
    GPU("RTX 3050", "sm_86", 20, 1777, 8, 128, 14),
    GPU("RTX 3060", "sm_86", 28, 1777, 12, 192, 15),
    GPU("RTX 3060 Ti", "sm_86", 38, 1665, 8, 256, 14),
    GPU("RTX 3070", "sm_86", 46, 1725, 8, 256, 14),
    GPU("RTX 3070 Ti", "sm_86", 48, 1770, 8, 256, 19),
    GPU("RTX 3080", "sm_86", 68, 1710, 10, 320, 19),
    GPU("RTX 3080 12GB", "sm_86", 70, 1710, 12, 384, 19),
    GPU("RTX 3080 Ti", "sm_86", 80, 1665, 12, 384, 19),
    GPU("RTX 3090", "sm_86", 82, 1695, 24, 384, 19.5),
    GPU("RTX 3090 Ti", "sm_86", 84, 1860, 24, 384, 21),
    GPU("RTX 3060 Laptop", "sm_86", 30, 1703, 6, 192, 14),
    GPU("RTX 3070 Laptop", "sm_86", 40, 1620, 8, 256, 14),
    GPU("RTX 3080 Laptop", "sm_86", 48, 1710, 16, 256, 14),
    GPU("RTX 3080 Ti Laptop", "sm_86", 58, 1590, 16, 256, 16),
    GPU("RTX 4060", "sm_89", 24, 2460, 8, 128, 17),
    GPU("RTX 4060 Ti", "sm_89", 34, 2535, 8, 128, 18),
    GPU("RTX 4060 Ti 16GB", "sm_89", 34, 2535, 16, 128, 18),
    GPU("RTX 4070", "sm_89", 46, 2475, 12, 192, 21),
    GPU("RTX 4070 Super", "sm_89", 56, 2475, 12, 192, 21),
    GPU("RTX 4070 Ti", "sm_89", 60, 2610, 12, 192, 21),
    GPU("RTX 4070 Ti Super", "sm_89", 66, 2610, 16, 256, 21),
    GPU("RTX 4080", "sm_89", 76, 2505, 16, 256, 22.4),
    GPU("RTX 4080 Super", "sm_89", 80, 2550, 16, 256, 23),
    GPU("RTX 4090", "sm_89", 128, 2520, 24, 384, 21),
    GPU("RTX 4060 Laptop", "sm_89", 24, 2370, 8, 128, 16),
    GPU("RTX 4070 Laptop", "sm_89", 36, 2175, 8, 128, 16),
    GPU("RTX 4080 Laptop", "sm_89", 58, 2280, 12, 192, 18),
    GPU("RTX 4090 Laptop", "sm_89", 76, 2040, 16, 256, 18),
    GPU("RTX 5050", "sm_120", 20, 2572, 8, 128, 20),
    GPU("RTX 5060", "sm_120", 30, 2497, 8, 128, 28),
    GPU("RTX 5060 Ti", "sm_120", 36, 2572, 8, 128, 28),
    GPU("RTX 5060 Ti 16GB", "sm_120", 36, 2572, 16, 128, 28),
    GPU("RTX 5070", "sm_120", 48, 2512, 12, 192, 28),
    GPU("RTX 5070 Ti", "sm_120", 70, 2452, 16, 256, 28),
    GPU("RTX 5080", "sm_120", 84, 2617, 16, 256, 30),
    GPU("RTX 5090", "sm_120", 170, 2407, 32, 512, 28),
    GPU("RTX 5060 Laptop", "sm_120", 26, 2497, 8, 128, 24),
    GPU("RTX 5070 Laptop", "sm_120", 36, 2347, 8, 128, 24),
    GPU("RTX 5070 Ti Laptop", "sm_120", 46, 2220, 12, 192, 28),
    GPU("RTX 5080 Laptop", "sm_120", 60, 2287, 16, 256, 28),
    GPU("RTX 5090 Laptop", "sm_120", 82, 2160, 24, 256, 28),
    GPU("A10", "sm_86", 72, 1695, 24, 384, 12.5, is_professional=True),
    GPU("A40", "sm_86", 84, 1740, 48, 384, 14.5, is_professional=True),
    GPU("RTX A6000", "sm_86", 84, 1800, 48, 384, 16, is_professional=True),
    GPU("L4", "sm_89", 58, 2040, 24, 192, 12.5, is_professional=True),
    GPU("L40S", "sm_89", 142, 2520, 48, 384, 18, is_professional=True),
    GPU("RTX 6000 Ada", "sm_89", 142, 2505, 48, 384, 20, is_professional=True),
    GPU("RTX PRO 6000 Blackwell", "sm_120", 188, 2617, 96, 512, 28, is_professional=True),
    GPU("A100 40GB", "sm_80", 108, 1410, 40, 5120, 2.43),
    GPU("A100 80GB", "sm_80", 108, 1410, 80, 5120, 3.186),
    GPU("H100 PCIe", "sm_90", 114, 1620, 80, 5120, 3.186),
    GPU("H100", "sm_90", 132, 1830, 80, 5120, 5.237),
    GPU("H200", "sm_90", 132, 1830, 141, 6144, 6.25),
    GPU("B200", "sm_100", 148, 1850, 180, 8192, 7.8125),
    # The clock of B200 and B300 is the one from which NVIDIA's 4500 TFLOP/s of dense FP8 follow.
    GPU("B300", "sm_103", 148, 1850, 268, 8192, 7.8125),
    # 128 GB, which are also the host's. The clock follows from NVIDIA's 31 TFLOP/s of FP32 on 6144 cores.
    GPU("GB10", "sm_121", 48, 2525, 119, 256, 8.533),
)

_NOISE = ("nvidia", "geforce", "graphics", "gpu", "rtx", "generation", "edition", "workstation", "blackwell")
_PACKAGES = ("sxm4", "sxm5", "sxm6", "sxm", "hbm3e", "hbm3")
_ALIASES = {
    "a100": "a10040gb",
    "a100pcie40gb": "a10040gb",
    "a100pcie80gb": "a10080gb",
    "h10080gb": "h100",
    "b300ac": "b300",
    "dgxspark": "gb10",
}


def find_gpu(name: str) -> DeviceSpec:
    """The GPU of this name, written loosely: `rtx5070ti`, `RTX 5070 Ti`, `NVIDIA GeForce RTX 4090 Laptop GPU`, `h200`.

    Raises InvalidArgumentError for a name that is not in the table, with those that come near.
    """
    known = {_key(gpu.name): gpu for gpu in GPUS}
    key = _key(name)
    if key not in known:
        near = get_close_matches(key, known, n=4, cutoff=0.5)
        advice = ", ".join(known[k].name for k in near) or ", ".join(gpu.name for gpu in GPUS)
        raise InvalidArgumentError(f"gpu: expected a GPU of the table, got {name!r}; it knows {advice}.")
    return known[key].spec()


def device_spec(device: torch.device) -> DeviceSpec:
    """A CUDA device as the planner sees it; raises InvalidArgumentError for a device of another kind."""
    spec, clock_hz = ask_gpu(device)
    architecture = ARCHITECTURES.get(spec.sm)
    if architecture is None:
        return spec
    return replace(spec, tflops=architecture.flop_per_sm_clock.scaled(spec.sm_count * clock_hz / 1e12))


def with_known_rates(device: DeviceSpec) -> DeviceSpec:
    """A GPU that was asked, with the table's rates and bandwidth where the table has it.

    PyTorch tells clocks only from 2.8 on, and never whether a part is a professional one.
    """
    known = {_key(gpu.name): gpu for gpu in GPUS}.get(_key(device.name))
    if known is None or known.sm != device.sm:
        return device
    spec = known.spec()
    return replace(device, tflops=spec.tflops, bandwidth_bytes_per_s=spec.bandwidth_bytes_per_s)


def _key(name: str) -> str:
    key = "".join(character for character in name.lower() if character.isalnum())
    for word in (*_NOISE, *_PACKAGES):
        key = key.replace(word, "")
    return _ALIASES.get(key, key)
