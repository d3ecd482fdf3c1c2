"""The one atomic write: a file appears under its name whole, or not at all.

It is written under a temporary name in the same folder, flushed to the disk, renamed into place, and the folder entry is flushed
too, so that after a power loss a name that exists is a complete file. `FileOps` is the seam at which tests make any single file
operation fail.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from maskbatch.errors import OutputError

_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)
"""What file systems answer that cannot flush a folder (SMB, some FUSE): their server decides what survives a power loss."""


class FileOps:
    """The operations on files that can fail."""

    def open(self, path: Path) -> IO[bytes]:
        """Create a new file for writing."""
        return path.open("xb")

    def write(self, file: IO[bytes], data: bytes) -> None:
        """Write all of `data`."""
        file.write(data)

    def fsync(self, fileno: int) -> None:
        """Wait until the disk has it."""
        os.fsync(fileno)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file its final name, replacing what had it."""
        os.replace(old, new)  # noqa: PTH105  the name of the system call is what the tests speak of


default_ops = FileOps()
"""What is used unless another is given; tests put a failing one here."""


@contextmanager
def written_whole(target: Path, ops: FileOps | None = None) -> Iterator[Path]:
    """A temporary path beside `target`, which takes its name when the block ends well and is removed otherwise.

    Args:
        target: the final name. Its folder is made.
        ops: the file operations to use.

    Raises:
        OutputError: the file cannot be written (an `OSError` in the block is translated too).
    """
    ops = ops or default_ops
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    with as_output_error(target):
        try:
            make_folder(target.parent, ops)
            yield temporary
            _sync(temporary, ops)
            ops.rename(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(target.parent, ops)


def write_bytes(target: Path, data: bytes, ops: FileOps | None = None) -> None:
    """Write a small file whole. Raises OutputError."""
    ops = ops or default_ops
    with written_whole(target, ops) as temporary, ops.open(temporary) as file:
        ops.write(file, data)


@contextmanager
def as_output_error(target: Path) -> Iterator[None]:
    """An `OSError` in the block becomes an OutputError that names the file and the reason."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error


def make_folder(folder: Path, ops: FileOps) -> None:
    """Make a folder and those above it, durably."""
    if not folder.is_dir():
        make_folder(folder.parent, ops)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent, ops)


def sync_folder(folder: Path, ops: FileOps) -> None:
    """Flush a folder's entries to the disk, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        ops.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def _sync(path: Path, ops: FileOps) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        ops.fsync(descriptor)
    finally:
        os.close(descriptor)
