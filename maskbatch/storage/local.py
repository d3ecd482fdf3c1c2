"""A folder of the local (or a mounted) file system as a store."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, cast

from maskbatch.errors import OutputError, UsageError
from maskbatch.storage import atomic
from maskbatch.storage.atomic import FileOps, written_whole
from maskbatch.storage.base import Lock, Store, WriteOnly
from maskbatch.storage.file_lock import FileLock, holder_of

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


class LocalStore:
    """A folder; what is written is described in `storage.atomic`. The methods are those of `Store`."""

    replaces_folders = True

    def __init__(self, root: Path | str, ops: FileOps | None = None) -> None:
        self.root = Path(root).absolute()
        self.ops = ops or atomic.default_ops

    @property
    def url(self) -> str:
        return str(self.root)

    def write(self, name: str, data: bytes) -> None:
        atomic.write_bytes(self.root / name, data, self.ops)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        with written_whole(self.root / name, self.ops) as temporary, self.ops.open(temporary) as raw:
            yield cast("IO[bytes]", _SeamedFile(raw, self.ops))
            raw.flush()

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

    def names_below(self, folder: str) -> list[str]:
        root = self.root / folder
        if root.exists() and not root.is_dir():
            raise UsageError(f"{root} is a file; name a folder with --out, or a file that ends in .parquet")
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())

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
        for path in (self.root / folder).glob(f".{of}.*-????????.tmp"):
            self.remove(f"{folder}/{path.name}")

    def below(self, name: str) -> Store:
        return LocalStore(self.root / name.strip("/"), self.ops)

    @contextmanager
    def replacing(self, folder: str, obsolete: Iterable[str]) -> Iterator[Store]:
        """See `Store.replacing`: the new folder is built beside the old one and swapped with it."""
        target = self.root / folder.strip("/")
        for leftover in target.parent.glob(f".{target.name}.*-folder.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        staging = target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}-folder.tmp")
        try:
            with atomic.as_output_error(target):
                staging.mkdir(parents=True)
                yield LocalStore(staging, self.ops)
                _swap(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)  # what was there before, or what was not finished

    def local_path(self, name: str) -> Path | None:
        return self.root / name

    def lock(self, name: str) -> AbstractContextManager[Lock]:
        return FileLock(self.root / name)

    def holder(self, name: str) -> str | None:
        return holder_of(self.root / name)


class _SeamedFile(WriteOnly):
    """A binary file whose writes go through `FileOps.write`, so that the tests can let them fail."""

    def __init__(self, file: IO[bytes], ops: FileOps) -> None:
        self._file = file
        self._ops = ops

    def write(self, data: bytes) -> int:
        if (
            not self._file.closed
        ):  # else given up after an error; a Parquet writer still adds its footer when it is collected
            self._ops.write(self._file, bytes(data))
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self._file.tell()


def _swap(new: Path, target: Path) -> None:
    """Give `new` the name `target`; what had it ends up under the name of `new`."""
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        old = new.with_name(new.name.replace(".tmp", "-old.tmp"))
        target.rename(old)
        new.rename(target)
        old.rename(new)
    with contextlib.suppress(OSError):  # not every file system can flush a folder
        atomic.sync_folder(target.parent, atomic.default_ops)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step (Linux, renameat2); False where the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    result = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return int(result) == 0
