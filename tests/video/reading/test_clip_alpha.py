"""Alpha of clips, in and out: what the codec and the container hold is kept as it is, the rest is said."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from seedvr2_engine.video import SinkOptions, open_sink, open_source

from ..made.clips import ClipSpec, ramp, rgb_frame, write_clip

WIDTH, HEIGHT = 64, 48


def alpha_of(index: int) -> np.ndarray:
    """(H,W) uint8: a soft disc on its way over the picture, none and full opacity included."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    distance = np.hypot(y - 24, x - 20 - 3 * index)
    return np.clip(255 - 12 * (distance - 8), 0, 255).astype(np.uint8)


def frames_with_alpha(count: int, pix_fmt: str) -> list[av.VideoFrame]:
    pictures = [np.dstack([ramp(index, WIDTH, HEIGHT), alpha_of(index)]) for index in range(count)]
    frames = [av.VideoFrame.from_ndarray(picture, "rgba") for picture in pictures]
    return [frame if pix_fmt == "rgba" else frame.reformat(format=pix_fmt, threads=1) for frame in frames]


def write_alpha(path, codec: str, pix_fmt: str, options: dict[str, str], count: int = 6):
    spec = ClipSpec(codec=codec, pix_fmt=pix_fmt, rate=Fraction(25), options=options)
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg build has no {codec}")
    if not codec.startswith("libvpx"):
        return write_clip(path, frames_with_alpha(count, pix_fmt), spec)
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        # The muxer turns the tag into the track's AlphaMode, by which players know.
        stream.metadata["alpha_mode"] = "1"
        for index, frame in enumerate(frames_with_alpha(count, pix_fmt)):
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


VPX = {"b": "0", "crf": "10", "auto-alt-ref": "0", "cpu-used": "8", "deadline": "realtime"}
SOURCES = [
    ("a.webm", "libvpx-vp9", "yuva420p", VPX, 0.02),
    ("a.webm", "libvpx", "yuva420p", VPX | {"b": "2M"}, 0.02),
    ("a.mkv", "libvpx-vp9", "yuva420p", VPX, 0.02),
    ("a.mov", "prores_ks", "yuva444p10le", {"profile": "4444"}, 0.001),
    ("a.mkv", "ffv1", "yuva420p", {}, 0.002),
    ("a.mkv", "ffv1", "bgra", {}, 0.0),
    ("a.mov", "png", "rgba", {}, 0.0),
    ("a.mov", "qtrle", "argb", {}, 0.0),
    ("a.avi", "utvideo", "gbrap", {}, 0.0),
]


@pytest.mark.parametrize(("name", "codec", "pix_fmt", "options", "loss"), SOURCES)
def test_alpha_is_read(tmp_path, name, codec, pix_fmt, options, loss):
    with open_source(write_alpha(tmp_path / name, codec, pix_fmt, options)) as source:
        frames = list(source)
        info = source.info
    assert info.has_alpha
    assert len(frames) == info.frame_count == 6
    assert [frame.pts * info.time_base for frame in frames] == [Fraction(index, 25) for index in range(6)]
    for index, frame in enumerate(frames):
        assert frame.alpha is not None
        assert frame.alpha.shape == (1, HEIGHT, WIDTH)
        difference = (frame.alpha[0] - torch.from_numpy(alpha_of(index)) / 255).abs()
        assert float(difference.mean()) <= loss + 1e-6


@pytest.mark.parametrize(("start", "count"), [(0, 2), (3, None), (2, 3)])
def test_a_cut_of_a_clip_with_hidden_alpha(tmp_path, start, count):
    path = write_alpha(tmp_path / "a.webm", "libvpx-vp9", "yuva420p", VPX)
    with open_source(path, start=start, frames=count) as source:
        for index, frame in enumerate(source, start):
            assert frame.alpha is not None
            assert float((frame.alpha[0] - torch.from_numpy(alpha_of(index)) / 255).abs().mean()) < 0.02
        assert source.warnings == []


def test_vp9_without_alpha_stays_opaque(tmp_path):
    path = write_clip(tmp_path / "a.webm", [ramp(i) for i in range(4)], ClipSpec(codec="libvpx-vp9", pix_fmt="yuv420p"))
    with open_source(path) as source:
        assert not source.info.has_alpha
        assert all(frame.alpha is None for frame in source)


def copied(path, target, **options):
    with open_source(path) as source:
        size = {"width": source.info.width, "height": source.info.height}
        with open_sink(target, source=source.info, options=SinkOptions(**options), **size) as sink:
            for frame in source:
                sink.write(frame.rgb, alpha=frame.alpha, pts=frame.pts, duration=frame.duration)
    return sink.warnings


@pytest.mark.parametrize(
    ("name", "codec", "loss"),
    [("b.webm", "auto", 0.01), ("b.mkv", "vp9", 0.01), ("b.mov", "prores", 0.001), ("b.mkv", "ffv1", 0.0)],
)
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (WIDTH - 1, HEIGHT - 1)])
def test_alpha_is_kept(tmp_path, name, codec, loss, size):
    if codec == "prores" and size[0] % 2:
        pytest.skip("FFV1 sources of odd size say so elsewhere")
    pictures = [frame.reformat(format="bgra", threads=1) for frame in frames_with_alpha(6, "rgba")]
    arrays = [np.ascontiguousarray(p.to_ndarray()[: size[1], : size[0]]) for p in pictures]
    frames = [av.VideoFrame.from_ndarray(a, "bgra") for a in arrays]
    path = write_clip(tmp_path / "a.mkv", frames, ClipSpec(pix_fmt="bgra"))
    assert copied(path, tmp_path / name, codec=codec) == []
    with open_source(tmp_path / name) as source:
        assert source.info.has_alpha
        frames = list(source)
    assert len(frames) == 6
    for index, frame in enumerate(frames):
        expected = torch.from_numpy(alpha_of(index)[: size[1], : size[0]]) / 255
        assert float((frame.alpha[0] - expected).abs().mean()) <= loss + 1e-6


def test_the_file_itself_says_that_it_has_alpha(tmp_path):
    path = write_clip(tmp_path / "a.mkv", frames_with_alpha(4, "bgra"), ClipSpec(pix_fmt="bgra"))
    copied(path, tmp_path / "b.webm")
    # AlphaMode of a Matroska track, RFC 9559, 5.1.4.1.28.5, with one byte or more for its length.
    data = (tmp_path / "b.webm").read_bytes()
    at = data.index(b"\x53\xc0")
    assert data[at + 2] in (0x81, 0x84)
    with av.open(str(tmp_path / "b.webm")) as container:
        assert container.streams.video[0].metadata["alpha_mode"] == "1"


@pytest.mark.parametrize(("name", "codec"), [("b.mp4", "vp9"), ("b.mp4", "h264"), ("b.mov", "h264"), ("b.mkv", "h265")])
def test_alpha_that_cannot_be_kept_is_said(tmp_path, name, codec):
    path = write_clip(tmp_path / "a.mkv", frames_with_alpha(4, "bgra"), ClipSpec(pix_fmt="bgra"))
    with (
        open_source(path) as source,
        open_sink(
            tmp_path / name, width=WIDTH, height=HEIGHT, source=source.info, options=SinkOptions(codec=codec)
        ) as sink,
    ):
        assert any("alpha" in sentence for sentence in sink.warnings)
        for frame in source:
            sink.write(frame.rgb, alpha=frame.alpha, pts=frame.pts, duration=frame.duration)
    with open_source(tmp_path / name) as source:
        assert not source.info.has_alpha


def test_a_palette_without_transparency_is_no_alpha(tmp_path):
    """A grey QuickTime animation decodes to a palette of opaque greys."""
    clip = write_clip(
        tmp_path / "a.mov", [rgb_frame(ramp(index), "gray") for index in range(3)], ClipSpec("qtrle", "gray")
    )
    with open_source(clip) as source:
        assert (source.info.pix_fmt, source.info.has_alpha) == ("pal8", False)
        assert all(frame.alpha is None for frame in source)
        with open_sink(tmp_path / "b.mp4", width=64, height=48, source=source.info) as sink:
            sink.write(torch.rand(3, 48, 64))
    assert list(sink.warnings) == []
