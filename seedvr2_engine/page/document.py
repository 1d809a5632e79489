"""The HTML file: text, scripts and media in one, and a policy that forbids everything else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from json import dumps
from pathlib import Path

from ..version import __version__
from .data import PageData, plain
from .script import asset, bundled

_PIECE_BYTES = 3 << 20
"""Of a file at a time; a multiple of three, so that pieces of base64 join."""
_ELEMENT_BYTES = 24 << 20
"""Of a file in one element: browsers refuse texts of more than some 500 MB."""


def document(data: PageData, *, media_sources: str = "") -> Iterator[bytes]:
    """The page, piece by piece, in memory that does not depend on the size of the media.

    media_sources: what beside embedded data the page may load media from, in the words of a content security policy,
    such as `'self'` for an app's own addresses or `file:` for files beside the page.
    """
    style = "\n".join((asset("uPlot.min.css"), asset("page.css")))
    script = "\n".join((asset("uPlot.iife.min.js"), bundled()))
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            f"img-src data: blob: {media_sources}".strip(),
            f"media-src blob: {media_sources}".strip(),
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="dark light">\n'
        f'<meta name="generator" content="SeedVR2 Engine {escape(__version__)}">\n'
        f"<title>{escape(data.title)}</title>\n<style>{style}</style>\n</head>\n"
    ).encode(errors="replace")  # Names that are no UTF-8 hold half characters.
    yield asset("body.html").encode()
    yield f'<script type="application/json" id="data">{_json(data)}</script>\n'.encode()
    for index, shot in enumerate(data.worst):
        yield f'<script type="text/plain" id="worst-{index}">{b64encode(shot.jpeg).decode()}</script>\n'.encode()
    for side in data.sides:
        if isinstance(side.media.place, Path):
            yield from _embedded(side.badge, side.media.place)
    # The policy knows the script by what stands between its tags, to the byte.
    yield f'<script type="module">{script}</script>\n</body>\n</html>\n'.encode()


def _json(data: PageData) -> str:
    """JSON that ends no element, whatever is in it: names of files are anybody's."""
    text = dumps(plain(data), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _embedded(badge: str, path: Path) -> Iterator[bytes]:
    opened, room = f'<script type="text/plain" data-media="{escape(badge)}">'.encode(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            if room <= 0:
                yield opened
                room = _ELEMENT_BYTES
            yield b64encode(piece)
            room -= len(piece)
            if room <= 0:
                yield b"</script>\n"
    if room > 0:
        yield b"</script>\n"


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
