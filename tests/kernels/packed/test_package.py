"""Compiled kernels as a package."""

import base64
import hashlib
import zipfile

import pytest

from benchmarks.aot.package import wheel
from seedvr2_engine.errors import KernelsError
from tests.kernels.packed.test_manifest import a_manifest, write


def test_a_wheel_has_the_folder_and_its_digests(tmp_path):
    write(tmp_path / "folder", a_manifest())
    path = wheel(tmp_path / "folder", tmp_path)
    assert path.name == "seedvr2_kernels_sm90-0.2.0-3_6_0-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    inside = {name.rpartition("/")[2]: data for name, data in files.items() if name.startswith("seedvr2_kernels_sm90/")}
    on_disk = {file.name: file.read_bytes() for file in (tmp_path / "folder").iterdir()}
    assert inside == {**on_disk, "__init__.py": b""}
    assert b"Requires-Dist: seedvr2-engine==0.2.0" in files["seedvr2_kernels_sm90-0.2.0.dist-info/METADATA"]
    record = files.pop("seedvr2_kernels_sm90-0.2.0.dist-info/RECORD").decode().splitlines()[:-1]
    digests = {name: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode() for name, data in files.items()}
    assert record == [f"{name},sha256={digests[name].rstrip('=')},{len(data)}" for name, data in files.items()]


def test_the_same_folder_gives_the_same_wheel(tmp_path):
    write(tmp_path / "folder", a_manifest())
    paths = []
    for name in "ab":
        (tmp_path / name).mkdir()
        paths.append(wheel(tmp_path / "folder", tmp_path / name))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_damaged_folder_becomes_no_wheel(tmp_path):
    write(tmp_path / "folder", a_manifest())
    a_manifest().kernels[0].cubin.path(tmp_path / "folder", "cubin").write_bytes(b"other")
    with pytest.raises(KernelsError, match="build the folder anew"):
        wheel(tmp_path / "folder", tmp_path)
    assert not list(tmp_path.glob("*.whl"))
