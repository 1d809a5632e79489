"""Run by `test_packing`, in a process without Triton's interpreter: kernels for a GPU that is not here.

    python -m tests.doctor.without_gpu FOLDER

Prints one line of JSON: what was seen.
"""

import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
import triton

from seedvr2_engine.checkpoint.detect import detect_vae
from seedvr2_engine.checkpoint.opening import open_checkpoint
from seedvr2_engine.doctor.launches import launch_color, launch_dit, launch_vae
from seedvr2_engine.doctor.packing import nano_dit
from seedvr2_engine.kernels.launch import compile_only, launch
from seedvr2_engine.kernels.packed import using
from seedvr2_engine.kernels.packed.elsewhere import compiling_for
from seedvr2_engine.kernels.packed.writing import write_folder
from seedvr2_engine.kernels.tokens import rows
from seedvr2_engine.loading import NANO_VAE

OTHER_PX = ((368, 640), (720, 1280), (208, 1008))


def keys(make) -> dict[str, str]:
    """What would be compiled, by Triton's key: the kernel's name. Nothing is."""
    seen: dict[str, str] = {}

    def note(*, key, fn, **_):
        seen[str(key)] = fn.name
        return True

    triton.knobs.runtime.jit_cache_hook = note
    try:
        make(compile_only)
    finally:
        triton.knobs.runtime.jit_cache_hook = None
    return seen


def a_kernel():
    """One launch, as `quantize_rows` makes it, of the smallest kernel."""
    x = torch.empty(3, 32, dtype=torch.bfloat16, device="meta")
    out = torch.empty(3, 32, dtype=torch.int8, device="meta")
    head, tail = rows.halves(32)
    launch(
        rows.quantize_rows_kernel, (3,), x, out, torch.empty(3, device="meta"), None,
        WIDTH=32, HEAD=head, TAIL=tail, STRIDE=32, LIMIT=127, BLOCK=0, ACTIVATION="none", num_warps=1,
    )  # fmt: skip


def compiled_or_found(generation: str) -> dict[str, int]:
    """What Triton does for the kernel with a cache that is empty but for what is packed."""
    counts: Counter[str] = Counter()
    rows.quantize_rows_kernel.device_caches.clear()
    with compiling_for(generation), tempfile.TemporaryDirectory() as cache:
        triton.knobs.cache.dir = cache
        # As at run time, where the lines of the sources are kept: the variable is part of Triton's key.
        del triton.knobs.compilation.disable_line_info
        os.environ.pop("TRITON_DISABLE_LINE_INFO")
        using.install(using.PackedKernels([generation], using.listed_folders))
        triton.knobs.compilation.listener = lambda *, cache_hit, **_: counts.update(
            ["found" if cache_hit else "compiled"]
        )
        compile_only([a_kernel])
    return dict(counts)


def main(folder: Path) -> None:
    """See the module."""
    nano = detect_vae(open_checkpoint(NANO_VAE))
    found: dict[str, object] = {}
    with compiling_for("sm_120"):
        found["dit"] = sorted(
            set(keys(lambda compile: launch_dit(nano_dit(), "sm_120", compile, formats=["int8"])).values())
        )
        found["color"] = len(keys(launch_color))
        any_size = keys(lambda compile: launch_vae(nano, "sm_120", compile, formats=["fp16"]))
        others = keys(lambda compile: launch_vae(nano, "sm_120", compile, formats=["fp16"], sizes_px=OTHER_PX))
        found["vae"], found["beyond"] = (
            sorted(set(any_size.values())),
            sorted(others[key] for key in others.keys() - any_size.keys()),
        )
    with compiling_for("sm_90"):
        kernels = compile_only([a_kernel, a_kernel])
        manifest = write_folder(folder / "sm_90", "sm_90", kernels, ["one kernel"])
    found["written"] = len(manifest.kernels)
    found["fits"] = compiled_or_found("sm_90")
    found["other generation"] = compiled_or_found("sm_89")
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
