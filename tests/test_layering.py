"""Who may import whom, read off the imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "seedvr2_engine"

# A room may import rooms of a lower number, and itself.
LEVEL = {
    "errors": 0,
    "device": 1,
    "output": 1,
    "checkpoint": 2,
    "models": 2,
    "video": 2,
    "metrics": 2,
    "quant": 2,
    "kernels": 2,
    "plan": 3,
    "engine": 4,
    "loading": 5,
    "loading_dit": 5,
    "pipeline": 6,
    "bench": 7,
    "cli": 8,
    "comfy": 8,
}
# Between rooms of one level only these modules may be imported.
EXCEPTIONS = {("checkpoint", "models.config"), ("checkpoint", "models.dit_config"), ("kernels", "quant")}
MODULES = sorted(PACKAGE.rglob("*.py"))


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
        if target[0] == room or target == ("__version__",):
            continue
        if (room, ".".join(target[:2])) in EXCEPTIONS:
            continue
        assert LEVEL[target[0]] < LEVEL[room], f"{room} must not import {'.'.join(target)}"


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
