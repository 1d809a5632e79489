"""From files to pages: what is shown as it is and what is not, sizes, what is refused, and what is left behind."""

import itertools
import json
import re
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from seedvr2_engine.color.hdr import model_signal_from_pq
from seedvr2_engine.errors import InvalidArgumentError, OutputError
from seedvr2_engine.page import making
from seedvr2_engine.page.making import PageRequest, make_page, size_warning
from seedvr2_engine.page.measuring import border_marks, measure
from seedvr2_engine.page.media import MediaMaker, reason_for_proxy
from seedvr2_engine.pipeline.chunks import ChunkPlan
from seedvr2_engine.quality.metrics import psnr, ssim
from seedvr2_engine.video import Orientation, open_sink, open_source
from seedvr2_engine.video.info import Crop
from seedvr2_engine.video.writing.proxy import GROUP_FRAMES, ProxyWriter

from .conftest import numbered, page_of, write


def data_of(page: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text())[1])


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clips") / "short.mp4", numbered(5), codec="h264")


def test_a_clip_that_every_browser_plays_is_shown_as_it_is(short: Path) -> None:
    with open_source(short) as clip:
        info = clip.info
    assert reason_for_proxy(info) is None
    for changes, reason in (
        ({"codec": "hevc"}, "hevc"),
        ({"pix_fmt": "yuv420p10le"}, "yuv420p10le"),
        ({"color": replace(info.color, transfer=16)}, "HDR"),
        ({"variable_rate": True}, "uneven"),
        ({"first_frame": 1}, "a part"),
        ({"selected_frames": 3}, "a part"),
        ({"sample_aspect_ratio": Fraction(4, 3)}, "not square"),
        ({"orientation": Orientation(transpose=True)}, "turned"),
        ({"crop": Crop(left=2)}, "uncut"),
    ):
        assert reason in str(reason_for_proxy(replace(info, **changes)))
    assert "kind of file" in str(reason_for_proxy(replace(info, path=short.with_suffix(".mkv"))))


def test_a_file_that_is_not_what_its_ending_says_is_not_trusted(tmp_path: Path, short: Path) -> None:
    clip = write(tmp_path / "clip.mkv", numbered(3), codec="h264")
    with open_source(clip) as opened:
        info = opened.info
    assert "kind of file" in str(reason_for_proxy(replace(info, path=clip.rename(tmp_path / "clip.mp4"))))


def test_a_proxy_is_close_has_key_frames_near_and_keeps_odd_edges(tmp_path: Path) -> None:
    frames = [frame[:, :, :95] for frame in numbered(30)]
    path = tmp_path / f"proxy{ProxyWriter.suffix()}"
    with ProxyWriter(path, 95, 64, Fraction(25)) as proxy:
        for frame in frames:
            proxy.write(frame)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        keys = [packet.is_keyframe for packet in container.demux(stream) if packet.size]
        assert (stream.width, stream.height, stream.codec_context.name) == (96, 64, "h264")
    places = [index for index, is_key in enumerate(keys) if is_key]
    assert max(later - earlier for earlier, later in itertools.pairwise([*places, len(keys)])) <= GROUP_FRAMES
    with open_source(path) as clip:
        read = [frame.rgb for frame in clip]
        assert not clip.info.variable_rate
        assert clip.info.average_rate == 25
    assert len(read) == 30
    assert min(psnr(frame, known[:, :, :95]) for frame, known in zip(frames, read, strict=True)) > 37


def test_clips_of_two_sizes_are_measured_at_the_larger_one(tmp_path: Path) -> None:
    small, large = list(numbered(4)), list(numbered(4, 2))
    measured = measure([small, large], (128, 192), 4)
    enlarged = torch.nn.functional.interpolate(
        small[2][None], size=(128, 192), mode="bicubic", antialias=True, align_corners=False
    )[0].clamp(0, 1)
    assert measured.frames[2][0].psnr_db == pytest.approx(psnr(enlarged, large[2]))
    assert measured.frames[2][0].ssim == pytest.approx(ssim(enlarged, large[2]))
    assert measured.frames[2][0].flicker is not None
    assert measured.frames[1][0].flicker is None
    assert measured.frames[0][1].change is None
    assert measured.frames[1][1].change == pytest.approx(float((large[1] - large[0]).abs().mean()) * 255)


def test_the_worst_frames_are_the_worst_and_apart() -> None:
    clean = [torch.full((3, 48, 64), 0.5)] * 100
    spoilt = list(clean)
    for frame, error in ((12, 0.3), (13, 0.29), (50, 0.2), (90, 0.1)):
        spoilt[frame] = clean[0] + error
    measured = measure([spoilt, clean], (48, 64), 100)
    assert [worst.frame for worst in measured.worst] == [12, 50, 90]
    assert measured.farthest == 12
    # Against a reference it is B that is looked at.
    measured = measure([clean, spoilt, clean], (48, 64), 100)
    assert [worst.frame for worst in measured.worst] == [12, 50, 90]


def test_chunk_borders_are_marked_with_their_jumps() -> None:
    frames = [torch.full((3, 16, 16), (index % 7) / 10 + (0.2 if index >= 24 else 0)) for index in range(40)]
    plan = ChunkPlan(13, 1)
    measured = measure([frames, frames], (16, 16), 40, plan)
    marks = border_marks(measured, [12, 24, 36])
    assert [mark.frame for mark in marks] == [12, 24, 36]
    assert all(re.fullmatch(r"jump A \d+\.\d\d, B \d+\.\d\d", mark.text) for mark in marks)


def test_prepended_frames_move_the_borders(short: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path / "p.html", short, short, plan=ChunkPlan(5, 1), prepended=2)
    assert [mark["frame"] for mark in data_of(page)["marks"]] == [2]


def test_a_clip_beside_itself_is_equal(short: Path, tmp_path: Path) -> None:
    data = data_of(page_of(tmp_path / "same.html", short, short))
    assert data["summary"]["rows"][0] == ["PSNR, dB", ["equal", ""]]
    assert data["curves"][0]["series"][0]["values"] == ["inf"] * 5
    assert data["worst"] == []
    assert [side["note"] for side in data["sides"]] == ["", ""]


def test_lengths_may_differ(short: Path, tmp_path: Path) -> None:
    longer = write(tmp_path / "longer.mp4", numbered(8), codec="h264")
    data = data_of(page_of(tmp_path / "page.html", longer, short))
    assert data["frames"] == 5
    assert any("first 5 frames" in remark for remark in data["remarks"])
    assert "only a part" in data["sides"][0]["note"]


def test_pictures_have_numbers_and_no_curves(tmp_path: Path) -> None:
    frame = next(numbered(1))
    for name, rgb in (("a.png", frame), ("b.png", (frame + 0.1).clamp(0, 1))):
        with open_sink(tmp_path / name, width=96, height=64) as sink:
            sink.write(rgb)
    data = data_of(page_of(tmp_path / "page.html", tmp_path / "a.png", tmp_path / "b.png"))
    assert (data["frames"], data["rate"], data["curves"], data["worst"]) == (1, None, [], [])
    assert [side["kind"] for side in data["sides"]] == ["image", "image"]
    assert data["summary"]["rows"][0][0] == "PSNR, dB"


def test_what_cannot_be_written_is_refused_before_the_work(short: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.html"
    there.write_text("mine")
    (tmp_path / "new-media").mkdir()
    for request, error, sentence in (
        (PageRequest(tmp_path / "page.txt"), InvalidArgumentError, "ends in .html"),
        (PageRequest(there), OutputError, "exists already"),
        (PageRequest(tmp_path / "none" / "page.html"), OutputError, "folder does not exist"),
        (PageRequest(tmp_path / "new.html", "beside"), OutputError, "new-media"),
        (PageRequest(tmp_path / "new.html", "cloud"), InvalidArgumentError, "embed or beside"),  # type: ignore[arg-type]
    ):
        with pytest.raises(error, match=sentence):
            request.check()
    assert there.read_text() == "mine"


@pytest.mark.parametrize("media", ["embed", "beside"])
def test_nothing_is_left_of_a_page_that_failed(
    short: Path, tmp_path: Path, media: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [open_source(short, frames=3), open_source(short)]

    def broken(*_: object, **__: object):
        yield b"<!doctype"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(making, "document", broken)
    with pytest.raises(OutputError, match="disk is full"):
        make_page(clips, ["a", "b"], PageRequest(tmp_path / "page.html", media))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(short: Path, tmp_path: Path) -> None:
    def stop(index: int) -> None:
        if index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_page(
            [open_source(short, frames=4), open_source(short)], ["a", "b"], PageRequest(tmp_path / "p.html"), stop
        )
    assert list(tmp_path.iterdir()) == []


def test_a_large_page_is_said_to_be_large(short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [open_source(short), open_source(short)]
    assert size_warning(clips, PageRequest(tmp_path / "page.html")) is None
    monkeypatch.setattr(making, "_MUCH_BYTES", 1000)
    assert "--page-media beside" in str(size_warning(clips, PageRequest(tmp_path / "page.html")))
    assert size_warning(clips, PageRequest(tmp_path / "page.html", "beside")) is None


def test_pq_is_shown_on_a_scale_like_sdrs_and_said_so(short: Path, tmp_path: Path) -> None:
    with open_source(short) as clip:
        clip.info = replace(clip.info, color=replace(clip.info.color, transfer=16))
        with MediaMaker(clip, "A", tmp_path) as maker:
            for frame in clip:
                maker.add(torch.full_like(frame.rgb, 0.3))
            media = maker.finish()
    assert "HDR (PQ) on a scale like SDR's" in media.note
    with open_source(media.place) as shown:
        grey = float(next(iter(shown)).rgb[:, 40, 40].mean())
    assert grey == pytest.approx(float(model_signal_from_pq(torch.tensor(0.3))), abs=0.01)
    assert grey < 0.28


def test_a_cut_out_is_of_the_worst_place_and_shows_both() -> None:
    a = torch.full((3, 120, 160), 0.2)
    b, goal = a + 0.3, a + 0.3
    b[:, 96:112, 16:32] = 1.0  # Far from the reference, as all of A is.
    worst = measure([[a] * 3, [b] * 3, [goal] * 3], (120, 160), 3).worst[0]
    picture = torch.from_numpy(np.asarray(Image.open(BytesIO(worst.jpeg)))).float() / 255
    assert picture.shape == (144, 290, 3)
    assert float(picture[:, :140].mean()) == pytest.approx(0.2, abs=0.02)
    assert float(picture[:, 150:].max()) > 0.95
