"""A folder with an input, old outputs and somebody's files, and what may be in it after an interrupted run."""

from __future__ import annotations

import hashlib
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av
from PIL import Image

from seedvr2_engine.cli.terminal.console import EXIT_UNTOLD

if TYPE_CHECKING:
    from .interrupt import Ended

OLD_PICTURES = 40
SEQUENCE_NAME = "%06d.png"
_SOUND = 5
MAY_LOSE = {".mp4": 18 + _SOUND, ".webm": 14 + _SOUND, ".mkv": 1 + _SOUND, ".mov": 4 + _SOUND}
"""Frames that encoder and file hold back, by ending, with the codecs of the runs (H.264, VP9, FFV1, ProRes) and sound.

A kill -9 loses them, and so does a full disk, which cannot take them. Pictures are whole as soon as they are written.
"""


class Folder(NamedTuple):
    """The place of one run."""

    root: Path
    source: Path
    target: Path
    frames: int
    """Frames of the whole result."""
    before: dict[str, str]
    """All files at the start and their digests, by their names below `root`."""
    old: frozenset[str]
    """Those of them that the run is asked to replace."""

    @classmethod
    def make(
        cls, place: Path, source: Path, name: str, frames: int, *, has_old: bool, is_crowded: bool = True
    ) -> Folder:
        """Fill a new folder `work` in `place`.

        has_old: with outputs that are to be replaced. is_crowded: with somebody's files whose names are like
        temporary ones.
        """
        root = place / "work"
        root.mkdir()
        target = root / name
        is_sequence = not target.suffix
        own = Path(shutil.copy(source, root))
        theirs = ["notes.txt", "7.png"]
        if is_crowded:
            theirs += [f"{target.stem}.partial{target.suffix}", f".{name}.partial", f"{name}.lock", f"{name}~"]
        old: set[str] = set()
        if has_old and is_sequence:
            target.mkdir()
            old = {f"{name}/{SEQUENCE_NAME % number}" for number in range(1, OLD_PICTURES + 1)}
            theirs += [f"{name}/{file}" for file in ("7.png", "20231224.png", "000999.png", "notes.txt")]
            theirs += [f"{name}/pictures.partial"] if is_crowded else []
        elif has_old:
            old = {name}
        for file in (*theirs, *old):
            (root / file).write_text(f"what was in {file}")
        return cls(root, own, target, frames, snapshot(root), frozenset(old))

    @property
    def is_sequence(self) -> bool:
        return not self.target.suffix


def snapshot(root: Path) -> dict[str, str]:
    """The digests of all files below a folder; of a folder "folder"."""
    return {
        path.relative_to(root).as_posix(): "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
    }


def count_frames(path: Path) -> int:
    """Frames of a clip, a picture, or a folder of pictures that decode; reading stops at the first that does not."""
    if path.is_dir():
        return sum(count_frames(picture) for picture in path.iterdir())
    if path.suffix == ".png":
        try:
            with Image.open(path) as picture:
                picture.load()
        except (OSError, SyntaxError, ValueError):
            return 0
        return 1
    count = 0
    try:
        with av.open(str(path)) as container:
            for _ in container.decode(video=0):
                count += 1
    except (av.FFmpegError, OSError, IndexError):
        pass
    return count


def judge(folder: Folder, ending: str, ended: Ended) -> tuple[list[str], int]:
    """Return all faults, as sentences, and how many frames that were written are in no file."""
    after = snapshot(folder.root)
    faults = _faults_of_the_end(ending, ended)
    for name, digest in folder.before.items():
        if digest != after.get(name, "nothing") and name not in folder.old:
            what = "the input" if name == folder.source.name else "somebody's file"
            faults.append(f"{what} {name} was {'changed' if name in after else 'deleted'}")
    result, is_whole = _result(folder, after, ending, faults)
    new = sorted(name for name in after if name not in folder.before and name not in result)
    topmost = [folder.root / name for name in new if str(Path(name).parent) not in new]
    kept = [path for path in topmost if count_frames(path)]
    if is_whole:
        in_files = folder.frames
        if ended.code not in (0, *_signal_codes(ending), *_untold_codes(ending)):
            faults.append(f"the result is whole, but the exit code is {ended.code}")
        left = topmost
    else:
        if ended.code in (0, *_untold_codes(ending)):
            faults.append(f"exit {ended.code} without a whole result")
        # Pictures that are put in place one after the other are in both folders.
        placed = [name for name in result if folder.is_sequence and after.get(name) != folder.before.get(name)]
        in_files = max(map(count_frames, kept), default=0) + sum(count_frames(folder.root / name) for name in placed)
        named = [path for path in kept if path.name in "".join(ended.stderr.split())]
        if kept and not named and ending not in ("no stderr", "terminal", "SIGKILL"):
            faults.append(f"{', '.join(path.name for path in kept)} holds finished frames and is not named")
        left = [path for path in topmost if path not in kept] if len(kept) <= 1 else topmost
    lost = max(0, ended.written - in_files)
    bound = MAY_LOSE.get(folder.target.suffix, 0) if ending in ("full disk", "SIGKILL") else 0
    if lost > bound:
        faults.append(f"{lost} of {ended.written} frames that were written are lost")
    if ending != "SIGKILL":
        if left:
            faults.append(f"left behind: {', '.join(str(path.relative_to(folder.root)) for path in left)}")
    elif len(topmost) > (3 if folder.is_sequence and folder.old else 2):
        faults.append(f"kill -9 left more than new pictures, old ones and a lock: {', '.join(map(str, topmost))}")
    return faults, lost


def _result(folder: Folder, after: dict[str, str], ending: str, faults: list[str]) -> tuple[set[str], bool]:
    """The names of the result, and whether it is whole; notes what is neither the old one nor a whole new one."""
    name = folder.target.name
    if not folder.is_sequence:
        if after.get(name) == folder.before.get(name):
            return {name}, False
        if name not in after:
            faults.append("the old output is gone")
            return {name}, False
        found = count_frames(folder.target)
        if found != folder.frames:
            faults.append(f"the output has {found} of {folder.frames} frames")
        return {name}, found == folder.frames
    names = {f"{name}/{SEQUENCE_NAME % number}" for number in range(1, folder.frames + 1)}
    there = {picture for picture in names if picture in after}
    fresh = {picture for picture in there if after[picture] != folder.before.get(picture)}
    if any(not count_frames(folder.root / picture) for picture in fresh):
        faults.append("a picture of the result is cut off")
    is_whole = fresh == names
    # One after the other they are put in place: kill -9 may come between two.
    # An old one may have been set aside, and its new one not be there yet.
    aside = {picture for picture in folder.old if folder.before[picture] in after.values()}
    if not is_whole and (fresh or there != folder.old) and not (ending == "SIGKILL" and there | aside >= folder.old):
        faults.append(f"the result has {len(fresh)} new and {len(there - fresh)} old pictures of {len(names)}")
    return {name, *there} if there or name in folder.before else set(there), is_whole


def _faults_of_the_end(ending: str, ended: Ended) -> list[str]:
    faults = ["it hangs"] if ended.hangs else []
    for words in ("Traceback", "Exception ignored", "Fatal Python error", "Error in"):
        if words in ended.stderr:
            faults.append(f"on standard error: {ended.stderr[ended.stderr.index(words) :][-300:]!r}")
            break
    expected = {0, *_signal_codes(ending)}
    if ended.at in ("starting", "over"):
        expected |= {-code + 128 for code in _signal_codes(ending)}
    expected |= _untold_codes(ending) | ({2} if ending == "full disk" else set())
    if ended.code not in expected:
        faults.append(f"exit code {ended.code}, expected one of {sorted(expected)}")
    return faults


def _signal_codes(ending: str) -> set[int]:
    """The exit codes of a command that ended because of a signal: 130 for all that do what Ctrl-C does."""
    name = {"SIGINT twice": "SIGINT", "terminal": "SIGHUP"}.get(ending, ending)
    if not name.startswith("SIG"):
        return set()
    number = int(getattr(signal, name))
    return {-number} if name == "SIGKILL" else {130, 128 + number}


def _untold_codes(ending: str) -> set[int]:
    """The exit code of a command whose result is whole, but which could not say so, as there was no standard output."""
    return {EXIT_UNTOLD} if ending in ("no stdout", "terminal") else set()
