"""What a package index, ComfyUI's registry and its Manager get."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from seedvr2_engine.version import __version__

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def test_there_is_one_version() -> None:
    """ComfyUI-Manager reads `project.version` as text, as three numbers, and knows no `dynamic`."""
    project = PYPROJECT.split("[project]")[1].split("\n[")[0]
    assert re.findall(r'^version = "(.*)"$', project, re.MULTILINE) == [__version__]
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_the_changelog_has_this_version_first() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    headings = [line for line in lines if line.startswith("## ")]
    assert headings[0] == "## [Unreleased]"
    assert re.fullmatch(rf"## \[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d", headings[1])
    for heading in headings:
        version = heading.removeprefix("## [").split("]")[0]
        assert any(line.startswith(f"[{version}]: ") for line in lines), f"{version} has no address"


def test_the_long_description_leads_nowhere_into_the_repository() -> None:
    readme = re.search(r'^readme = "(.*)"$', PYPROJECT, re.MULTILINE)
    assert readme is not None
    text = (ROOT / readme[1]).read_text()
    assert not re.findall(r"\]\((?!https://)", text), (
        "a package index cannot follow a link or picture into the repository"
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source)
    for name in ("seedvr2_engine", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Their presence must not matter; the contents do not.
    (source / "tests").mkdir()
    (source / "tests" / "test_stray.py").write_text("")
    code = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    return source / "dist"


def test_the_wheel_holds_the_whole_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = ROOT / "seedvr2_engine"
    wanted = {path.relative_to(ROOT).as_posix() for path in package.rglob("*.py")}
    wanted |= {path.relative_to(ROOT).as_posix() for path in (package / "nano").glob("*.gguf")}
    wanted |= {path.relative_to(ROOT).as_posix() for path in (package / "page" / "assets").iterdir()}
    assert found == wanted | {"seedvr2_engine/py.typed"}


def test_the_source_distribution_has_no_stray_tests(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
    assert any(name.endswith("seedvr2_engine/nano/nano_vae_q8_0.gguf") for name in names)
    assert any(name.endswith("CHANGELOG.md") for name in names)
    assert not [name for name in names if "/tests" in name]


def test_pre_commit_runs_what_ci_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"] for repository in hooks for hook in repository["hooks"]]
    assert {repository["repo"] for repository in hooks} == {"local"}
    lint = (ROOT / "Makefile").read_text().split("\nlint:")[1].split("\n\n")[0].splitlines()[1:]
    assert entries == [*(line.strip().replace("$(BIN)", ".venv/bin") for line in lint), ".ci/run"]
