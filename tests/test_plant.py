"""The harness that plants faults: it tells tests that notice from tests that do not."""

import os
import subprocess
from pathlib import Path

import pytest

from . import plant, plant_list


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


LISTS = sorted((Path(__file__).parent / "faults").glob("*.toml"))


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_every_listed_fault_can_still_be_planted(path: Path) -> None:
    """A list that code has moved away from would not run to its end."""
    root = Path(__file__).parent.parent
    faults = plant_list.read_faults(path)
    for fault in faults:
        assert (root / fault.file).read_text().count(fault.old) == 1, fault
        assert fault.old != fault.new
        assert fault.kind in plant_list.KINDS, fault
        for name in fault.tests.split(" -k ")[0].split():
            file, *test = name.split("::")
            assert (root / file).exists(), fault
            assert not test or f"def {test[0]}(" in (root / file).read_text(), fault
    assert len({(fault.file, fault.old, fault.new) for fault in faults}) == len(faults)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="faults of a list are tried in forks")
def test_a_list_says_what_is_not_as_it_says(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plant_list, "ROOT", project)
    fault = "[[fault]]\nfile = 'area.py'\nold = '{}'\nnew = '{}'\nkind = 'term'\ntests = 'test_area.py'\n"
    noticed, survives = fault.format("+ 0", "+ 1"), fault.format("a * b", "a / b")
    path = project / "list.toml"
    path.write_text(noticed + survives + "survives = 'nobody divides'\n")
    assert plant_list.main([str(path)]) == 0
    assert "2 of 2 faults came out as listed" in capsys.readouterr().out
    path.write_text(noticed + "survives = 'it does not'\n" + survives)
    assert plant_list.main([str(path)]) == 1
    assert "Not as listed: 2 in area.py" in capsys.readouterr().out
    assert "a * b + 0" in (project / "area.py").read_text()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="faults of a list are tried in forks")
def test_a_fault_that_hangs_is_ended_and_noticed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plant_list, "ROOT", project)
    path = project / "list.toml"
    path.write_text(
        "[[fault]]\nfile = 'area.py'\nold = '+ 0'\nnew = '+ next(n for n in iter(int, 1) if n)'\n"
        "kind = 'term'\ntests = 'test_area.py'\n"
    )
    assert plant_list.main([str(path), "--limit", "2", "--trust"]) == 0
    assert "no end within 2 s" in capsys.readouterr().out
