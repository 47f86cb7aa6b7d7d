"""Whether a folder is on a disk of this machine, or on a file system that several share."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
LOCAL = {"apfs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"}
"""File systems that one machine alone writes to; of any other, many machines may."""


def is_local(path: Path) -> bool:
    """Whether this machine alone writes to the disk of `path`; taken to be so where the system does not say."""
    try:
        mounts = MOUNTS.read_text()
    except OSError:
        return True
    return file_system(path.resolve(), mounts) in LOCAL | {None}


def file_system(path: Path, mounts: str) -> str | None:
    """The file system of an absolute path: that of the longest mount point above it, the newest of equals.

    >>> mounts = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\\n40 21 0:44 / /home/my\\\\040lab rw shared:1 - nfs4 server:/ rw"
    >>> file_system(Path("/home/my lab/runs"), mounts), file_system(Path("/home/my"), mounts)
    ('nfs4', 'ext4')
    """
    found: tuple[int, str | None] = (0, None)
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), left.split()[4]))
        if path.is_relative_to(point) and len(point.parts) >= found[0]:
            found = len(point.parts), right.split()[0]
    return found[1]
