"""However a job ends, its finished frames are kept and named; with models that take no time."""

import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer

from seedvr2_engine.cli.terminal import console, interruption, streams
from seedvr2_engine.cli.upscaling import files
from seedvr2_engine.cli.upscaling.files import Job, Request, run_job
from seedvr2_engine.cli.upscaling.jobs import run_jobs
from seedvr2_engine.errors import DeviceMemoryError, ModelFileError, OutputError, VideoError
from seedvr2_engine.jobs.cut import Cut
from seedvr2_engine.pipeline.options import UpscaleOptions
from seedvr2_engine.pipeline.upscaler import Progress
from seedvr2_engine.video import SinkOptions, open_sink, open_source
from seedvr2_engine.video.writing.clip_writer import VideoSink

FRAMES = 12


class Models:
    """Gives every frame back; before frame number `at`, `happening` happens in the computing thread."""

    def __init__(self, at=None, happening=lambda: None) -> None:
        self.at, self.happening = at, happening
        self.vae = SimpleNamespace(device=torch.device("cpu"))

    def plan(self, *_):
        division = SimpleNamespace(chunks=SimpleNamespace(chunk_frames=5, overlap=0))
        return SimpleNamespace(division=division, memory=SimpleNamespace(peak_bytes=3_000_000), engine_bytes=None)

    def upscale(self, pictures, step, transfer=None, encoded=None):
        for index, picture in enumerate(pictures):
            if index == self.at:
                self.happening()
            step(Progress("decode", index + 1))
            picture = picture if isinstance(picture, torch.Tensor) else picture.on("cpu")
            yield picture if encoded is None else encoded(picture)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    with open_sink(path, width=32, height=24, options=SinkOptions(codec="ffv1")) as sink:
        for index in range(FRAMES):
            sink.write(torch.full((3, 24, 32), index / FRAMES))
    return path


@pytest.fixture(autouse=True)
def requests_to_end_are_keyboard_interrupts():
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


def request_of(load, **options) -> Request:
    """What a command asks for; `load` gives the models."""
    setup = SimpleNamespace(load=lambda _: load(), formats=SimpleNamespace(device=torch.device("cpu")))
    return Request(setup, UpscaleOptions(scale=1), SinkOptions(**options), Cut())


def job(clip, target, models=None, **options):
    return run_job(Job(str(clip), target), request_of(lambda: models or Models(), **options))


def kept_in(folder: Path) -> Path:
    (kept,) = (path for path in folder.iterdir() if ".partial-" in path.name)
    return kept


def count(path: Path) -> int:
    with open_source(path) as source:
        return sum(1 for _ in source)


def raising(error):
    def happening():
        raise error

    return happening


@pytest.mark.parametrize("name", ["o.mp4", "o.mov", "o.mkv", "o.webm", "frames"])
@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (VideoError("the clip is damaged."), VideoError),
        (RuntimeError("odd"), RuntimeError),
        (MemoryError(), DeviceMemoryError),
        (OSError(5, "x"), OSError),
    ],
)
def test_an_error_of_any_class_keeps_what_is_finished(clip, tmp_path, capsys, name, error, becomes):
    with pytest.raises(becomes):
        job(clip, tmp_path / name, Models(9, raising(error)))
    kept = kept_in(tmp_path)
    assert count(kept) == 9
    assert f"what was finished, 9 frames, is in {kept}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 3])
def test_an_interruption_keeps_what_is_finished(clip, tmp_path, capsys, number, times):
    def happening():
        for _ in range(times):
            os.kill(os.getpid(), number)
        time.sleep(0.1)

    with pytest.raises(typer.Exit) as ending:
        job(clip, tmp_path / "o.mp4", Models(9, happening))
    assert ending.value.exit_code == 130
    kept = kept_in(tmp_path)
    assert count(kept) == 9  # Also those that were waiting to be written.
    assert f"interrupted; what was finished is in {kept}" in capsys.readouterr().err


def test_a_long_step_does_not_keep_finished_frames_waiting(clip, tmp_path, capsys):
    """A step can take minutes, and a system that shuts down waits for seconds."""
    kept_first = []

    def happening():
        signal.raise_signal(signal.SIGINT)
        for _ in range(200):
            time.sleep(0.02)
            if "interrupted" in capsys.readouterr().err:
                kept_first.append(count(kept_in(tmp_path)))
                return

    with pytest.raises(typer.Exit):
        job(clip, tmp_path / "o.mp4", Models(6, happening))
    assert kept_first == [6]


@pytest.mark.parametrize("name", ["o.mp4", "o.mkv", "frames"])
def test_an_interruption_while_finishing_waits_for_it(clip, tmp_path, capsys, monkeypatch, name):
    normal = os.fsync

    def fsync(number):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        normal(number)

    monkeypatch.setattr(VideoSink, "_release", lambda self: signal.raise_signal(signal.SIGINT))
    if name != "frames":  # There every picture is flushed.
        monkeypatch.setattr(os, "fsync", fsync)
    else:
        monkeypatch.setattr(Path, "rename", lambda a, b: (signal.raise_signal(signal.SIGINT), os.rename(a, b)))  # noqa: PTH104
    with pytest.raises(typer.Exit) as ending:
        job(clip, tmp_path / name)
    assert ending.value.exit_code == 130
    assert f"{name} is finished" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert count(tmp_path / name) == FRAMES


def test_an_interruption_while_models_load_leaves_nothing(clip, tmp_path, capsys):
    request = request_of(lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(typer.Exit):
        run_job(Job(str(clip), tmp_path / "o.mp4"), request)
    assert "nothing was finished" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_put_in_place_is_named(clip, tmp_path, capsys):
    target = tmp_path / "o.mp4"
    with pytest.raises(OutputError, match="in the meantime"):
        job(clip, target, Models(5, lambda: target.write_bytes(b"theirs")))
    kept = kept_in(tmp_path)
    assert count(kept) == FRAMES
    assert f"{FRAMES} frames, is in {kept}" in capsys.readouterr().err
    assert target.read_bytes() == b"theirs"


def test_an_error_is_shown_and_not_what_closing_the_source_says(clip, tmp_path, monkeypatch):
    """The reading thread may be in the midst of a frame when the source is closed."""
    from seedvr2_engine.video.reading import clip_frames

    normal = clip_frames.codes_of
    slow = threading.Event()

    def codes_of(*arguments, **options):
        if slow.is_set():
            time.sleep(0.2)
        return normal(*arguments, **options)

    monkeypatch.setattr(clip_frames, "codes_of", codes_of)

    def happening():
        slow.set()
        time.sleep(0.05)
        raise VideoError("the real error")

    with pytest.raises(VideoError, match="the real error"):
        job(clip, tmp_path / "o.mkv", Models(1, happening))


class Gone(io.StringIO):
    """A terminal that was closed, or a log on a full disk."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code

    def write(self, text) -> int:
        raise OSError(self.code, os.strerror(self.code))

    def flush(self) -> None:
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF])
def test_standard_error_may_go_away(clip, tmp_path, monkeypatch, code):
    monkeypatch.setattr(sys, "stderr", Gone(code))
    job(clip, tmp_path / "o.mp4")
    assert count(tmp_path / "o.mp4") == FRAMES
    monkeypatch.setattr(sys, "stderr", None)
    job(clip, tmp_path / "p.mp4")
    assert count(tmp_path / "p.mp4") == FRAMES


def test_a_result_that_nobody_takes_keeps_no_other_job_from_running(clip, tmp_path, monkeypatch):
    jobs = [Job(str(clip), tmp_path / name) for name in ("o.mp4", "p.mp4")]
    request = request_of(Models)
    monkeypatch.setattr(sys, "stdout", Gone(errno.EPIPE))
    with pytest.raises(typer.Exit) as ending:
        run_jobs(jobs, request, as_json=False)
    assert ending.value.exit_code == console.EXIT_UNTOLD
    assert [count(job.target) for job in jobs] == [FRAMES] * 2


def test_what_is_known_at_the_start_is_said_before_the_models_load(clip, tmp_path, capsys):
    said = []

    def load():
        said.append(capsys.readouterr().err)
        return Models()

    deep = tmp_path / "deep.mkv"
    with open_sink(deep, width=32, height=24, options=SinkOptions(codec="ffv1", bit_depth=16)) as sink:
        sink.write(torch.zeros(3, 24, 32))
    run_job(Job(str(deep), tmp_path / "o.mp4"), request_of(load))
    assert "16 bits per sample" in said[0]
    assert "16 bits" not in capsys.readouterr().err


def test_the_first_request_ends_the_command_and_later_ones_change_nothing(monkeypatch):
    left = []
    monkeypatch.setattr(interruption.os, "_exit", left.append)
    monkeypatch.setattr(interruption._State, "was_interrupted", False)
    with pytest.raises(KeyboardInterrupt):
        interruption._interrupt(signal.SIGINT, None)
    interruption._interrupt(signal.SIGINT, None)
    assert left == []
    with interruption.waiting():
        interruption._interrupt(signal.SIGINT, None)
    assert left == [130]


@pytest.mark.skipif(sys.platform == "win32", reason="closes POSIX descriptors")
def test_closed_standard_streams_are_filled():
    """Or the next file that is opened gets their numbers, and what libraries say is written into it."""
    code = (
        "import os; from seedvr2_engine.cli.terminal.streams import fill_closed_streams as f; f(); os.write(2, b'x'); "
    )
    code += "n = os.open('/dev/null', os.O_RDONLY); raise SystemExit(n)"
    command = ["sh", "-c", f'exec "{sys.executable}" -c "{code}" <&- >&- 2>&-']
    assert subprocess.run(command, check=False).returncode >= 3


DURING_IMPORTS = """
class Finder:
    def find_spec(self, name, *_):
        if name == "typer":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""
BEFORE_THE_COMMAND = """
from seedvr2_engine.cli import app
app._keep_memory_steady = lambda: signal.raise_signal(signal.SIGINT)
"""
WHILE_IT_IS_BUILT = """
import typer.main
typer.main.get_command = lambda *_: signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize("moment", [DURING_IMPORTS, BEFORE_THE_COMMAND, WHILE_IT_IS_BUILT])
def test_ctrl_c_before_the_command_begins_is_no_traceback(moment):
    code = f"import signal, sys\n{moment}\nfrom seedvr2_engine.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (console.EXIT_INTERRUPTED, "error: interrupted.\n")


@pytest.mark.parametrize("moment", [DURING_IMPORTS, BEFORE_THE_COMMAND, WHILE_IT_IS_BUILT])
def test_a_terminal_that_closes_before_the_command_begins_is_an_interruption(moment):
    gone, stderr = os.pipe()
    os.close(gone)
    code = f"import signal, sys\n{moment}\nfrom seedvr2_engine.cli import main\nmain()"
    with os.fdopen(stderr, "wb") as nobody:
        done = subprocess.run([sys.executable, "-c", code], check=False, stdout=nobody, stderr=nobody)
    assert done.returncode == console.EXIT_INTERRUPTED


def test_names_that_are_no_text_can_be_said(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    with contextlib.suppress(OSError):
        streams.fill_closed_streams()
    print("a\udcff.mp4", file=stream, flush=True)
    assert stream.buffer.getvalue() == b"a\\udcff.mp4\n"


def test_the_first_frames_are_read_while_the_models_load(clip, tmp_path, monkeypatch):
    read = threading.Event()
    pictures = files._pictures

    def told(*arguments):
        for picture in pictures(*arguments):
            read.set()
            yield picture

    monkeypatch.setattr(files, "_pictures", told)

    def load():
        assert read.wait(20)
        return Models()

    run_job(Job(str(clip), tmp_path / "o.mp4"), request_of(load))
    assert count(tmp_path / "o.mp4") == FRAMES


def test_models_that_do_not_load_leave_nothing(clip, tmp_path):
    with pytest.raises(ModelFileError):
        run_job(Job(str(clip), tmp_path / "o.mp4"), request_of(raising(ModelFileError("there is none."))))
    assert list(tmp_path.iterdir()) == []
    assert not any(thread.name == "reading" for thread in threading.enumerate())


def test_a_request_that_comes_while_an_object_is_taken_apart_is_not_lost():
    """Python drops what is raised there, and later requests change nothing."""
    code = (
        "import os, signal, time\n"
        "from seedvr2_engine.cli.terminal.interruption import keep_what_is_finished\n"
        "keep_what_is_finished()\n"
        "class Taken:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGHUP); time.sleep(0.01)\n"
        "try:\n"
        "    del_me = Taken(); del del_me\n"
        "    time.sleep(5)\n"
        "except KeyboardInterrupt:\n"
        "    raise SystemExit(77)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (77, "")
