"""The parts of the fused transformer by themselves: attention in several ways, matrix products, passes over tokens."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from seedvr2_engine.engine.dit.tables import JointTables, joint_tables
from seedvr2_engine.kernels.attention.windows import attend_windows
from seedvr2_engine.kernels.configs import WindowConfig
from seedvr2_engine.kernels.tokens import gates, joint
from seedvr2_engine.kernels.tokens.operands import JoinStep, StreamVectors, TokenStep, plan_work
from seedvr2_engine.models.dit.attention import attend
from seedvr2_engine.models.dit.config import DiTConfig
from seedvr2_engine.models.dit.geometry import Execution, plan_geometry
from seedvr2_engine.models.dit.windows import WindowLayout

TEXT_TOKENS = 58
CONFIGS = (
    WindowConfig(64, 64, 4, 3, True),
    WindowConfig(64, 128, 4, 2, True),
    WindowConfig(64, 32, 4, 4, True),
    WindowConfig(128, 64, 8, 3, True),
    WindowConfig(64, 64, 4, 3, False),
)
Left = Callable[[], float]


Run = Callable[[], object]
Row = tuple[str, float, str, Run]
"""A name, what one run does, its unit with 1e9 of it a second (1e12 for FLOP), and the run."""


def milliseconds(run: Run, repeats: int = 10) -> float:
    """Median of timed launches after two."""
    times = []
    for index in range(repeats + 2):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        if index >= 2:
            times.append(begin.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def measure(config: DiTConfig, shape: tuple[int, ...], left: Left) -> dict[str, Any]:
    """Measure as much as there is time for, the most telling first."""
    results: dict[str, Any] = {}
    for name, work, unit, run in _rows(config, shape):
        try:
            ms = milliseconds(run)
        except Exception as error:
            print(f"  {name}: {type(error).__name__} {str(error).splitlines()[0][:100]}", flush=True)
            continue
        rate = work / ms / (1e9 if unit == "TFLOP/s" else 1e6)
        results[name] = {"ms": ms, unit: rate}
        print(f"  {name:52} {ms:8.3f} ms {rate:7.0f} {unit}", flush=True)
        if left() < 2:
            break
    return results


def compile_share(config: DiTConfig, shape: tuple[int, ...], index: int, count: int) -> None:
    """Run every `count`-th part once, so that it lies compiled in Triton's cache."""
    for number, (name, _, _, run) in enumerate(_rows(config, shape)):
        if number % count == index and not name.startswith("product"):
            try:
                run()
                torch.cuda.synchronize()
            except Exception as error:
                print(f"  {name}: {type(error).__name__} {str(error).splitlines()[0][:100]}", flush=True)


def _rows(config: DiTConfig, shape: tuple[int, ...]) -> Iterator[Row]:
    device = torch.device("cuda")
    geometry = plan_geometry(config, (1, *shape), TEXT_TOKENS, Execution(device, "torch-varlen"))
    tables = joint_tables(geometry)
    yield from products(config, geometry.restore)
    yield from attention(config, tables)
    yield from passes(config, tables[0])


def products(config: DiTConfig, restore: Tensor) -> Iterator[Row]:
    """The layer's matrix products, with video and text in one and with the video alone."""
    width, inner, mlp = config.width, config.attention_width, config.mlp_width
    layers = {"qkv": (width, 3 * inner), "out": (inner, width), "gate and up": (width, 2 * mlp), "gate": (width, mlp)}
    for name, (depth, columns) in {**layers, "down": (mlp, width)}.items():
        weight = torch.randn(columns, depth, device="cuda", dtype=torch.bfloat16) * depth**-0.5
        for rows in (len(restore), len(restore) + TEXT_TOKENS):
            x = torch.randn(rows, depth, device="cuda", dtype=torch.bfloat16)
            out = x.new_empty(rows, columns)
            run = partial(torch.mm, x, weight.t(), out=out)
            yield f"product {name}, {rows} rows", 2 * rows * depth * columns, "TFLOP/s", run


def attention(config: DiTConfig, tables: tuple[JointTables, JointTables]) -> Iterator[Row]:
    """Attention of both window layouts: PyTorch's kinds, and the kernel in several configurations."""
    for label, table in zip(("regular", "shifted"), tables, strict=True):
        layout = table.layout
        shape = (len(layout.joint_rows), config.heads, config.head_width)
        q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(3))
        flop = sum(4.0 * config.attention_width * g.windows * (g.tokens + TEXT_TOKENS) ** 2 for g in layout.groups)
        expected = attend(q, k, v, layout, text_asks=True, kind="sdpa").flatten(1)
        for name, run in _ways(q, k, v, layout):
            yield f"attention {label}, {name}", flop, "TFLOP/s", _Checked(run, expected)


class _Checked:
    """A run whose first result must be right, and its second the same."""

    def __init__(self, run: Callable[[], Tensor], expected: Tensor) -> None:
        self._run = run
        self._expected = expected
        self._is_checked = False

    def __call__(self) -> None:
        first = self._run().flatten(1)
        if self._is_checked:
            return
        self._is_checked = True
        first = first.clone()
        error = ((first.float() - self._expected.float()).norm() / self._expected.float().norm()).item()
        if error > 1e-2 or not torch.equal(first, self._run().flatten(1)):
            raise ValueError(f"WRONG, error {error:.1e}")


def _ways(q: Tensor, k: Tensor, v: Tensor, layout: WindowLayout) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    for kind in ("torch-varlen", "sdpa", "flash-attn"):
        yield kind, lambda kind=kind: attend(q, k, v, layout, text_asks=True, kind=kind)
    for backend in (SDPBackend.CUDNN_ATTENTION,):
        yield f"sdpa, {backend.name}", lambda backend=backend: _forced(q, k, v, layout, backend)
    bounds = layout.joint_bounds.tolist()
    places = torch.arange(len(q), dtype=torch.int32, device=q.device)
    for config in CONFIGS:
        work = plan_work(bounds, bounds, config.block_m).to(q.device)
        out = q.new_empty(len(q), q.shape[1] * q.shape[2])

        def run(work: Tensor = work, out: Tensor = out, config: WindowConfig = config) -> Tensor:
            attend_windows((q, k, v), work, places, out, config)
            return out

        yield f"kernel {tuple(config)}", run


def _forced(q: Tensor, k: Tensor, v: Tensor, layout: WindowLayout, backend: SDPBackend) -> Tensor:
    with sdpa_kernel(backend):
        return attend(q, k, v, layout, text_asks=True, kind="sdpa")


def passes(config: DiTConfig, table: JointTables) -> Iterator[Row]:
    """The passes between the products, in several launch configurations, by bytes moved."""
    width, heads, head = config.width, config.heads, config.head_width
    video, total = len(table.places.video_rows), len(table.cos)
    x, change, kept, out = (torch.randn(total, width, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    vector = torch.rand(width, device="cuda")
    pair = StreamVectors(vector, vector)
    run = partial(gates.step_tokens, x, TokenStep(video, change, pair, pair, pair), kept=kept, out=out)
    for rows, warps in ((4, 4), (4, 8), (2, 4), (1, 4), (8, 4)):
        launch = partial(_with, gates, run, STEP_ROWS=rows, STEP_WARPS=warps)
        yield f"step, {rows} rows, {warps} warps", 4 * x.nbytes, "GB/s", launch
    gate_up = torch.randn(total, 2 * config.mlp_width, device="cuda", dtype=torch.bfloat16)
    inner = gate_up.new_empty(total, config.mlp_width)
    run = partial(gates.gate_silu, gate_up, inner)
    for rows, columns, warps in ((4, 1024, 4), (1, 1024, 4)):
        launch = partial(_with, gates, run, SILU_ROWS=rows, SILU_COLUMNS=columns, SILU_WARPS=warps)
        yield f"gate, {rows} x {columns}, {warps} warps", 3 * inner.nbytes, "GB/s", launch
    qkv = torch.randn(total, 3 * heads * head, device="cuda", dtype=torch.bfloat16)
    count = len(table.layout.joint_rows)
    q, k, v = (qkv.new_empty(count, heads, head) for _ in range(3))
    norm = StreamVectors(vector[:head].bfloat16(), vector[:head].bfloat16())
    join = JoinStep(video, heads, table.rows, norm, norm, table.cos, table.sin)
    run = partial(joint.join_parts, qkv, join, (q, k, v))
    for rows, warps in ((4, 4), (8, 4), (2, 4), (8, 8), (4, 2)):
        launch = partial(_with, joint, run, JOIN_TOKENS=rows, JOIN_WARPS=warps)
        yield f"join, {rows} tokens, {warps} warps", qkv.nbytes + 3 * q.nbytes, "GB/s", launch
    run = partial(joint.collect_rows, q.flatten(1), table.places, out)
    for rows, columns, warps in ((4, 512, 4), (8, 512, 4)):
        launch = partial(_with, joint, run, COPY_ROWS=rows, COPY_COLUMNS=columns, COPY_WARPS=warps)
        yield f"collect, {rows} x {columns}, {warps} warps", 2 * q.nbytes, "GB/s", launch


def _with(module: Any, run: Run, **values: int) -> None:
    """Run with other launch constants of a kernel's module."""
    before = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            setattr(module, name, value)
        run()
    finally:
        for name, value in before.items():
            setattr(module, name, value)
