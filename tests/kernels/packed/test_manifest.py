"""What a folder of compiled kernels says of itself is not believed."""

import hashlib
import json
from pathlib import Path

import pytest

from seedvr2_engine.errors import KernelsError
from seedvr2_engine.kernels.packed.manifest import NAME, Manifest, PackedFile, PackedKernel

CODE, FACTS = b"code of a kernel", b"{}"


def packed(data: bytes) -> PackedFile:
    return PackedFile(len(data), hashlib.sha256(data).hexdigest())


def a_manifest(**changes) -> Manifest:
    kernel = PackedKernel("some_kernel", "a" * 64, "b" * 64, packed(CODE), packed(FACTS))
    facts: dict[str, object] = {
        "generation": "sm_90",
        "triton": "3.6.0",
        "assembler": "ptxas 12.8-90",
        "source": "c" * 64,
        "engine": "0.2.0",
        "covers": ("color",),
        "kernels": (kernel,),
    }
    return Manifest(**{**facts, **changes})


def write(folder: Path, manifest: Manifest) -> None:
    folder.mkdir(exist_ok=True)
    for kernel in manifest.kernels:
        kernel.cubin.path(folder, "cubin").write_bytes(CODE)
        kernel.json.path(folder, "json").write_bytes(FACTS)
    (folder / NAME).write_text(manifest.to_json())


def test_a_manifest_comes_back(tmp_path):
    manifest = a_manifest()
    write(tmp_path, manifest)
    assert Manifest.read(tmp_path) == manifest
    kernel = manifest.kernels[0]
    assert {kind: file.read(tmp_path, kind) for kind, file in kernel.files().items()} == {"cubin": CODE, "json": FACTS}


@pytest.mark.parametrize("data", [b"code of a kernep", b"code of a kernel and more", b"code", b""])
def test_other_contents_are_refused(tmp_path, data):
    write(tmp_path, a_manifest())
    file = a_manifest().kernels[0].cubin
    file.path(tmp_path, "cubin").write_bytes(data)
    with pytest.raises(KernelsError, match="build the folder anew"):
        file.read(tmp_path, "cubin")


def forged(change) -> str:
    facts = json.loads(a_manifest().to_json())
    change(facts)
    return json.dumps(facts)


def in_kernel(key, value):
    return lambda facts: facts["kernels"][0].__setitem__(key, value)


@pytest.mark.parametrize(
    "change",
    [
        in_kernel("name", "../../evil"),
        in_kernel("name", "a/b"),
        in_kernel("name", "x" * 200),
        in_kernel("cubin", {"size": 4, "sha256": "../" + "a" * 61}),
        in_kernel("cubin", {"size": 4, "sha256": "/etc/passwd"}),
        in_kernel("cubin", {"size": 4, "sha256": "A" * 64}),
        in_kernel("cubin", {"size": -1, "sha256": "a" * 64}),
        in_kernel("cubin", {"size": 1 << 40, "sha256": "a" * 64}),
        in_kernel("cubin", {"size": True, "sha256": "a" * 64}),
        in_kernel("json", "a" * 64),
        in_kernel("source", "a" * 63),
        in_kernel("options", 5),
        lambda facts: facts.update(version=2),
        lambda facts: facts.update(schema="other"),
        lambda facts: facts.update(generation="sm_90/../x"),
        lambda facts: facts.update(kernels={}),
        lambda facts: facts.update(kernels=[[]]),
        lambda facts: facts.update(covers="color"),
        lambda facts: facts.update(triton=None),
        lambda facts: facts.pop("source"),
    ],
)
def test_a_forged_manifest_is_refused(tmp_path, change):
    (tmp_path / NAME).write_text(forged(change))
    with pytest.raises(KernelsError, match="expected a manifest"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 100_000, "{", "\udc80".encode("utf-8", "surrogateescape")])
def test_what_is_no_manifest_is_refused(tmp_path, text):
    (tmp_path / NAME).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(KernelsError, match="expected a manifest"):
        Manifest.read(tmp_path)


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(KernelsError, match="cannot be read"):
        Manifest.read(tmp_path / "nothing")
