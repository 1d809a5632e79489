"""The harness that plants faults: it tells tests that notice from tests that do not."""

import subprocess
from pathlib import Path

import pytest

from . import plant


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one function and one test that looks at half of it."""
    (tmp_path / "area.py").write_text("def area(a, b):\n    return a * b + 0\n")
    (tmp_path / "test_area.py").write_text("from area import area\n\n\ndef test_area():\n    assert area(3, 1) == 3\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    monkeypatch.setattr(plant, "ROOT", tmp_path)
    return tmp_path


def test_a_fault_is_noticed_or_survives(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plant.main(["area.py", "+ 0", "+ 1", "test_area.py"]) == 0
    assert "FAILED test_area.py::test_area" in capsys.readouterr().out
    assert plant.main(["area.py", "a * b", "a / b", "test_area.py"]) == 1
    assert "SURVIVED: area.py" in capsys.readouterr().out
    assert "a * b + 0" in (project / "area.py").read_text()


def test_a_fault_that_cannot_be_planted_is_no_result(project: Path) -> None:
    with pytest.raises(SystemExit, match=r"expected 'c' once, found it 0 times"):
        plant.main(["area.py", "c", "d", "test_area.py"])
    (project / "test_area.py").write_text("def test_area():\n    assert False\n")
    with pytest.raises(SystemExit, match="Expected green tests"):
        plant.main(["area.py", "+ 0", "+ 1", "test_area.py"])
