"""A small file system that can be filled, where the system lets us mount one (Linux, root or user namespaces)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

DISK_BYTES = 8 << 20


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """Mount a small file system there; False where we may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    mounted = (
        sys.platform == "linux" and libc.mount(b"none", bytes(place), b"tmpfs", 0, f"size={DISK_BYTES}".encode()) == 0
    )
    try:
        yield mounted
    finally:
        if mounted:
            libc.umount2(bytes(place), 2)  # MNT_DETACH


def own_mounts() -> None:
    """Let what this process mounts be seen by it and its forks alone, as far as the system allows it."""
    if sys.platform != "linux":
        return
    new_mounts, new_user, private = 0x20000, 0x10000000, 1 << 18 | 1 << 14
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(new_mounts) != 0 and libc.unshare(new_mounts | new_user) == 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    libc.mount(None, b"/", None, private, None)


def fill(place: Path) -> None:
    """Write until the small disk is full."""
    if os.path.ismount(place):
        with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1 << 8, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))
