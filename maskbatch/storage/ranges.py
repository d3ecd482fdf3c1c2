"""An address for some bytes of a file: ``tar://CONTAINER#OFFSET,SIZE``, where CONTAINER is a local path or a URL.

So a member of an archive is opened like any other input, by whichever worker gets it, without an index beside it.
"""

from __future__ import annotations

import io
from typing import BinaryIO

PREFIX = "tar://"


def range_path(container: str, offset: int, size: int) -> str:
    """The address of `size` bytes of `container` from `offset`."""
    return f"{PREFIX}{container}#{offset},{size}"


def is_range(path: str) -> bool:
    """Whether `path` is such an address."""
    return path.startswith(PREFIX)


def split_range(path: str) -> tuple[str, int, int]:
    """Container, offset and size; raises ValueError for anything that `range_path` did not make."""
    container, _, numbers = path.removeprefix(PREFIX).rpartition("#")
    offset, _, size = numbers.partition(",")
    return container, int(offset), int(size)


class Window(io.RawIOBase):
    """Some bytes of an open file as a file of their own; closing it closes the file."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file = file
        self._offset = offset
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        self._file.seek(self._offset + self._at)
        data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
