"""A page in a tab, whose errors are collected."""

from pathlib import Path

SIZES = {"desk": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}


def opened(browser, page_file: Path, size: str = "desk", **context):
    page = browser.new_context(viewport=SIZES[size], has_touch=size == "phone", **context).new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: page.errors.append(request.url) if request.url.startswith("http") else None)
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-ready]")
    return page
