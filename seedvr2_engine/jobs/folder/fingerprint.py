"""Whether a file is still the one that a job began with, without reading all of a large one."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...errors import ModelFileError, VideoError
from ...video.reading.pictures.selection import list_pictures

_BLOCK_BYTES = 64 << 10
_BLOCKS = 256
"""Of a file of up to 16 MB every byte is looked at, of a larger one as much, spread over it."""


@dataclass(frozen=True)
class FileFacts:
    """What a file, or the pictures of a sequence, were."""

    name: str
    size_bytes: int
    digest: str
    """SHA-256 of the size and of the blocks that are looked at."""

    @staticmethod
    def of(path: Path, error: type[ModelFileError] | type[VideoError]) -> FileFacts:
        """The facts of a file; raises `error` where it cannot be read."""
        try:
            digest = sha256()
            size = _add(path, digest)
        except OSError as failure:
            raise error(f"{path}: it cannot be read ({failure.strerror}).") from failure
        return FileFacts(path.name, size, digest.hexdigest())

    @staticmethod
    def of_source(source: str) -> FileFacts:
        """The facts of a clip, or of all pictures of a sequence; raises VideoError where it cannot be read."""
        path = Path(source)
        pictures = list_pictures(path)
        if pictures is None:
            return FileFacts.of(path, VideoError)
        digest, size = sha256(), 0
        for picture in pictures:
            facts = FileFacts.of(picture, VideoError)
            size += facts.size_bytes
            digest.update(f"{facts.name}\n{facts.digest}\n".encode())
        return FileFacts(path.name, size, digest.hexdigest())

    @staticmethod
    def from_json(facts: Any) -> FileFacts:
        """The facts as they are in a manifest; raises KeyError, TypeError or ValueError where they are none."""
        return FileFacts(str(facts["name"]), int(facts["size_bytes"]), str(facts["digest"]))

    def is_same(self, other: FileFacts) -> bool:
        """Whether two are of one content; a file may have moved."""
        return (self.size_bytes, self.digest) == (other.size_bytes, other.digest)


def _add(path: Path, digest: Any) -> int:
    """Add a file's size and blocks to a digest; the size."""
    size = path.stat().st_size
    digest.update(f"{size}\n".encode())
    with path.open("rb") as file:
        if size <= _BLOCK_BYTES * _BLOCKS:
            digest.update(file.read())
            return size
        for block in range(_BLOCKS):
            file.seek((size - _BLOCK_BYTES) * block // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))
    return size
