"""That a page shows the frame that was asked for, in all its clips at once: read back from the pixels."""

import json
import re
from fractions import Fraction
from io import BytesIO

import av
import pytest
from PIL import Image

from .conftest import BITS, COUNT, page_of
from .conftest import numbered as numbered_frames
from .opening import opened

# The number in the blocks of a picture: their middles, one row.
_NUMBERS = """
() => { window.numbers = () => comparePage.player.pictures().map((picture) => {
  const edge = picture.width / 6, context = picture.getContext("2d");
  let number = 0;
  for (let bit = 0; bit < BITS; bit++) {
    const [red, green, blue] = context.getImageData(edge * (bit + 0.5), edge / 2, 1, 1).data;
    if (red + green + blue > 384) number |= 1 << bit;
  }
  return number;
}); }
""".replace("BITS", str(BITS))


def numbered(page):
    page.evaluate(_NUMBERS)
    return page


@pytest.fixture(scope="module")
def page(browser, clip_page):
    return numbered(opened(browser, clip_page))


def test_every_frame_that_is_asked_for_is_shown_in_both(page):
    wanted = [*range(COUNT), *((number * 17) % COUNT for number in range(COUNT)), 39, 0, 12, 11, 12, 13]
    shown = page.evaluate(
        """async (wanted) => {
          const shown = [];
          for (const frame of wanted) { await comparePage.player.seek(frame); shown.push(numbers()); }
          return shown;
        }""",
        wanted,
    )
    assert shown == [[frame, frame] for frame in wanted]
    assert page.errors == []


def test_of_many_wishes_at_once_the_last_is_shown(page):
    shown = page.evaluate(
        """async () => {
          const wishes = [5, 30, 2, 17, 33, 8].map((frame) => comparePage.player.seek(frame));
          await Promise.all(wishes);
          return [comparePage.player.frame, ...numbers()];
        }"""
    )
    assert shown == [8, 8, 8]


def test_both_stay_in_step_while_they_play(page):
    seen = page.evaluate(
        """async () => {
          const { player } = comparePage, seen = [];
          player.isLooping = false;
          await player.seek(0);
          player.onChange(() => seen.push([player.frame, ...numbers()]));
          const ended = new Promise((done) => player.onChange(() => !player.isPlaying && seen.length > 2 && done()));
          await player.play();
          await ended;
          player.isLooping = true;
          return seen;
        }"""
    )
    assert len(seen) > 5
    assert all(frame == a == b for frame, a, b in seen), seen
    frames = [frame for frame, *_ in seen]
    assert frames == sorted(frames)
    assert frames[-1] == COUNT - 1


def test_a_frame_counts_when_both_have_it_and_who_is_ahead_waits(page):
    shown = page.evaluate(
        """() => {
          const did = [];
          const track = (name, frames) => ({
            latest: Math.max(...frames),
            picture: (frame) => (frames.includes(frame) ? {} : null),
            hold: () => did.push(`${name} waits`),
            resume: () => did.push(`${name} goes on`),
          });
          const playing = (a, b) => {
            const player = Object.create(comparePage.player);
            Object.assign(player, { isPlaying: true, frame: 3, listeners: [], pair: [0, 1] });
            player.tracks = [track("A", a), track("B", b)];
            player.advance();
            return player.frame;
          };
          return [playing([4, 6], [4, 5]), playing([4, 5, 9], [4, 5, 6]), playing([3, 5], [4, 6]), did];
        }"""
    )
    assert shown[:3] == [4, 5, 3]
    assert shown[3] == ["B goes on", "A waits", "B goes on", "A goes on"]


def test_a_machine_that_cannot_keep_up_shows_fewer_frames_but_the_same_in_both(page):
    seen = page.evaluate(
        """async () => {
          const { player } = comparePage, seen = [];
          player.isLooping = false;
          await player.seek(10);
          player.onChange(() => seen.push([player.frame, ...numbers()]));
          await player.play();
          await player.stepOn();
          player.isLooping = true;
          return [player.isPlaying, seen];
        }"""
    )
    assert seen[0] is False
    assert all(frame == a == b for frame, a, b in seen[1])
    assert seen[1][-1][0] == COUNT - 1


def test_it_stops_at_the_frame_that_it_says(page):
    shown = page.evaluate(
        """async () => {
          const { player } = comparePage;
          await player.seek(3);
          await player.play();
          while (player.frame < 9) await new Promise((done) => setTimeout(done, 5));
          await player.pause();
          return [player.frame, ...numbers()];
        }"""
    )
    assert shown[0] == shown[1] == shown[2]


def test_the_reference_takes_the_place_of_either(page):
    for pair in ([0, 2], [1, 2], [0, 1]):
        shown = page.evaluate(
            """async (pair) => {
              await comparePage.player.setPair(pair);
              await comparePage.player.seek(21);
              return numbers();
            }""",
            pair,
        )
        assert shown == [21, 21]


def test_a_part_of_the_frames_is_that_part(browser, clips, tmp_path):
    target = page_of(tmp_path / "part.html", clips["small"], clips["large"], start=10, frames=7)
    page = numbered(opened(browser, target))
    shown = page.evaluate("async () => { await comparePage.player.seek(4); return numbers(); }")
    assert shown == [14, 14]
    assert page.locator("#number").input_value() == "14"
    assert page.evaluate("comparePage.data.frames") == 7


@pytest.mark.parametrize("ending", ["mp4", "webm"])
def test_a_clip_that_begins_late_is_shown_frame_by_frame_too(browser, clips, tmp_path, ending):
    path = tmp_path / f"late.{ending}"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264" if ending == "mp4" else "libvpx-vp9", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number, rgb in enumerate(numbered_frames(12)):
            frame = av.VideoFrame.from_ndarray((rgb.permute(1, 2, 0) * 255).byte().numpy(), format="rgb24")
            frame.pts, frame.time_base = number + 7, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    target = page_of(tmp_path / "late.html", path, clips["small"], frames=12)
    data = json.loads(re.search(r'id="data">(.*?)</script>', target.read_text())[1])
    assert data["sides"][0]["note"] == ""
    page = numbered(opened(browser, target))
    shown = page.evaluate(
        """async () => {
          const shown = [];
          for (const frame of [0, 1, 11, 5, 6, 2]) { await comparePage.player.seek(frame); shown.push(numbers()); }
          return shown;
        }"""
    )
    assert shown == [[frame, frame] for frame in (0, 1, 11, 5, 6, 2)]


def test_media_beside_the_page_play_too(browser, clips, tmp_path):
    target = page_of(tmp_path / "long #1.html", clips["small"], clips["large"], media="beside")
    assert sorted(path.name for path in (tmp_path / "long #1-media").iterdir()) == ["a.mp4", "b.mp4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long #1-media", "long #1.html"]
    page = numbered(opened(browser, target))
    page.evaluate("async () => { await comparePage.player.seek(37); }")
    # The page may not read files beside it. Left of the wipe are three blocks of A, right of it three of B.
    x, y, scale = page.evaluate(
        "() => { const { stage } = comparePage; return [...stage.corner(stage.panes[0]), stage.scale]; }"
    )
    page.wait_for_timeout(200)
    shot = Image.open(BytesIO(page.locator("#canvas").screenshot()))
    middles = [(round(x + scale * 32 * (bit + 0.5)), round(y + scale * 16)) for bit in range(BITS)]
    assert sum((sum(shot.getpixel(middle)[:3]) > 384) << bit for bit, middle in enumerate(middles)) == 37
    page.keyboard.press("l")
    assert "not readable" in page.locator("#probe").inner_text()
    assert page.errors == []
