"""A few interrupted runs, and whether their judge sees faults; run `interrupt` itself for hundreds."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seedvr2_engine.cli.terminal.console import EXIT_UNTOLD

from ...video.made.clips import ramp, write_clip
from . import interrupted_run
from .interrupted_folder import Folder, judge

pytestmark = pytest.mark.skipif(not interrupted_run.is_available(), reason="there are no forks here")

ROOT = Path(__file__).parents[3]
FRAMES = 6


def test_interrupted_runs_lose_nothing() -> None:
    # A process of its own, because its runs are forks of it.
    command = [sys.executable, "-m", "tests.cli.interrupting.interrupt", "--count", "10", "--seed", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "10 interruptions" in result.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mkv", pictures(FRAMES))


def pictures(count: int) -> list[np.ndarray]:
    return [ramp(index, 32, 24) for index in range(count)]


def ended(code: int = 130, stderr: str = "", written: int = 4, at: str = "writing"):
    from .interrupt import Ended

    return Ended(code, "", stderr, written, at, hangs=False)


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures(count), 1):
        Image.fromarray(picture).save(folder / f"{number:06}.png")


def test_a_kept_part_that_is_named_is_right(source: Path, tmp_path: Path) -> None:
    folder = Folder.make(tmp_path, source, "out.mkv", FRAMES, has_old=True)
    write_clip(folder.root / "out.kept.mkv", pictures(4))
    assert judge(folder, "SIGINT", ended(stderr="error: interrupted; what was\nfinished is in out.kept.mkv.")) == (
        [],
        0,
    )


def test_a_whole_result_is_right(source: Path, tmp_path: Path) -> None:
    folder = Folder.make(tmp_path, source, "out.mkv", FRAMES, has_old=True)
    write_clip(folder.target, pictures(FRAMES))
    assert judge(folder, "SIGTERM", ended(143, written=6)) == ([], 0)


@pytest.mark.parametrize("ending", ["no stdout", "terminal", "SIGHUP"])
def test_the_code_for_a_result_that_cannot_be_told_needs_a_result_and_no_standard_output(
    ending: str, source: Path, tmp_path: Path
) -> None:
    folder = Folder.make(tmp_path, source, "out.mkv", FRAMES, has_old=True)
    end = ended(EXIT_UNTOLD, written=0, at="finished")
    found, _ = judge(folder, ending, end)
    assert ("exit 1 without a whole result" in found) == (ending != "SIGHUP")
    write_clip(folder.target, pictures(FRAMES))
    found, _ = judge(folder, ending, end)
    assert bool(found) == (ending == "SIGHUP")


FAULTS: dict[str, Callable[[Folder], object]] = {
    "the input clip.mkv was deleted": lambda folder: folder.source.unlink(),
    "somebody's file out.partial.mkv was changed": lambda folder: write_clip(
        folder.root / "out.partial.mkv", pictures(4)
    ),
    "somebody's file notes.txt was deleted": lambda folder: (folder.root / "notes.txt").unlink(),
    "the old output is gone": lambda folder: folder.target.unlink(),
    "the output has 3 of 6 frames": lambda folder: write_clip(folder.target, pictures(3)),
    "the output has 0 of 6 frames": lambda folder: folder.target.write_bytes(b""),
    "left behind: out.mkv.tmp": lambda folder: (folder.root / "out.mkv.tmp").write_bytes(b"x"),
    "left behind: work.tmp": lambda folder: (folder.root / "work.tmp").mkdir(),
    "1 of 4 frames that were written are lost": lambda folder: write_clip(folder.root / "kept.mkv", pictures(3)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_folder_is_seen(fault: str, source: Path, tmp_path: Path) -> None:
    folder = Folder.make(tmp_path, source, "out.mkv", FRAMES, has_old=True)
    write_clip(folder.root / "kept.mkv", pictures(4))
    FAULTS[fault](folder)
    found, _ = judge(folder, "SIGINT", ended(stderr="what was finished is in kept.mkv."))
    assert found == [fault]


@pytest.mark.parametrize(
    ("end", "fault"),
    [
        (ended(stderr="interrupted."), "kept.mkv holds finished frames and is not named"),
        (ended(1, "is in kept.mkv"), "exit code 1, expected one of"),
        (ended(0, "is in kept.mkv"), "exit 0 without a whole result"),
        (ended(-2, "is in kept.mkv"), "exit code -2, expected one of"),
        (ended(stderr="is in kept.mkv\nTraceback (most recent call last):"), "on standard error: 'Traceback"),
        (ended(stderr="is in kept.mkv")._replace(hangs=True), "it hangs"),
    ],
)
def test_a_fault_of_the_process_is_seen(end, fault: str, source: Path, tmp_path: Path) -> None:
    folder = Folder.make(tmp_path, source, "out.mkv", FRAMES, has_old=True)
    write_clip(folder.root / "kept.mkv", pictures(4))
    (found,), _ = judge(folder, "SIGINT", end)
    assert found.startswith(fault)


def test_a_sequence_is_replaced_as_a_whole(source: Path, tmp_path: Path) -> None:
    folder = Folder.make(tmp_path, source, "out", 50, has_old=True)
    (folder.root / "kept").mkdir()
    write_pictures(folder.root / "kept", 50)
    end = ended(stderr="is in kept", written=50)
    assert judge(folder, "SIGINT", end) == ([], 0)
    write_pictures(folder.target, 30)
    assert judge(folder, "SIGINT", end)[0] == ["the result has 30 new and 10 old pictures of 50"]
    assert judge(folder, "SIGKILL", end._replace(code=-9))[0] == []
    aside = folder.target / "pictures.replaced-0123abcd"
    aside.mkdir()
    (folder.target / "000035.png").rename(aside / "000035.png")
    assert judge(folder, "SIGKILL", end._replace(code=-9))[0] == []
    (aside / "000035.png").unlink()
    assert "the result has 30 new and 9 old pictures of 50" in judge(folder, "SIGKILL", end._replace(code=-9))[0]
    (folder.target / "000999.png").unlink()
    assert "somebody's file out/000999.png was deleted" in judge(folder, "SIGINT", end)[0]
