"""The devices that the nodes offer, and what their names mean here."""

import torch

from ..device import resolve_device


def devices() -> list[str]:
    """Devices that models can run on, the best first."""
    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def offload_devices() -> list[str]:
    """Devices where something can wait, and `none`."""
    return ["none", "cpu", *(name for name in devices() if name.startswith("cuda"))]


def device_of(name: str) -> torch.device:
    """The device of this name, with its number, by which ComfyUI's books know it; raises InvalidArgumentError."""
    device = resolve_device(name)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def check_device(name: object) -> str | None:
    """Why a name is no device, in one sentence; whether this machine has it shows when the node runs."""
    if not isinstance(name, str):
        return None
    try:
        torch.device(name)
    except RuntimeError:
        return f"device: expected one of {', '.join(devices())}, got {name!r}."
    return None
