"""What the documents say of the code and can be looked up."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import torch
import typer

from benchmarks import formats
from seedvr2_engine.cli.app import app

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "seedvr2_engine"
DOCUMENTS = [
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in ("web", "node_modules") for part in path.relative_to(ROOT).parts)
]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def tree(text: str) -> Iterator[str]:
    """The entries of the indented list of rooms, as paths inside the package."""
    block = text.split("seedvr2_engine/\n")[1].split("\ntests/")[0]
    above: list[str] = []
    for line in block.splitlines():
        name = line.split()[0]
        above = [*above[: (len(line) - len(line.lstrip())) // 2 - 1], name.rstrip("/")]
        yield "/".join(above) + ("/" if name.endswith("/") else "")


def test_every_folder_of_the_package_has_its_sentence() -> None:
    named = {entry.rstrip("/") for entry in tree(ARCHITECTURE) if entry.endswith("/")}
    folders = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_dir()}
    assert named == {folder for folder in folders if "__pycache__" not in folder}


@pytest.mark.parametrize("name", ["docs/architecture.md", "docs/testing.md", "CONTRIBUTING.md"])
def test_paths_that_a_document_names_are_there(name: str) -> None:
    text = (ROOT / name).read_text()
    # A path has a slash and an ending or a closing slash; NNN and capitals stand for something.
    paths = re.findall(r"`([a-z0-9_.]+(?:/[a-z0-9_.*]+)*/?)(?:::\w+)?`", text)
    paths = [path for path in paths if "/" in path and (path.endswith(("/", ".py", ".md", ".json", ".yaml")))]
    assert paths
    missing = [path for path in paths if not any((base / path).exists() for base in (ROOT, PACKAGE, ROOT / "tests"))]
    assert not missing


def anchors(text: str) -> set[str]:
    """What the headings of a document are called in links, by GitHub's rule."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        file = path.parent / target if target else path
        assert file.exists(), link
        assert not anchor or anchor in anchors(file.read_text()), link


def test_the_table_of_formats_is_fresh() -> None:
    assert formats.TARGET.read_text() == formats.document(), "run python -m benchmarks.formats"


def commands(text: str) -> Iterator[list[str]]:
    """The words after `seedvr2` of every line of a code block that begins with it."""
    for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("seedvr2 "):
                yield re.split(r"\s{2,}|\s#", line)[0].split()[1:]


@pytest.mark.parametrize("name", ["README.md", "docs/package.md"])
def test_commands_of_a_document_exist(name: str) -> None:
    group = typer.main.get_command(app)
    found = list(commands((ROOT / name).read_text()))
    assert found
    for words in found:
        command: click.Command = group
        while words and isinstance(getattr(command, "commands", None), dict):
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known | {"--help"}


@pytest.mark.parametrize("name", ["README.md", "docs/package.md"])
def test_examples_of_a_document_run(name: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, name, "exec"), names)
    assert isinstance(names["frame"], torch.Tensor)
    assert names["frame"].shape == (3, 64, 96)
