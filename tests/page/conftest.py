"""Pages in a real Chromium, where there is one: `pip install playwright`, and a Chromium on the PATH."""

import os
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from seedvr2_engine.page.making import PageRequest, make_page
from seedvr2_engine.video import SinkOptions, open_sink, open_source

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BITS, COUNT = 6, 40
RATE = Fraction(25)


def numbered(count: int, scale: int = 1, grain: float = 0.0) -> Iterator[torch.Tensor]:
    """Frames of 96x64 times `scale` that say their number in six blocks of their upper third, lowest bit first."""
    random = torch.Generator().manual_seed(3)
    rows, columns = torch.meshgrid(torch.linspace(0, 5, 64 * scale), torch.linspace(0, 7, 96 * scale), indexing="ij")
    for number in range(count):
        waves = [((rows * colour + columns + number / 9).sin() + 1) / 2 for colour in (1, 2, 3)]
        frame = torch.stack(waves) * 0.6 + 0.2
        frame += torch.randn(frame.shape, generator=random) * grain
        edge = 16 * scale
        for bit in range(BITS):
            frame[:, :edge, bit * edge : (bit + 1) * edge] = 0.9 if number >> bit & 1 else 0.1
        yield frame.clamp(0, 1)


def write(path: Path, frames: Iterator[torch.Tensor], **options: object) -> Path:
    sink = None
    for frame in frames:
        if sink is None:
            size = {"width": frame.shape[2], "height": frame.shape[1]}
            sink = open_sink(path, **size, options=SinkOptions(rate=RATE, **options))
        sink.write(frame)
    assert sink is not None
    sink.finish()
    return path


def page_of(target: Path, *paths: Path, start: int = 0, frames: int | None = None, **request: object) -> Path:
    clips = [open_source(path, start=start, frames=frames) for path in paths]
    make_page(clips, [str(path) for path in paths], PageRequest(target, **request))
    for clip in clips:
        clip.close()
    return target


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = os.environ.get("SEEDVR2_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on the PATH, and SEEDVR2_CHROMIUM names none")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        # Small, and the other one as a browser cannot have it.
        "small": write(folder / "small.mp4", numbered(COUNT), codec="h264", quality=20),
        "large": write(folder / "large.mkv", numbered(COUNT, 2, 0.02), codec="ffv1"),
        "reference": write(folder / "reference.mp4", numbered(COUNT, 2), codec="h264", quality=10),
    }


@pytest.fixture(scope="session")
def clip_page(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from seedvr2_engine.page.data import Mark, Table
    from seedvr2_engine.pipeline.chunks import ChunkPlan

    target = tmp_path_factory.mktemp("page") / "page.html"
    marks = (Mark("shot", 20), Mark("unit", 30))
    tables = (Table("Settings", (("Seed", "42"),)),)
    paths = (clips["small"], clips["large"], clips["reference"])
    return page_of(target, *paths, plan=ChunkPlan(13, 1), marks=marks, tables=tables)
