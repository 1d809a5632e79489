"""Packed kernels between Triton and its cache: used where they fit, and nothing happens where they do not."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
import triton
from triton.runtime.cache import FileCacheManager

from seedvr2_engine.errors import KernelsError
from seedvr2_engine.kernels.packed import sources, using
from seedvr2_engine.kernels.packed.keys import backend_for, cache_name
from seedvr2_engine.kernels.packed.sources import package_folder, package_name, source_hash
from tests.kernels.packed.test_manifest import CODE, FACTS, a_manifest, write


@pytest.fixture(autouse=True)
def cache(tmp_path):
    """A cache of the test's own, and whatever manager was there before comes back."""
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(tmp_path / "cache")
        triton.knobs.cache.manager_class = None
        yield tmp_path / "cache"


def fitting(**changes):
    facts = {"triton": triton.__version__, "assembler": backend_for(90).hash(), "source": source_hash()}
    return a_manifest(**{**facts, **changes})


def manager(*folders, generations=("sm_90",)):
    using.install(using.PackedKernels(generations, lambda generation: list(folders)))
    return triton.knobs.cache.manager_class


def group_of(manager_class, manifest, filename="some_kernel.json"):
    return manager_class(cache_name(manifest.kernels[0], manifest.assembler)).get_group(filename)


def test_a_packed_kernel_is_found_and_kept(tmp_path, cache):
    manifest = fitting()
    write(tmp_path / "folder", manifest)
    found = group_of(manager(tmp_path / "folder"), manifest)
    assert {name: Path(path).read_bytes() for name, path in found.items()} == {
        "some_kernel.cubin": CODE,
        "some_kernel.json": FACTS,
    }
    assert all(path.startswith(str(cache)) for path in found.values())
    # It is Triton's own from now on.
    assert FileCacheManager(cache_name(manifest.kernels[0], manifest.assembler)).get_group("some_kernel.json") == found


def test_what_the_cache_has_is_left_alone(tmp_path):
    manifest = fitting()
    write(tmp_path / "folder", manifest)
    own = FileCacheManager(cache_name(manifest.kernels[0], manifest.assembler))
    own.put_group("some_kernel.json", {"some_kernel.json": own.put(b"own", "some_kernel.json")})
    found = group_of(manager(tmp_path / "folder"), manifest)
    assert Path(found["some_kernel.json"]).read_bytes() == b"own"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"triton": "0.0.1"}, "for Triton .*, found 0.0.1"),
        ({"generation": "sm_120"}, "for generation sm_90, found sm_120"),
        ({"source": "d" * 64}, "for source .*, found dddd"),
        ({"assembler": "ptxas 1.0-90"}, "for assembler .*, found ptxas 1.0-90"),
    ],
)
def test_what_does_not_fit_is_compiled_and_one_line_says_so(tmp_path, caplog, changes, named):
    manifest = fitting(**changes)
    write(tmp_path / "folder", manifest)
    with pytest.raises(KernelsError, match=named):
        using.fitting_manifest(tmp_path / "folder", "sm_90")
    with caplog.at_level(logging.INFO):
        manager_class = manager(tmp_path / "folder")
        assert not group_of(manager_class, fitting())
        assert not group_of(manager_class, manifest)
    assert len(caplog.records) == 1


def test_a_flipped_byte_is_compiled_and_one_line_says_so(tmp_path, caplog):
    manifest = fitting()
    write(tmp_path / "folder", manifest)
    path = manifest.kernels[0].cubin.path(tmp_path / "folder", "cubin")
    path.write_bytes(b"Code" + CODE[4:])
    manager_class = manager(tmp_path / "folder")
    assert not group_of(manager_class, manifest)
    assert not group_of(manager_class, manifest)
    assert len(caplog.records) == 1


def test_a_folder_after_a_bad_one_is_used(tmp_path):
    manifest = fitting()
    write(tmp_path / "folder", manifest)
    assert group_of(manager(tmp_path / "nothing", tmp_path / "folder"), manifest)


def test_other_kernels_and_files_are_none_of_its_business(tmp_path):
    manifest = fitting()
    write(tmp_path / "folder", manifest)
    manager_class = manager(tmp_path / "folder")
    assert not manager_class("SOMETHINGELSE").get_group("some_kernel.json")
    assert not group_of(manager_class, manifest, "other_kernel.json")
    assert not manager_class(cache_name(manifest.kernels[0], manifest.assembler), dump=True).get_group("x.json")


def test_it_is_put_in_place_once(tmp_path):
    assert manager(tmp_path) is manager(tmp_path)


def test_without_a_gpu_nothing_changes(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    using.use_packed_kernels()
    assert triton.knobs.cache.manager_class is None


def test_folders_come_from_the_variable_and_from_packages(tmp_path, monkeypatch):
    (tmp_path / "all" / "sm_90").mkdir(parents=True)
    write(tmp_path / "all" / "sm_90", a_manifest())
    package = tmp_path / "site" / package_name("sm_90")
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('code of a package of kernels is not run')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv(sources.FOLDERS_VARIABLE, os.pathsep.join([str(tmp_path / "all"), str(tmp_path / "other")]))
    assert package_folder("sm_120") is None
    assert using.listed_folders("sm_90") == [tmp_path / "all" / "sm_90", tmp_path / "other", package]


def test_the_key_has_everything_in_it_that_changes_a_kernel():
    manifest = fitting()
    kernel = manifest.kernels[0]
    others = [replace(kernel, source="e" * 64), replace(kernel, options="e" * 64)]
    names = {cache_name(one, manifest.assembler) for one in [kernel, *others]} | {cache_name(kernel, "other")}
    assert len(names) == 4
