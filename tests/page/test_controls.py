"""Every control of the page by mouse and by keyboard, on a desk and on a phone."""

import re
from pathlib import Path

import pytest
import torch

from seedvr2_engine.pipeline.resize import resample

from .conftest import COUNT
from .opening import SIZES, opened


@pytest.fixture(scope="module", params=SIZES)
def page(request, browser, clip_page):
    page = opened(browser, clip_page, request.param)
    yield page
    assert page.errors == []
    page.context.close()


@pytest.fixture(autouse=True)
def begun(page):
    """Every test begins with the wipe, at frame 0, and all of the picture."""
    page.evaluate(
        """async () => {
          const { player } = comparePage;
          await player.pause();
          document.activeElement.blur();
          for (const choice of ["input[name=view]", "input[name=pair]"]) document.querySelector(choice).click();
          document.getElementById("fit").click();
          if (comparePage.stage.loupe) document.getElementById("loupe").click();
          await player.seek(0);
        }"""
    )


def state(page, expression: str):
    return page.evaluate(f"comparePage.{expression}")


def frame_becomes(page, frame: int) -> None:
    page.wait_for_function("(frame) => comparePage.player.frame === frame", arg=frame, timeout=10_000)


def press(page, name: str) -> None:
    page.locator(f"#{name}").click()


def choose(page, group: str, value: str) -> None:
    page.locator(f"#{group} label:has(input[value='{value}'])").click()


def pixels(page) -> bytes:
    page.wait_for_timeout(60)
    return page.locator("#canvas").screenshot()


def test_views_differ_and_say_what_they_are(page):
    seen = {}
    for mode, chips in (
        ("side", ["A", "B · proxy"]),
        ("difference", ["|A − B| × 4"]),
        ("flicker", ["A"]),
        ("wipe", ["A", "B · proxy"]),
    ):
        choose(page, "view", mode)
        if mode == "flicker":
            choose(page, "tempo", "0")
        assert state(page, "stage.mode") == mode
        assert [chip.inner_text() for chip in page.locator(".chip:visible").all()] == chips
        seen[mode] = pixels(page)
    assert len(set(seen.values())) == 4


def test_views_by_keyboard(page):
    for key, mode in zip("2341", ("side", "difference", "flicker", "wipe"), strict=True):
        page.keyboard.press(key)
        assert state(page, "stage.mode") == mode
    page.locator("#view input[value=wipe]").focus()
    page.keyboard.press("ArrowRight")
    assert state(page, "stage.mode") == "side"


def test_gain_brightens_the_difference(page):
    choose(page, "view", "difference")
    light = []
    for gain in ("1", "2", "4", "8", "16"):
        choose(page, "gain", gain)
        page.wait_for_timeout(80)
        light.append(
            page.evaluate(
                """() => {
                  const { width, height } = comparePage.stage.canvas, context = comparePage.stage.context;
                  return context.getImageData(0, 0, width, height).data.reduce((sum, value) => sum + value, 0);
                }"""
            )
        )
    assert light == sorted(light)
    assert light[0] < light[-1]
    page.keyboard.press("g")
    assert state(page, "stage.gain") == 1


def test_flicker_turns_by_itself_or_by_hand(page):
    choose(page, "view", "flicker")
    for tempo in ("1", "2", "3"):
        choose(page, "tempo", tempo)
    before = state(page, "stage.isFlipped")
    page.wait_for_function("(before) => comparePage.stage.isFlipped !== before", arg=before)
    choose(page, "tempo", "0")
    before = state(page, "stage.isFlipped")
    press(page, "flip")
    assert state(page, "stage.isFlipped") != before
    page.keyboard.press("x")
    assert state(page, "stage.isFlipped") == before


def test_pairs(page):
    for pair, indices in (("1", [0, 2]), ("2", [1, 2]), ("0", [0, 1])):
        choose(page, "pair", pair)
        page.wait_for_function("(pair) => String(comparePage.player.pair) === pair", arg=",".join(map(str, indices)))


def test_enlarging_by_nearest_leaves_pixels_and_bicubic_is_pythons(page):
    choose(page, "scaling", "nearest")
    page.keyboard.press("+")
    nearest = pixels(page)
    choose(page, "scaling", "bicubic")
    assert pixels(page) != nearest
    page.keyboard.press("n")
    assert state(page, "stage.scaling") == "nearest"
    page.keyboard.press("n")
    page.wait_for_function("() => comparePage.stage.exact.get('A')?.frame === comparePage.player.frame")
    small, large = page.evaluate(
        """() => [comparePage.player.pictures()[0], comparePage.stage.exact.get("A").canvas].map((picture) =>
          [...picture.getContext("2d").getImageData(0, 0, picture.width, picture.height).data])"""
    )
    own = torch.tensor(small).reshape(64, 96, 4)[..., :3].permute(2, 0, 1) / 255
    ours = (resample(own[None], (128, 192))[0].clamp(0, 1) * 255).round()
    theirs = torch.tensor(large).reshape(128, 192, 4)[..., :3].permute(2, 0, 1)
    assert float((ours - theirs).abs().max()) <= 1


def test_two_fingers_zoom_and_one_wipes(page):
    touch = page.context.new_cdp_session(page)
    box = page.locator("#stage").bounding_box()

    def fingers(kind: str, *places: float) -> None:
        points = [{"x": box["x"] + x, "y": box["y"] + 90, "id": index} for index, x in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    width = box["width"]
    fingers("touchStart", width / 2)
    for part in (0.55, 0.6, 0.7):
        fingers("touchMove", width * part)
    fingers("touchEnd")
    assert state(page, "stage.wipe") == pytest.approx(0.7, abs=0.03)
    before = state(page, "stage.scale")
    fingers("touchStart", 100)
    fingers("touchStart", 100, 150)
    for apart in (70, 100, 150):
        fingers("touchMove", 100, 100 + apart)
    fingers("touchEnd")
    assert state(page, "stage.zoom") == pytest.approx(before * 3, rel=0.05)


def test_zoom_by_buttons_keys_wheel_and_double_click(page):
    fit = state(page, "stage.scale")
    press(page, "zoom-in")
    assert state(page, "stage.scale") > fit
    press(page, "zoom-out")
    press(page, "pixels")
    page.wait_for_timeout(60)
    assert page.locator("#zoom").inner_text() == "100 %"
    press(page, "fit")
    assert state(page, "stage.scale") == fit
    page.keyboard.press("p")
    assert state(page, "stage.zoom") == 1
    page.keyboard.press("+")
    assert state(page, "stage.zoom") == 2
    page.keyboard.press("-")
    page.keyboard.press("0")
    assert state(page, "stage.zoom") is None
    page.locator("#stage").hover(position={"x": 60, "y": 60})
    page.mouse.wheel(0, -300)
    assert state(page, "stage.zoom") is None, "the wheel scrolls the page unless the stage has the focus"
    page.evaluate("scrollTo(0, 0)")
    page.locator("#stage").focus()
    page.locator("#stage").hover(position={"x": 60, "y": 60})
    page.mouse.wheel(0, -300)
    page.wait_for_function("() => comparePage.stage.zoom !== null")
    page.keyboard.press("0")
    page.locator("#stage").dblclick(position={"x": 60, "y": 60})
    assert state(page, "stage.zoom") >= 1


def test_a_zoomed_picture_is_dragged_and_moved_by_keys(page):
    choose(page, "view", "flicker")
    for _ in range(5):
        page.keyboard.press("+")
    middle = state(page, "stage.center")
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 150, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 190, box["y"] + 120, steps=3)
    page.mouse.up()
    moved = state(page, "stage.center")
    assert moved[0] < middle[0]
    assert moved[1] < middle[1]
    page.keyboard.press("d")
    page.keyboard.press("s")
    assert state(page, "stage.center")[0] > moved[0]


def test_the_wipe_follows_mouse_and_keys(page):
    box = page.locator("#stage").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + 40)
    assert state(page, "stage.wipe") == pytest.approx(0.25, abs=0.02)
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 50, steps=3)
    page.mouse.up()
    assert state(page, "stage.wipe") == pytest.approx(0.75, abs=0.02)
    page.locator("#wipe").focus()
    page.keyboard.press("ArrowLeft")
    assert state(page, "stage.wipe") == pytest.approx(0.74, abs=0.02)
    page.keyboard.press("Home")
    assert page.locator("#wipe").get_attribute("aria-valuenow") == "0"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(".")
    assert state(page, "stage.wipe") == pytest.approx(0.05)
    page.keyboard.press(",")
    page.locator("#wipe").focus()
    page.keyboard.press("End")
    assert state(page, "stage.wipe") == 1


def test_the_loupe_reads_both_pictures_under_the_pointer(page):
    press(page, "loupe")
    x, y, scale = page.evaluate(
        "() => [...comparePage.stage.corner(comparePage.stage.panes[0]), comparePage.stage.scale]"
    )
    page.locator("#stage").hover(position={"x": x + scale * 100.5, "y": y + scale * 60.5})
    page.wait_for_timeout(80)
    text = page.locator("#probe").inner_text()
    assert text.startswith("x 100  y 60")
    values = page.evaluate("comparePage.stage.values([100.5, 60.5])")
    for letter, numbers in zip("AB", values, strict=True):
        assert f"{letter} {' '.join(str(number).rjust(3) for number in numbers)}" in text
    page.keyboard.press("d")
    page.keyboard.press("w")
    page.wait_for_timeout(80)
    assert page.locator("#probe").inner_text().startswith("x 101  y 59")
    page.keyboard.press("l")
    assert page.locator("#probe").is_hidden()


def test_frames_by_buttons_and_keys(page):
    for name, frame in (("forth", 1), ("last", COUNT - 1), ("back", COUNT - 2), ("first", 0)):
        press(page, name)
        frame_becomes(page, frame)
    for key, frame in (
        ("ArrowRight", 1),
        ("Shift+ArrowRight", 11),
        ("Shift+ArrowLeft", 1),
        ("ArrowLeft", 0),
        ("End", COUNT - 1),
        ("Home", 0),
    ):
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press(key)
        frame_becomes(page, frame)


def test_frames_by_slider_and_number(page):
    box = page.locator("#scrub").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_function("() => Math.abs(comparePage.player.frame - 20) < 3")
    page.locator("#scrub").focus()
    page.keyboard.press("Home")
    frame_becomes(page, 0)
    page.keyboard.press("ArrowRight")
    frame_becomes(page, 1)
    page.locator("#number").fill("33")
    page.keyboard.press("Enter")
    frame_becomes(page, 33)
    page.locator("#number").fill("no number")
    page.keyboard.press("Enter")
    assert page.locator("#number").input_value() == "33"
    page.locator("#number").fill("999")
    page.keyboard.press("Enter")
    frame_becomes(page, COUNT - 1)


def test_play_pause_speed_and_loop(page):
    press(page, "play")
    page.wait_for_function("() => comparePage.player.frame > 2")
    assert page.locator("#play").get_attribute("aria-label") == "Pause"
    press(page, "play")
    page.wait_for_function("() => !comparePage.player.isPlaying")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(" ")
    page.wait_for_function("() => comparePage.player.isPlaying")
    page.keyboard.press(" ")
    page.wait_for_function("() => !comparePage.player.isPlaying")
    press(page, "speed")
    assert page.locator("#speed").inner_text() == "Speed ½×"
    page.keyboard.press("v")
    page.keyboard.press("v")
    assert state(page, "player.speed") == 1
    press(page, "loop")
    assert state(page, "player.isLooping") is False
    page.keyboard.press("r")
    assert state(page, "player.isLooping") is True


def test_a_loop_begins_again(page):
    page.evaluate("comparePage.player.seek(36)")
    frame_becomes(page, 36)
    page.keyboard.press(" ")
    page.wait_for_function("() => comparePage.player.isPlaying && comparePage.player.frame < 30")


def test_a_click_on_a_curve_and_its_keys_go_to_the_frame(page):
    assert page.locator(".plot").count() == 4
    over = page.locator(".plot .u-over").nth(2)
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 25 / (COUNT - 1), box["y"] + 20)
    frame_becomes(page, 25)
    plot = page.locator(".plot").first
    plot.focus()
    page.keyboard.press("ArrowLeft")
    frame_becomes(page, 24)
    assert plot.get_attribute("aria-valuetext").startswith("frame 24: A ")
    page.keyboard.press("End")
    frame_becomes(page, COUNT - 1)


def test_worst_frames_and_marks_lead_to_theirs(page):
    for place in ("#worst-list button", ".borders button"):
        button = page.locator(place).last
        number = int(re.search(r"\d+", button.locator("span").first.inner_text())[0])
        button.click()
        frame_becomes(page, number)
        page.keyboard.press("Home")
        frame_becomes(page, 0)
        button.focus()
        page.keyboard.press("Enter")
        frame_becomes(page, number)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Home")
    frame_becomes(page, 0)
    page.keyboard.press("e")
    frame_becomes(page, min(state(page, "data.worst.map((one) => one.frame).filter((frame) => frame > 0)")))


def test_keys_are_told(page):
    press(page, "help")
    assert page.locator("#keys").is_visible()
    assert page.locator("#key-list dt").count() == page.locator("#key-list dd").count() > 10
    press(page, "keys-close")
    assert page.locator("#keys").is_hidden()
    page.keyboard.press("?")
    page.keyboard.press("Escape")
    assert page.locator("#keys").is_hidden()


def test_nothing_is_wider_than_the_window(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_every_control_has_its_test(page):
    """What can be pressed, chosen or focused is named above: a new control needs its test."""
    found = page.evaluate(
        """() => [...document.querySelectorAll("button, input, [tabindex]")].map((element) => {
          if (element.closest("#worst-list")) return "#worst-list button";
          if (element.closest(".borders")) return ".borders button";
          if (element.matches(".plot")) return ".plot";
          return element.type === "radio" ? element.name : element.id;
        })"""
    )
    own = Path(__file__).read_text().split("def test_every_control_has_its_test")[0]
    assert [name for name in sorted(set(found)) if f'"{name}"' not in own and f'"#{name}"' not in own] == []
