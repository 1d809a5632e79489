"""What axe-core has to say of a page, in both themes, on a desk and on a phone."""

import os
from pathlib import Path

import pytest

from .opening import opened

AXE = Path(os.environ.get("SEEDVR2_AXE", Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"))


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not there: npm install --prefix tests/page")
@pytest.mark.parametrize(("size", "scheme"), [("desk", "dark"), ("phone", "light")])
def test_axe_has_nothing_against_it(browser, clip_page, size, scheme):
    page = opened(browser, clip_page, size, color_scheme=scheme)
    page.evaluate(f"() => {{ {AXE.read_text()} }}")
    for key in "1234":
        page.keyboard.press(key)
        page.keyboard.press("l")
        page.wait_for_timeout(50)
        found = page.evaluate(
            "async () => (await axe.run()).violations.map((one) => [one.id, one.nodes.map((node) => node.html)])"
        )
        assert found == [], key
    page.keyboard.press("?")
    assert page.evaluate("async () => (await axe.run('#keys')).violations.map((one) => one.id)") == []
