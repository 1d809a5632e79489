"""Who may import whom, read off the imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "seedvr2_engine"

# A room may import rooms of a lower number, and itself. A part of a room may stand lower than the room.
LEVEL = {
    "errors": 0,
    "version": 0,
    "spans": 0,
    "device": 1,
    "output": 1,
    "checkpoint": 2,
    "models": 2,
    "video": 2,
    "quality.metrics": 2,
    "quant": 1,
    "kernels": 2,
    "plan": 3,
    "color": 3,
    "engine": 4,
    "doctor": 5,
    "loading": 5,
    "loading_dit": 5,
    "pipeline": 6,
    "quality": 7,
    "jobs": 7,
    "bench": 8,
    "cli": 9,
    "comfy": 9,
}
# Between rooms of one level only these modules may be imported.
EXCEPTIONS = {("checkpoint", "models.vae.config"), ("checkpoint", "models.dit.config")}
# Packages that only one room may know, so that the others run without them.
OWNERS = {
    "av": ("video",),
    "comfy": ("comfy",),
    "comfy_api": ("comfy",),
    "folder_paths": ("comfy",),
    "nodes": ("comfy",),
    "filelock": ("checkpoint",),
    "gguf": ("checkpoint",),
    "huggingface_hub": ("checkpoint",),
    "safetensors": ("checkpoint",),
    "yaml": ("checkpoint",),
    "matplotlib": ("bench",),
    "PIL": ("video", "jobs", "comfy"),
    "rich": ("cli",),
    "typer": ("cli",),
    "triton": ("kernels",),
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def level(module: tuple[str, ...]) -> int:
    return LEVEL.get(".".join(module[:2]), LEVEL.get(module[0], -1))


def dotted(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(path: Path) -> set[tuple[str, ...]]:
    """Modules of this package that a file imports, as paths inside the package."""
    here = path.relative_to(PACKAGE).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - (node.level - 1)]
            target = (*base, *(node.module.split(".") if node.module else ()))
            found |= {(*target, alias.name) for alias in node.names} if not node.module else {target}
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                assert not name.startswith("seedvr2_engine"), f"{path}: import {name} relatively"
    return {target for target in found if target}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_rooms_import_only_lower_rooms(path):
    parts = dotted(path)
    if not parts or parts == ("__main__",):
        return
    room = parts[0]
    for target in imports(path):
        if target[0] == room:
            continue
        if (room, ".".join(target[:3])) in EXCEPTIONS or (room, target[0]) in EXCEPTIONS:
            continue
        assert 0 <= level(target) < level(parts), f"{room} must not import {'.'.join(target)}"


def test_no_module_imports_itself_by_way_of_others():
    known = {dotted(path) for path in MODULES}

    def module(target: tuple[str, ...]) -> tuple[str, ...]:
        return target if target in known else target[:-1]

    waiting = {dotted(path): {module(target) for target in imports(path)} & known - {dotted(path)} for path in MODULES}
    while free := {name for name, needs in waiting.items() if not needs & waiting.keys()}:
        waiting = {name: needs for name, needs in waiting.items() if name not in free}
    assert not waiting, f"in a circle, or importing one: {sorted('.'.join(name) for name in waiting)}"


def test_no_folder_is_crowded():
    for folder in {path.parent for path in MODULES}:
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= 13, f"{folder.name} has {len(files)} files; sort them into rooms"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("seedvr2_engine", ["torch", "av", "gguf", "huggingface_hub", "triton"]),
        ("seedvr2_engine.models.vae.model", ["av", "gguf", "huggingface_hub", "typer"]),
        ("seedvr2_engine.models.dit.model", ["av", "gguf", "huggingface_hub", "typer", "flash_attn"]),
        ("seedvr2_engine.cli", ["torch", "av", "gguf", "huggingface_hub"]),
    ],
)
def test_imports_stay_light(module, absent):
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_file_is_two_rooms():
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= 350, f"{path} is long enough to be split"


def test_packages_stay_in_their_rooms():
    for path in MODULES:
        room = path.relative_to(PACKAGE).parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in names:
                assert room in OWNERS.get(name.split(".")[0], (room,)), f"{path}: {name} belongs to another room"


def test_only_the_command_line_prints():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            prints = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            assert not prints or path.relative_to(PACKAGE).parts[0] == "cli", f"{path}:{node.lineno} prints"
