"""The page's scripts as one: ES modules put behind each other, each after those that it imports."""

from __future__ import annotations

import re
from importlib.resources import files

_ASSETS = files(__package__) / "assets"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z_]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|const|class)", re.MULTILINE)


def asset(name: str) -> str:
    """One file of `assets/`."""
    return (_ASSETS / name).read_text(encoding="utf-8")


def bundled(entry: str = "main.js") -> str:
    """The module `entry` and all that it imports, in one scope: names must differ between modules.

    Imports stand alone on their line, name what they take, and come from the same folder.
    """
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        for needed in _IMPORT.findall(asset(name)):
            visit(needed)
        order.append(name)

    visit(entry)
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", asset(name))).strip() + "\n" for name in order)
