"""Text from outside, file names and what files hold, made safe for a terminal."""

from __future__ import annotations

import logging
import unicodedata

_JOINERS = "\u200c\u200d"
"""Format characters that letters and emoji are joined with; they move nothing."""
_HARMFUL = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Unicode's categories of control and format characters, lone surrogates, and separators of lines."""


def shown(text: str, *, keep: str = "") -> str:
    r"""The text with all that a terminal would obey written out: `\x1b`, `\n`, `\u202e`; of bytes, `\xff`.

    `keep` names control characters that stay, such as the line breaks of our own layout. Doing it twice changes
    nothing. Python keeps the bytes of a file name that are no UTF-8 as lone surrogates; they are shown as bytes.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in keep or character in _JOINERS or unicodedata.category(character) not in _HARMFUL
        else _written_out(character)
        for character in text
    )


def _written_out(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


class ShownFormatter(logging.Formatter):
    """Log lines whose text cannot command the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """As the base class does it, made safe; line breaks stay, for reports of several lines."""
        return shown(super().format(record), keep="\n\t")
