"""ComfyUI's `extra_model_paths.yaml`, read with bounds: the file may come with somebody else's installation."""

import os
from pathlib import Path
from typing import Any

import yaml

from ...errors import ModelFileError
from ..quoting import quoted
from .places import expanded

_MAX_BYTES = 64 << 10
_MAX_NODES = 10_000
"""What a file may hold with its aliases written out; ComfyUI's own example has 40."""
_MAX_DEPTH = 10
"""ComfyUI's example has two levels."""


class _Loader(yaml.SafeLoader):
    """Plain data, a few levels deep: every open bracket costs time with each token that follows."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As the base class does it, or YAMLError."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.YAMLError(f"more than {_MAX_DEPTH} levels")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def extra_folders(file: Path) -> tuple[list[Path], list[Path]]:
    """The `seedvr2` and `vae` folders of an `extra_model_paths.yaml`: (of default sections, others).

    Raises ModelFileError for a file that cannot be understood, is too large, or whose aliases make it so.
    """
    first: list[Path] = []
    last: list[Path] = []
    for name, section in _sections(file).items():
        named = section.get("base_path") or ""
        if not isinstance(named, str):
            raise _no_text(file, f"{name}.base_path", "a folder", named)
        base = file.parent / os.path.expandvars(expanded(named, f"{file}: {name}.base_path"))
        for key, value in section.items():
            if str(key).lower() not in {"seedvr2", "vae"} or value is None:
                continue
            if not isinstance(value, str):
                raise _no_text(file, f"{name}.{key}", "text, one folder a line", value)
            lines = [line.strip() for line in value.splitlines() if line.strip()]
            folders = [Path(os.path.normpath(base / line)) for line in lines]
            (first if section.get("is_default") else last).extend(folders)
    return first, last


def _no_text(file: Path, setting: str, expected: str, found: object) -> ModelFileError:
    return ModelFileError(f"{file}: expected {setting} to be {expected}, got {quoted(repr(found))}; correct it.")


def _sections(file: Path) -> dict[str, dict[str, object]]:
    """The sections of an `extra_model_paths.yaml`; none when there is no such file."""
    if not file.is_file():
        return {}
    try:
        content = _parsed(file)
    # A number of 5000 digits is a ValueError.
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, AttributeError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelFileError(f"{file}: expected YAML, but reading failed ({reason}); correct it.") from error
    if content is None:
        return {}
    sections = content.values() if isinstance(content, dict) else [content]
    if not all(section is None or isinstance(section, dict) for section in sections):
        raise ModelFileError(f"{file}: expected named sections of `key: folder` lines; correct the file.")
    return {quoted(str(name)): section for name, section in content.items() if section is not None}


def _parsed(file: Path) -> Any:
    with file.open("rb") as opened:
        raw = opened.read(_MAX_BYTES + 1)
    if len(raw) > _MAX_BYTES:
        raise ModelFileError(f"{file}: expected at most {_MAX_BYTES} bytes, found more; this is no list of folders.")
    loader = _Loader(raw.decode("utf-8"))
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _written_out(node, {}) > _MAX_NODES:
            raise ModelFileError(
                f"{file}: expected at most {_MAX_NODES} entries with aliases written out, found more; remove the "
                "aliases."
            )
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _written_out(node: yaml.Node, known: dict[int, float]) -> float:
    """Entries of a node with its aliases written out; infinite for one that holds itself."""
    count = known.get(id(node))
    if count is None:
        known[id(node)] = float("inf")  # As long as it is being counted: who meets it again is inside it.
        count = 1.0
        if isinstance(node, yaml.MappingNode):
            count += sum(_written_out(part, known) for pair in node.value for part in pair)
        elif isinstance(node, yaml.SequenceNode):
            count += sum(_written_out(part, known) for part in node.value)
        known[id(node)] = count
    return count
