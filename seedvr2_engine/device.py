"""The only place that asks a machine what it can do."""

import torch

from .errors import InvalidArgumentError


def resolve_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:1`, ... into a device that is there.

    `auto` is the first CUDA GPU, or else the CPU. Raises InvalidArgumentError for anything that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidArgumentError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}.") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise InvalidArgumentError(
                f"device: {name} was asked for, but PyTorch {torch.__version__} sees {count} CUDA GPUs; "
                "choose another, or `cpu`."
            )
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise InvalidArgumentError("device: mps was asked for, but PyTorch sees no Apple GPU; choose `cpu`.")
    elif device.type != "cpu":
        raise InvalidArgumentError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}.")
    return device


_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
DTYPE_NAMES = ("auto", *_DTYPES)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn a dtype's name into the dtype; `auto` is float32 on the CPU and float16 on a GPU."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    if name not in _DTYPES:
        raise InvalidArgumentError(f"dtype: expected one of {', '.join(DTYPE_NAMES)}, got {name!r}.")
    return _DTYPES[name]
