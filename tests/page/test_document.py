"""The file: what is in it, what its policy allows, and that nothing that anybody named a file can do anything."""

import base64
import hashlib
import json
import re
from fractions import Fraction
from pathlib import Path

import pytest

from seedvr2_engine.page.data import Curve, Mark, Media, PageData, Series, Side, Table, Thumbnail
from seedvr2_engine.page.document import document
from seedvr2_engine.page.script import asset, bundled

from .opening import opened

ROOT = Path(__file__).parent.parent.parent
HOSTILE = """</script><script>document.title = "taken"</script><img src=x onerror="document.title='taken'">'"&.mp4"""
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def page_data(place: Path | str, name: str = "clip.mp4", **changes: object) -> PageData:
    sides = tuple(
        Side(badge, name, (1, 1), Media("image", "image/png", (1, 1), place), ((name, name),)) for badge in "AB"
    )
    return PageData(sides, frames=1, **changes)


def text_of(data: PageData, **options: object) -> str:
    return b"".join(document(data, **options)).decode()


@pytest.fixture
def pixel(tmp_path: Path) -> Path:
    path = tmp_path / "pixel.png"
    path.write_bytes(PIXEL)
    return path


def test_modules_become_one_script_without_imports() -> None:
    script = bundled()
    assert not re.search(r"^\s*(import|export)\b", script, re.MULTILINE)
    names = re.findall(r"^(?:async )?(?:function|const|class) (\w+)", script, re.MULTILINE)
    assert len(names) == len(set(names)), "modules share a scope"
    assert script.index("function make(") < script.index("class Player") < script.index("async function open(")


def test_the_library_is_the_one_that_the_documents_name() -> None:
    known = (ROOT / "docs" / "dependencies.md").read_text()
    for name in ("uPlot.iife.min.js", "uPlot.min.css"):
        assert hashlib.sha256(asset(name).encode()).hexdigest() in known
    assert "MIT" in asset("uPlot.LICENSE")


def test_the_policy_allows_what_is_in_the_file_and_nothing_else(pixel: Path) -> None:
    text = text_of(page_data(pixel))
    policy = dict(
        part.split(" ", 1) for part in re.search(r'content="(default.*?)"', text)[1].replace("&#x27;", "'").split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data: blob:"
    assert policy["media-src"] == "blob:"
    for kind, tag in (("style-src", "style"), ("script-src", 'script type="module"')):
        inside = re.search(rf"<{tag}>(.*?)</{tag.split()[0]}>", text, re.DOTALL)[1]
        assert policy[kind] == f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"
    assert "unsafe" not in "".join(policy.values())
    assert not re.search(r"\son\w+=|style=", asset("body.html")), "the policy forbids both"
    # An app serves media of its own.
    assert "media-src blob: 'self'" in text_of(page_data("/a.mp4"), media_sources="'self'").replace("&#x27;", "'")


def test_beside_its_media_a_page_of_500_frames_is_small(pixel: Path) -> None:
    values = [31.23456789 + index / 7 for index in range(500)]
    curves = tuple(
        Curve(str(index), "dB", "higher", "", (Series("A", values), Series("B", values))) for index in range(5)
    )
    worst = tuple(Thumbnail(frame, "", bytes(20_000)) for frame in range(6))
    text = text_of(page_data(pixel, curves=curves, worst=worst))
    assert len(text) < 500_000


def test_names_are_text_wherever_they_stand(pixel: Path) -> None:
    hostile = page_data(
        pixel,
        HOSTILE,
        remarks=(HOSTILE,),
        tables=(Table(HOSTILE, ((HOSTILE, HOSTILE),)),),
        marks=(Mark("shot", 0, HOSTILE),),
    )
    text = text_of(hostile)
    assert "<script>document" not in text
    assert "<img src=x" not in text
    held = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    assert json.loads(held)["sides"][0]["name"] == HOSTILE
    # Bytes that are no UTF-8, as Python keeps them.
    assert "?.mp4" in text_of(page_data(pixel, "\udcff.mp4"))


def test_a_browser_shows_hostile_names_and_obeys_none(browser, pixel: Path, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    target.write_text(text_of(page_data(pixel, HOSTILE, remarks=(HOSTILE,))))
    page = opened(browser, target)
    assert page.title().endswith(f"and {Path(HOSTILE).name}")
    assert HOSTILE in page.locator("#remarks").inner_text()
    assert page.locator("img").count() == 0
    # Whoever has the page cannot make it load or send anything either.
    blocked = page.evaluate(
        """() => new Promise((done) => {
          document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
          fetch("https://example.org/").catch(() => {});
        })"""
    )
    assert blocked == "connect-src"


def test_large_media_pass_in_pieces(tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    with large.open("wb") as file:
        file.truncate(60_000_001)
    data = page_data(large)
    longest = total = elements = 0
    for piece in document(data):
        longest, total = max(longest, len(piece)), total + len(piece)
        elements += piece.startswith(b'<script type="text/plain" data-media="A"')
    assert longest < 5_000_000
    assert total > 2 * 80_000_000
    assert elements == 3


def test_numbers_that_json_has_not(pixel: Path) -> None:
    curve = Curve("PSNR", "dB", "higher", "", (Series("A", [float("inf"), None, float("nan"), 30.123456]),))
    text = text_of(page_data(pixel, curves=(curve,), rate=Fraction(30000, 1001)))
    held = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert held["curves"][0]["series"][0]["values"] == ["inf", None, None, 30.123]
    assert held["rate"] == pytest.approx(29.97, abs=0.001)
