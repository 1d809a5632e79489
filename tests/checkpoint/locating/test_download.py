"""Downloads of model files from a local server with every fault."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest

from seedvr2_engine.checkpoint.locating import hub as engine_hub
from seedvr2_engine.checkpoint.locating import transfer
from seedvr2_engine.checkpoint.locating.hub import download, user_cache
from seedvr2_engine.checkpoint.locating.registry import ModelFile
from seedvr2_engine.errors import ModelFileError
from tests.checkpoint.locating.hub_server import Hub, serving

CONTENT = hashlib.shake_256(b"weights").digest(3_000_000)
REVISION = "0123456789abcdef0123456789abcdef01234567"


def model_file(content: bytes = CONTENT, name: str = "small.safetensors") -> ModelFile:
    digest = hashlib.sha256(content).hexdigest()
    return ModelFile(name, "vae", "someone/models", f"vae/{name}", REVISION, len(content), digest, "a test file")


MODEL = model_file()
ADDRESS = f"/someone/models/resolve/{REVISION}/vae/small.safetensors"
PARTIAL = f"small.safetensors.{MODEL.sha256[:8]}.partial"


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(transfer, "RETRY_PAUSE_S", 0.0)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving({ADDRESS: CONTENT}) as served:
        yield served


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ranges(hub: Hub) -> list[str | None]:
    """The Range headers that reached the store."""
    return [wanted for path, wanted, _ in hub.asked if path.startswith("/store")]


def test_a_download_is_verified_and_leaves_nothing_else(hub: Hub, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    folder = tmp_path / "new" / "folder"
    path = download(MODEL, folder, endpoint=hub.endpoint, on_progress=lambda *call: calls.append(call))
    assert path == folder / "small.safetensors"
    assert path.read_bytes() == CONTENT
    assert names(folder) == ["small.safetensors"]
    assert calls == sorted(calls)
    assert calls[-1] == (len(CONTENT), len(CONTENT))


def test_the_default_folder_is_the_user_cache(hub: Hub) -> None:
    assert download(MODEL, endpoint=hub.endpoint).parent == user_cache()


def test_the_token_reaches_the_endpoint_but_not_where_it_redirects(hub: Hub, tmp_path: Path) -> None:
    download(MODEL, tmp_path, endpoint=hub.endpoint, token="hf_secret")
    assert [(path, auth) for path, _, auth in hub.asked] == [(ADDRESS, "Bearer hf_secret"), (f"/store{ADDRESS}", None)]


def test_nothing_but_the_file_is_asked_for(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub's own headers come with a request of their own, whose answer it awaits without limit."""
    monkeypatch.setattr("huggingface_hub.utils.build_hf_headers", lambda **_: pytest.fail("it may ask for more"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_environment")
    download(MODEL, tmp_path, endpoint=hub.endpoint)
    assert [path for path, _, _ in hub.asked] == [ADDRESS, f"/store{ADDRESS}"]
    assert hub.asked[0][2] == "Bearer hf_of_the_environment"


def test_a_dropped_connection_is_continued_in_the_same_call(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = [1_000_000, 500_000]
    assert download(MODEL, tmp_path, endpoint=hub.endpoint).read_bytes() == CONTENT
    assert ranges(hub) == [None, "bytes=1000000-", "bytes=1500000-"]


def test_a_later_call_continues_the_partial_file(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = [1_200_000, 0, 0, 0, 0]
    with pytest.raises(ModelFileError, match=r"stopped at 1,200,000 of 3,000,000 bytes .* to continue"):
        download(MODEL, tmp_path, endpoint=hub.endpoint)
    assert PARTIAL in names(tmp_path)
    hub.asked.clear()
    calls: list[int] = []
    download(MODEL, tmp_path, endpoint=hub.endpoint, on_progress=lambda done, total: calls.append(done))
    assert ranges(hub) == ["bytes=1200000-"]
    assert calls[0] > 1_200_000
    assert names(tmp_path) == ["small.safetensors"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("is_cached", [False, True])
def test_a_link_under_the_partial_file_s_name_is_not_followed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cached: bool
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep")
    (tmp_path / PARTIAL).symlink_to(precious)
    if is_cached:
        (tmp_path / "cached").write_bytes(CONTENT)
        monkeypatch.setattr(engine_hub, "_from_hub_cache", lambda _: tmp_path / "cached")
    with pytest.raises(ModelFileError, match=r"partial: expected the part of an earlier download, found a link"):
        download(MODEL, tmp_path, endpoint=hub.endpoint)
    # Nor one that appears after that was looked at.
    monkeypatch.setattr(engine_hub, "_check_own", lambda _: None)
    with pytest.raises(ModelFileError, match="cannot be written"):
        download(MODEL, tmp_path, endpoint=hub.endpoint)
    assert precious.read_bytes() == b"keep"
    (tmp_path / PARTIAL).unlink()
    assert download(MODEL, tmp_path, endpoint=hub.endpoint).read_bytes() == CONTENT


def test_stopping_from_the_callback_keeps_what_arrived(hub: Hub, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(MODEL, tmp_path, endpoint=hub.endpoint, on_progress=stop)
    assert names(tmp_path) == [PARTIAL]
    assert 0 < (tmp_path / PARTIAL).stat().st_size < len(CONTENT)
    assert download(MODEL, tmp_path, endpoint=hub.endpoint).read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(hub: Hub, tmp_path: Path) -> None:
    hub.ignores_ranges = True
    (tmp_path / PARTIAL).write_bytes(b"x" * 700_000)
    assert download(MODEL, tmp_path, endpoint=hub.endpoint).read_bytes() == CONTENT
    assert ranges(hub) == ["bytes=700000-"]


def test_starting_over_leaves_no_old_bytes_behind(hub: Hub, tmp_path: Path) -> None:
    hub.ignores_ranges = True
    hub.cuts = [100_000] * transfer.MAX_FRUITLESS_ATTEMPTS
    (tmp_path / PARTIAL).write_bytes(b"x" * 700_000)
    with pytest.raises(ModelFileError, match="stopped at 100,000 of"):
        download(MODEL, tmp_path, endpoint=hub.endpoint)
    assert (tmp_path / PARTIAL).read_bytes() == CONTENT[:100_000]


@pytest.mark.parametrize("start", ["900000", "*"], ids=["later", "unstated"])
def test_a_part_from_elsewhere_is_not_written(hub: Hub, tmp_path: Path, start: str) -> None:
    hub.part_start = start
    (tmp_path / PARTIAL).write_bytes(CONTENT[:700_000])
    with pytest.raises(ModelFileError, match="stopped at 700,000 of"):
        download(MODEL, tmp_path, endpoint=hub.endpoint)
    assert (tmp_path / PARTIAL).read_bytes() == CONTENT[:700_000]


def test_a_passing_status_is_tried_again(hub: Hub, tmp_path: Path) -> None:
    hub.statuses = [503, 429]
    assert download(MODEL, tmp_path, endpoint=hub.endpoint).read_bytes() == CONTENT


def test_an_unreachable_server_ends_with_a_sentence(hub: Hub, tmp_path: Path) -> None:
    with serving({}) as gone:
        endpoint = gone.endpoint
    with pytest.raises(ModelFileError, match=r"stopped at 0 of .*refused.*check the connection"):
        download(MODEL, tmp_path, endpoint=endpoint)


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "hf auth login"), (403, "ask for access"), (404, "newer release")]
)
def test_a_refusal_is_not_repeated(hub: Hub, tmp_path: Path, status: int, remedy: str) -> None:
    hub.statuses = [status]
    with pytest.raises(ModelFileError, match=rf"small\.safetensors: .*HTTP {status}; .*{remedy}"):
        download(MODEL, tmp_path, endpoint=hub.endpoint)
    assert len(hub.asked) == 1
    assert names(tmp_path) == []


def test_an_address_that_is_not_http_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="expected an http or https address"):
        download(MODEL, tmp_path, endpoint="file:///etc")


# Verification


def test_wrong_bytes_are_set_aside(hub: Hub, tmp_path: Path) -> None:
    hub.files[ADDRESS] = CONTENT[:-1] + b"\0"
    for aside in ("small.safetensors.rejected", "small.safetensors.rejected-2"):
        with pytest.raises(ModelFileError, match=rf"SHA-256 {MODEL.sha256}.* set aside as .*{aside},"):
            download(MODEL, tmp_path, endpoint=hub.endpoint)
    assert names(tmp_path) == ["small.safetensors.rejected", "small.safetensors.rejected-2"]
    assert (tmp_path / "small.safetensors.rejected").read_bytes() == hub.files[ADDRESS]


def test_a_spoilt_partial_file_is_set_aside_and_the_next_call_starts_anew(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / PARTIAL).write_bytes(b"x" * 1000)
    with pytest.raises(ModelFileError, match="set aside"):
        download(MODEL, tmp_path, endpoint=hub.endpoint)
    assert download(MODEL, tmp_path, endpoint=hub.endpoint).read_bytes() == CONTENT


@pytest.mark.parametrize("offered", [CONTENT[:-1], CONTENT + b"\0"], ids=["short", "long"])
def test_another_size_is_refused_before_the_transfer(hub: Hub, tmp_path: Path, offered: bytes) -> None:
    hub.files[ADDRESS] = offered
    with pytest.raises(ModelFileError, match=rf"expected 3,000,000 bytes, but .* offers {len(offered):,}"):
        download(MODEL, tmp_path, endpoint=hub.endpoint)
    assert names(tmp_path) == []


def test_a_right_file_is_kept_and_nothing_is_asked(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filelock.FileLock", None)  # the folder may be read-only
    (tmp_path / MODEL.name).write_bytes(CONTENT)
    before = (tmp_path / MODEL.name).stat()
    assert download(MODEL, tmp_path, endpoint=hub.endpoint) == tmp_path / MODEL.name
    assert (tmp_path / MODEL.name).stat().st_mtime_ns == before.st_mtime_ns
    assert hub.asked == []


@pytest.mark.parametrize("wrong", [b"mine", CONTENT[:-1] + b"\0"], ids=["size", "bytes"])
def test_a_wrong_file_under_the_name_is_set_aside(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: bytes
) -> None:
    (tmp_path / MODEL.name).write_bytes(wrong)
    assert download(MODEL, tmp_path, endpoint=hub.endpoint).read_bytes() == CONTENT
    assert (tmp_path / f"{MODEL.name}.rejected").read_bytes() == wrong
    assert "small.safetensors.rejected" in caplog.text


def test_a_wrong_file_stays_while_its_replacement_is_not_there(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / MODEL.name).write_bytes(b"mine")
    hub.statuses = [404]
    with pytest.raises(ModelFileError, match="HTTP 404"):
        download(MODEL, tmp_path, endpoint=hub.endpoint)
    assert names(tmp_path) == [MODEL.name]


# Refusals on this side


@pytest.mark.parametrize("name", ["", "..", "../up.gguf", "sub/file.gguf", "sub\\file.gguf", "C:file.gguf", "a\0b"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelFileError, match="expected a plain file name"):
        download(model_file(name=name), tmp_path)


def test_too_little_disk_is_found_before_the_first_byte(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = engine_hub.DISK_MARGIN_BYTES + len(CONTENT) - 1000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(ModelFileError, match=r"needs 271 MB of free disk .* has 271 MB; make room"):
        download(MODEL, tmp_path, endpoint=hub.endpoint)
    assert hub.asked == []
    (tmp_path / PARTIAL).write_bytes(CONTENT[:1000])  # what is there already needs no room
    assert download(MODEL, tmp_path, endpoint=hub.endpoint).read_bytes() == CONTENT


def test_a_disk_that_fills_up_ends_with_a_sentence(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        ModelFileError, match=r"cannot be written \(No space left on device\); what was fetched is kept"
    ):
        download(MODEL, tmp_path, endpoint=hub.endpoint)
    assert names(tmp_path) == [PARTIAL]


def test_a_folder_that_cannot_be_made_ends_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelFileError, match="cannot be written"):
        download(MODEL, tmp_path / "file" / "below")


def test_two_downloads_of_one_file_do_not_meet(hub: Hub, tmp_path: Path) -> None:
    def again(done: int, total: int) -> None:
        with pytest.raises(ModelFileError, match="another process is downloading it"):
            download(MODEL, tmp_path, endpoint=hub.endpoint)

    assert download(MODEL, tmp_path, endpoint=hub.endpoint, on_progress=again).read_bytes() == CONTENT


def test_offline_asks_nothing(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelFileError, match="local_files_only forbids the download"):
        download(MODEL, tmp_path, endpoint=hub.endpoint, local_files_only=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelFileError, match="HF_HUB_OFFLINE forbids the download"):
        download(MODEL, tmp_path, endpoint=hub.endpoint)
    assert hub.asked == []
    (tmp_path / MODEL.name).write_bytes(CONTENT)
    assert download(MODEL, tmp_path, endpoint=hub.endpoint) == tmp_path / MODEL.name


def test_the_hub_cache_is_used_when_it_is_right(hub: Hub, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub-cache" / "models--someone--models" / "snapshots" / REVISION / "vae"
    snapshot.mkdir(parents=True)
    (snapshot / MODEL.name).write_bytes(CONTENT)
    assert download(MODEL, tmp_path / "a", local_files_only=True).read_bytes() == CONTENT
    (snapshot / MODEL.name).write_bytes(CONTENT[:-1] + b"\0")
    assert download(MODEL, tmp_path / "b", endpoint=hub.endpoint).read_bytes() == CONTENT
    assert len(ranges(hub)) == 1


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://[::1", "led to an address that cannot be read"),
        ("http://127.0.0.1:99999999/x", "stopped at 0 of|cannot be read"),
        ("http://\\x00/x", "stopped at 0 of|cannot be read"),
        ("ftp://127.0.0.1/x", "neither http nor https|answered HTTP 302"),
        ("file:///etc/passwd", "neither http nor https|answered HTTP 302"),
        ("loop", "answered HTTP 302"),
    ],
)
def test_redirects_to_nowhere_are_one_sentence(hub: Hub, tmp_path: Path, location: str, words: str) -> None:
    path = next(iter(hub.files))
    hub.location = f"{hub.endpoint}{path}" if location == "loop" else location
    with pytest.raises(ModelFileError, match=words) as caught:
        download(model_file(), tmp_path, endpoint=hub.endpoint)
    assert "\n" not in str(caught.value)
    assert not any(path.suffix == ".safetensors" for path in tmp_path.iterdir())


def test_a_server_that_drips_is_given_up(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.drip_s = 0.02
    monkeypatch.setattr(transfer, "STALL_S", 0.2)
    with pytest.raises(ModelFileError, match="bytes arrived in"):
        download(model_file(), tmp_path, endpoint=hub.endpoint)
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]


def test_a_server_that_never_comes_to_the_point_is_given_up(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.endless_head = True
    monkeypatch.setattr(transfer, "OPENING_S", 0.1)
    with pytest.raises(ModelFileError, match="no answer within"):
        download(model_file(), tmp_path, endpoint=hub.endpoint)
    hub.endless_head = False
