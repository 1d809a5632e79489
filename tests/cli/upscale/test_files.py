"""`seedvr2 upscale` from file to file: what is carried over, what is said, and what is left when it is stopped."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from seedvr2_engine.cli.terminal import progress
from seedvr2_engine.pipeline.upscaler import Progress
from seedvr2_engine.video import SinkOptions, open_sink, open_source

from ...video.made.clips import packets_of, ramp
from ..test_commands import refused, seedvr2


def test_everything_is_carried_over(clip, models, tmp_path):
    target = tmp_path / "out.mp4"
    options = ["--scale", "2", "--chunk-frames", "5", "--json", "--color", "wavelet"]
    result = seedvr2("upscale", clip, target, *models, *options)
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["frames"] == 7
    assert facts["size"] == [64, 48]
    assert (facts["chunk_frames"], facts["overlap"]) == (5, 1)
    with open_source(clip) as before, open_source(target) as after:
        old, new = before.info, after.info
        assert (new.width, new.height, new.frame_count) == (64, 48, 7)
        assert new.average_rate == old.average_rate == Fraction(30000, 1001)
        assert new.color == old.color
        assert [stream.codec for stream in new.audio] == ["aac"]
        times = [[float(f.pts * info.time_base) for f in s] for s, info in ((before, old), (after, new))]
        assert times[0] == pytest.approx(times[1], abs=0.002)
    assert [bytes(p) for p in packets_of(clip, "audio")] == [bytes(p) for p in packets_of(target, "audio")]


def test_the_summary_names_sizes_speed_and_chunks(clip, models, tmp_path):
    options = ["--scale", "1", "--chunk-frames", "6", "--overlap", "1", "--color", "none"]
    result = seedvr2("upscale", clip, tmp_path / "out.mkv", *models, *options, "--frames", "3", "--start", "2")
    assert result.exit_code == 0, result.stderr
    assert "Chunks have 4n+1 frames: 9 are taken instead of 6." in " ".join(result.stderr.split())
    assert "3 frames, 32x24 to 32x24" in result.stdout
    assert "chunks of 9 frames" in result.stdout
    assert "its own text embedding" in " ".join(result.stderr.split())


def pictures_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("kind", [".mp4", ".mkv", ""])
def test_the_same_bytes_run_after_run(kind, clip, models, tmp_path):
    targets = [tmp_path / f"a{kind}", tmp_path / f"b{kind}"]
    for target in targets:
        options = ["--scale", "2", "--chunk-frames", "5", "--input-noise", "0.2"]
        assert seedvr2("upscale", clip, target, *models, *options).exit_code == 0
    if not kind:
        assert len(pictures_of(targets[0])) == 7
        assert pictures_of(targets[0]) == pictures_of(targets[1])
    else:
        assert targets[0].read_bytes() == targets[1].read_bytes()


def test_offload_changes_no_byte(clip, models, tmp_path):
    options = ["--scale", "2", "--chunk-frames", "5", "--color", "none"]
    for name, offload in (("a.mp4", "none"), ("b.mp4", "blocks")):
        assert seedvr2("upscale", clip, tmp_path / name, *models, *options, "--offload", offload).exit_code == 0
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def write_picture(path: Path, pixels: np.ndarray, pix_fmt: str) -> Path:
    import av

    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("bmp" if path.suffix == ".bmp" else "png", rate=1)
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], pix_fmt
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=pix_fmt)
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return path


@pytest.mark.parametrize(
    ("pix_fmt", "dtype", "channels"),
    [("gray", "u1", 0), ("gray16be", "u2", 0), ("rgb24", "u1", 3), ("rgb48be", "u2", 3), ("rgba", "u1", 4)],
)
def test_pictures_of_every_kind(pix_fmt, dtype, channels, models, tmp_path):
    top = 255 if dtype == "u1" else 65535
    rows, columns = np.mgrid[0:21, 0:30]
    grey = ((rows + columns) / 49 * top).astype(dtype)
    pixels = np.stack([grey] * channels, axis=-1) if channels else grey
    source = write_picture(tmp_path / "in.png", pixels, pix_fmt)
    target = tmp_path / "out.png"
    result = seedvr2("upscale", source, target, *models, "--resolution", "32")
    assert result.exit_code == 0, result.stderr
    with open_source(target) as after:
        assert (after.info.width, after.info.height) == (44, 32)
        assert after.info.has_alpha == (channels == 4)
        assert after.info.bit_depth == (8 if dtype == "u1" else 16)
        picture = next(iter(after)).rgb
    # The gradient from black to white is the source's, whatever the random models made of it.
    assert picture[:, :4, :4].mean() < 0.35
    assert picture[:, -4:, -4:].mean() > 0.65


def test_a_sequence_of_pictures(models, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(3):
        write_picture(folder / f"{index}.png", ramp(index, 32, 24), "rgb24")
    target = tmp_path / "out"
    result = seedvr2("upscale", folder, target, *models, "--scale", "1.5", "--color", "adain")
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in target.iterdir()) == ["0.png", "1.png", "2.png"]


def test_a_rate_is_for_sequences(models, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (7, 9):
        write_picture(folder / f"{number}.png", ramp(number, 32, 24), "rgb24")
    target = tmp_path / "out.mkv"
    result = seedvr2("upscale", folder, target, *models, "--scale", "1", "--color", "none", "--rate", "29.97")
    assert result.exit_code == 0, result.stderr
    with open_source(target) as clip:
        assert [frame.pts * clip.info.time_base for frame in clip] == pytest.approx([0, 1001 / 30000], abs=0.001)
    result = seedvr2("upscale", folder / "7.png", tmp_path / "out.png", *models, "--rate", "25")
    assert result.exit_code == 2
    assert "rate: expected a sequence of pictures" in " ".join(result.stderr.split())


def test_pictures_that_change_their_size_midway(models, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for index, width in enumerate((32, 32, 40)):
        write_picture(folder / f"{index}.png", ramp(index, width, 24), "rgb24")
    assert "expected 32x24" in refused("upscale", folder, tmp_path / "out", *models, "--scale", "1")
    assert not (tmp_path / "out").exists()


def test_photographs_of_a_folder_one_by_one(models, tmp_path):
    folder, target = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name, width in (("a.png", 32), ("b.bmp", 48)):
        write_picture(folder / name, ramp(0, width, 24), "rgb24" if name.endswith("png") else "bgr24")
    assert "--each" in refused("upscale", folder, target, *models, "--scale", "1")
    result = seedvr2("upscale", folder, target, *models, "--scale", "1", "--each")
    assert result.exit_code == 0, result.stderr
    sizes = {}
    for path in target.iterdir():
        with open_source(path) as picture:
            sizes[path.name] = picture.info.width
    assert sizes == {"a.png": 32, "b.png": 48}
    assert "expected a folder for the 2 pictures" in refused("upscale", folder, tmp_path / "x.png", *models, "--each")
    assert "leave it out" in refused("upscale", folder / "a.png", target, *models, "--each")


def test_a_folder_of_clips(clip, models, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.mkv").write_bytes(clip.read_bytes())
    alone = seedvr2("upscale", folder, tmp_path / "alone", *models, "--scale", "1", "--frames", "2")
    assert alone.exit_code == 0, alone.stderr
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["a.mkv"]
    (folder / "b.mkv").write_bytes(clip.read_bytes())
    (folder / "broken.mp4").write_text("no clip")
    target = tmp_path / "out"
    result = seedvr2("upscale", folder, target, *models, "--scale", "1", "--frames", "2")
    assert result.exit_code == 2
    assert sorted(path.name for path in target.iterdir()) == ["a.mkv", "b.mkv"]
    assert "1 of 3 inputs failed; 2 done, 0 skipped." in result.stderr
    assert "expected a folder" in refused("upscale", folder, tmp_path / "out.mp4", *models)
    assert "found 7" in refused("upscale", clip, tmp_path / "out.png", *models)


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_stays_on_one_line(width, monkeypatch):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(progress, "err", console)
    with progress.UpscaleBar("a clip with a long name (2025) [1080p].mp4", 12000) as bar:
        bar.step(Progress("transform", 9000))
        bar.written(8000)
        (line,) = console.render_lines(bar._bar.get_renderable(), pad=False)
    text = "".join(segment.text for segment in line)
    assert "transformer" in text
    assert "8000/12000 frames" in text
    assert "frames/s" in text


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_was_finished_when_it_was_stopped_plays(models, tmp_path, ending):
    long, target = tmp_path / "long.mkv", tmp_path / "out.mkv"
    with open_sink(long, width=32, height=24, options=SinkOptions(codec="ffv1")) as sink:
        for _ in range(400):
            sink.write(torch.rand(3, 24, 32))
    command = [sys.executable, "-m", "seedvr2_engine", "upscale", str(long), str(target), *models, "--scale", "1"]
    command += ["--chunk-frames", "5", "--codec", "ffv1", "--color", "none"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None and not any(p.stat().st_size > 100_000 for p in tmp_path.glob("out.partial-*")):
        time.sleep(0.05)
    process.send_signal(ending)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if ending == signal.SIGKILL else 130), stderr
    assert not target.exists()
    assert "Traceback" not in stderr
    (partial,) = tmp_path.glob("out.partial-*")
    with open_source(partial, damaged="keep") as source:
        assert 1 <= sum(1 for _ in source) < 400
    if ending != signal.SIGKILL:
        assert "what was finished is in" in stderr


def test_a_run_does_not_import_pytorchs_compiler(clip, models, tmp_path):
    """Which some of PyTorch's functions do on the meta device: two to three seconds before the first frame."""
    code = (
        "import sys; from seedvr2_engine.cli import main\n"
        "try: main()\nfinally: print([name for name in ('torch._dynamo', 'torch._inductor') if name in sys.modules])"
    )
    arguments = ["upscale", str(clip), str(tmp_path / "out.mp4"), *models, "--frames", "1", "--scale", "2"]
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
