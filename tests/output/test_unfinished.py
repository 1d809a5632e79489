"""Files that get their name when they are whole: nothing that was there before is touched, nothing new is lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seedvr2_engine.errors import OutputError
from seedvr2_engine.output import lock as locks
from seedvr2_engine.output import names, unfinished
from seedvr2_engine.output.names import unique_sibling
from seedvr2_engine.output.unfinished import PartialFile, place_new, write_whole

posix = pytest.mark.skipif(sys.platform == "win32", reason="names that Windows does not have")


def listed(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def written(target: Path, data: bytes = b"new", **options) -> PartialFile:
    file = PartialFile(target, **{"overwrite": False, **options})
    file.write(data)
    return file


def test_a_file_takes_its_name_at_the_end(tmp_path):
    file = written(tmp_path / "a.mp4")
    assert not (tmp_path / "a.mp4").exists()
    assert file.path.read_bytes() == b"new"  # Nothing waits in a buffer.
    file.commit()
    assert listed(tmp_path) == ["a.mp4"]


def test_what_appeared_meanwhile_is_not_replaced(tmp_path):
    file = written(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").write_bytes(b"theirs")
    with pytest.raises(OutputError, match="another file took this name in the meantime"):
        file.commit()
    assert file.keep().read_bytes() == b"new"
    assert (tmp_path / "a.mp4").read_bytes() == b"theirs"
    assert listed(tmp_path) == sorted(["a.mp4", file.path.name])


def test_a_file_that_another_program_put_there_is_not_moved(tmp_path):
    file = written(tmp_path / "a.mp4", overwrite=True)
    file.path.unlink()
    file.path.write_bytes(b"theirs")
    with pytest.raises(OutputError, match="moved, changed or removed by another program"):
        file.commit()
    file.discard()
    assert file.path.read_bytes() == b"theirs"
    assert listed(tmp_path) == [file.path.name]


@pytest.mark.parametrize("taken", [False, True])
def test_where_there_are_no_hard_links(tmp_path, monkeypatch, taken):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "new").write_bytes(b"new")
    if taken:
        (tmp_path / "a").write_bytes(b"theirs")
        with pytest.raises(FileExistsError):
            place_new(tmp_path / "new", tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == b"theirs"
    else:
        place_new(tmp_path / "new", tmp_path / "a")
        assert listed(tmp_path) == ["a"]


@posix
def test_links_are_written_through_or_refused(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real.mp4").write_bytes(b"old")
    link, dangling = tmp_path / "a.mp4", tmp_path / "b.mp4"
    link.symlink_to(tmp_path / "there" / "real.mp4")
    dangling.symlink_to(tmp_path / "nowhere.mp4")
    with pytest.raises(OutputError, match="exists already"):
        PartialFile(link, overwrite=False)
    written(link, overwrite=True).commit()
    assert link.is_symlink()
    assert (tmp_path / "there" / "real.mp4").read_bytes() == b"new"
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="a link to what does not exist"):
            PartialFile(dangling, overwrite=overwrite)
    assert listed(tmp_path) == ["a.mp4", "b.mp4", "there"]


@posix
def test_odd_things_are_no_outputs(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    for name in (tmp_path / "fifo.mp4", Path("/dev/null")):
        with pytest.raises(OutputError, match="no ordinary file"):
            PartialFile(name, overwrite=True)
    with pytest.raises(OutputError, match="its folder does not exist"):
        PartialFile(tmp_path / "no" / "a.mp4", overwrite=True)


@pytest.mark.parametrize("stem", ["x", "é", "字"])
def test_names_as_long_as_they_may_be(tmp_path, stem):
    most = names.longest_name(tmp_path)
    target = tmp_path / f"{stem * ((most - 4) // len(stem.encode()))}.mp4"
    written(target).commit()
    assert listed(tmp_path) == [target.name]
    with pytest.raises(OutputError, match="are allowed here; shorten it"):
        PartialFile(target.with_name(f"{'x' * most}.mp4"), overwrite=False)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text(tmp_path):
    target = tmp_path / os.fsdecode(b"a\xff\xfe.mp4")
    written(target).commit()
    assert os.listdir(os.fsencode(tmp_path)) == [b"a\xff\xfe.mp4"]  # noqa: PTH208


def test_small_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_whole(tmp_path / "a.json", b"1", overwrite=False)
    with pytest.raises(OutputError, match="exists already"):
        write_whole(tmp_path / "a.json", b"2", overwrite=False)
    monkeypatch.setattr(unfinished.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(OutputError, match="the disk is full"):
        write_whole(tmp_path / "a.json", b"2", overwrite=True)
    assert (tmp_path / "a.json").read_bytes() == b"1"
    assert listed(tmp_path) == ["a.json"]


def test_endings_of_use_only_when_they_are_of_use(tmp_path):
    assert unique_sibling(tmp_path / "a.gguf", "partial", keeps_ending=False).name.startswith("a.gguf.partial-")
    assert unique_sibling(tmp_path / "a.mp4", "partial").suffix == ".mp4"


def test_a_second_writer_is_told_who_writes(tmp_path):
    first = written(tmp_path / "a.mp4")
    with pytest.raises(OutputError, match=rf"process {os.getpid()} on {locks.socket.gethostname()} is writing it"):
        PartialFile(tmp_path / "a.mp4", overwrite=True)
    PartialFile(tmp_path / "b.mp4", overwrite=True).discard()
    first.commit()
    written(tmp_path / "a.mp4", b"second", overwrite=True).commit()
    assert (tmp_path / "a.mp4").read_bytes() == b"second"
    assert listed(tmp_path) == ["a.mp4"]


KILLED = """
import os, signal, sys
from pathlib import Path
from seedvr2_engine.output.unfinished import PartialFile
PartialFile(Path(sys.argv[1]), overwrite=True).write(b"x")
os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
def test_a_killed_writer_locks_nothing(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.mp4")], check=False)
    (killed,) = tmp_path.glob("a.partial-*")
    written(tmp_path / "a.mp4").commit()
    assert listed(tmp_path) == sorted(["a.mp4", killed.name])
    assert killed.read_bytes() == b"x"


@posix
def test_somebody_s_own_file_of_the_lock_s_name_is_left_alone(tmp_path):
    own = names.hidden_sibling(tmp_path / "a.mp4", locks.LOCK_MARK)
    for make in (
        lambda: own.write_text("mine"),
        own.mkdir,
        lambda: own.symlink_to(tmp_path / "x"),
        lambda: os.mkfifo(own),
    ):
        make()
        before = own.lstat()
        written(tmp_path / "a.mp4", overwrite=True).commit()
        assert own.lstat() == before or own.is_dir()
        own.rmdir() if own.is_dir() else own.unlink()


@posix
def test_a_file_system_without_locks_has_none(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    written(tmp_path / "a.mp4").commit()
    assert listed(tmp_path) == ["a.mp4"]


@posix
def test_a_child_that_outlived_its_writer_holds_nothing_up(tmp_path):
    own = names.hidden_sibling(tmp_path / "a.mp4", locks.LOCK_MARK)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    own.write_text(f"{locks._TITLE}\n{ended.pid}\n{locks.socket.gethostname()}\n")
    with own.open() as inherited:
        locks.fcntl.flock(inherited, locks.fcntl.LOCK_EX)
        written(tmp_path / "a.mp4").commit()
        own.write_text(f"{locks._TITLE}\n{ended.pid}\nanother-host\n")  # There the number says nothing.
        with pytest.raises(OutputError, match=rf"process {ended.pid} on another-host is writing it"):
            PartialFile(tmp_path / "a.mp4", overwrite=True)


def test_only_names_of_our_own_are_called_an_earlier_run_s(tmp_path):
    for name in (
        "a.partial-0123abcd.mp4",
        "a.partial-0123abcd.mp4.bak",
        "a.partial-0123abc.mp4",
        "b.partial-0123abcd.mp4",
    ):
        (tmp_path / name).touch()
    assert names.earlier_siblings(tmp_path / "a.mp4", "partial") == [tmp_path / "a.partial-0123abcd.mp4"]
    assert names.earlier_siblings(tmp_path / "no" / "a.mp4", "partial") == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("ENOSPC", "the disk is full"),
        ("EDQUOT", "the disk is full"),
        ("EFBIG", "grew past what this file system or account allows"),
        ("EACCES", "not allowed to write here"),
        ("EPERM", "not allowed to write here"),
        ("EROFS", "not allowed to write here"),
        ("ENAMETOOLONG", "shorten it"),
        ("EIO", "check the disk and the folder"),
    ],
)
def test_what_a_system_says_is_one_sentence(tmp_path, kind, words):
    number = getattr(unfinished.errno, kind)
    sentence = unfinished.system_sentence(tmp_path / "a.mp4", OSError(number, os.strerror(number)))
    assert sentence.startswith(f"{tmp_path / 'a.mp4'}: ")
    assert words in sentence
