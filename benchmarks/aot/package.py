"""A folder of compiled kernels as a package that pip installs, such as seedvr2-kernels-sm120.

    python -m benchmarks.aot.package FOLDER --out dist

The wheel has data alone: no code of it runs when it is installed, found or used. Its version is the engine's, and it
asks for that very engine; which Triton it is for is in its build tag and in its description.
"""

import argparse
import base64
import hashlib
import zipfile
from pathlib import Path

from seedvr2_engine.kernels.packed.manifest import NAME, Manifest
from seedvr2_engine.kernels.packed.sources import package_name

_TIME = (1980, 1, 1, 0, 0, 0)
"""Of every file, so that the same kernels give the same wheel."""


def wheel(folder: Path, out: Path) -> Path:
    """Write a wheel of a folder that `seedvr2 kernels build` made, whose files are compared first; its path."""
    manifest = Manifest.read(folder)
    name = package_name(manifest.generation)
    files = {f"{name}/{NAME}": (folder / NAME).read_bytes(), f"{name}/__init__.py": b""}
    for kernel in manifest.kernels:
        for kind, file in kernel.files().items():
            files[f"{name}/{file.path(folder, kind).name}"] = file.read(folder, kind)
    facts = f"{name}-{manifest.engine}.dist-info"
    files[f"{facts}/METADATA"] = _metadata(manifest).encode()
    files[f"{facts}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: seedvr2-engine\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    records = [f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in files.items()]
    files[f"{facts}/RECORD"] = ("".join(records) + f"{facts}/RECORD,,\n").encode()
    build = "".join(character if character.isalnum() else "_" for character in manifest.triton)
    target = out / f"{name}-{manifest.engine}-{build}-py3-none-any.whl"
    with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path, _TIME)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return target


def _metadata(manifest: Manifest) -> str:
    name = package_name(manifest.generation).replace("_", "-")
    return (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {manifest.engine}\n"
        f"Summary: Compiled kernels of the SeedVR2 engine for {manifest.generation}, Triton {manifest.triton}\n"
        f"License: Apache-2.0\nRequires-Python: >=3.10\nRequires-Dist: seedvr2-engine=={manifest.engine}\n"
    )


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the wheel")
    asked = parser.parse_args()
    path = wheel(asked.folder, asked.out)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
