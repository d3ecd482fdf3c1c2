"""Where parts, receipts and results are kept: named blobs that appear whole or not at all.

`LocalStore` is a folder. A blob is written under a temporary name in the same folder, flushed to the disk, renamed into place,
and the folder entry is flushed too, so that after a power loss a name that exists is a complete file.

`FileOps` is the seam at which tests make any single file operation fail.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from maskbatch.errors import OutputError


class Store(Protocol):
    """Named blobs below one place. Names are ``/``-separated."""

    @property
    def url(self) -> str:
        """Where it is: an absolute path or a URL. `open_store(url)` opens the same store in another process."""

    def write(self, name: str, data: bytes) -> None:
        """Store `data` whole and durably; raises OutputError, leaving what was there before."""

    def writing(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A file to stream into; it takes the name when the block ends without an error."""

    def read(self, name: str) -> bytes:
        """The blob; raises FileNotFoundError."""

    def size(self, name: str) -> int | None:
        """Bytes of the blob, or None where there is none."""

    def names(self, folder: str) -> list[str]:
        """Names directly in a folder, sorted; without temporary ones. Empty where the folder does not exist."""

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """Names and blobs in the given order; None for those that are not there. Quicker than one by one where a store is far."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of each blob directly in a folder, by name, sorted; without temporary ones. One listing, however many there are."""

    def remove(self, name: str) -> None:
        """Remove a blob; no error where there is none."""


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


_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)
"""What file systems answer that cannot flush a folder (SMB, some FUSE): their server decides what survives a power loss."""


class WriteOnly:
    """What the streams of all stores share: closing one is the store's own affair, for it knows whether the block ended well."""

    closed = False

    def close(self) -> None:
        """Take no more; nothing is completed yet."""
        self.closed = True

    def writable(self) -> bool:
        """They are."""
        return True

    def readable(self) -> bool:
        """They are not."""
        return False

    def seekable(self) -> bool:
        """They are not."""
        return False


class _SeamedFile(WriteOnly):
    """A binary file whose writes go through `FileOps.write`, so that the tests can let them fail."""

    def __init__(self, file: IO[bytes], ops: FileOps) -> None:
        self._file = file
        self._ops = ops

    def write(self, data: bytes) -> int:
        if (
            self._file.closed
        ):  # given up after an error; a Parquet writer still wants to add its footer when it is collected
            return len(data)
        self._ops.write(self._file, bytes(data))
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self._file.tell()


class LocalStore:
    """A folder of the local (or a mounted) file system."""

    def __init__(self, root: Path | str, ops: FileOps | None = None) -> None:
        self.root = Path(root).absolute()
        self.ops = ops or default_ops

    @property
    def url(self) -> str:
        return str(self.root)

    def write(self, name: str, data: bytes) -> None:
        with self.writing(name) as file:
            file.write(data)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        target = self.root / name
        temporary = target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
        try:
            self._make_folder(target.parent)
            raw = self.ops.open(temporary)
            try:
                with raw:
                    yield _SeamedFile(raw, self.ops)  # type: ignore[misc]
                    raw.flush()
                    self.ops.fsync(raw.fileno())
                self.ops.rename(temporary, target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            self._sync_folder(target.parent)
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error.strerror or error}") from error

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
            self._sync_folder(folder.parent)

    def _sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            self.ops.fsync(descriptor)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise
        finally:
            os.close(descriptor)

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def size(self, name: str) -> int | None:
        try:
            return (self.root / name).stat().st_size
        except OSError:
            return None

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        for name in names:
            try:
                yield name, self.read(name)
            except OSError:
                yield name, None

    def names(self, folder: str) -> list[str]:
        return list(self.sizes(folder))

    def sizes(self, folder: str) -> dict[str, int]:
        try:
            with os.scandir(self.root / folder) as entries:
                return dict(sorted((e.name, e.stat().st_size) for e in entries if not e.name.endswith(".tmp")))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise OutputError(f"cannot read {self.root / folder}: {error.strerror or error}") from error

    def remove(self, name: str) -> None:
        try:
            (self.root / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot remove {self.root / name}: {error.strerror or error}") from error

    def remove_temporaries(self, folder: str, of: str = "*") -> None:
        """Remove what a killed writer left half-written of the blobs in `folder` whose names match the glob `of`."""
        for path in (self.root / folder).glob(f".{of}.*-????????.tmp"):
            self.remove(f"{folder}/{path.name}")


default_ops = FileOps()
"""What `LocalStore` uses unless told otherwise; tests put a failing one here."""


def open_store(url: str) -> Store:
    """The store at a local path, or at a URL such as ``s3://bucket/folder`` (needs the extra of that store)."""
    if "://" in url:
        from maskbatch.jobs.object_store import ObjectStore

        return ObjectStore(url)
    return LocalStore(url)
