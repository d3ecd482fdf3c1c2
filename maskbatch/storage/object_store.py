"""Parts, receipts and results in an object store (``s3://``, ``gs://``, ``az://``, whatever fsspec opens).

An object appears whole or not at all, so a blob is one put; there is no rename, and none is needed: a part counts when its receipt
exists. Streams go up as multipart uploads, which nobody sees until they are completed, and which are given up when the stream fails.
A store that is busy is asked again, later each time (`storage.retry`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from maskbatch.errors import InputError, OutputError
from maskbatch.storage.base import Lock, Store, WriteOnly
from maskbatch.storage.object_lock import ObjectLock, holder_in
from maskbatch.storage.opener import url_filesystem
from maskbatch.storage.retry import RetryPolicy, retry

STREAM_BLOCK = 16 << 20
"""Bytes of a multipart upload's parts, which is also what a stream holds in memory. 10,000 parts make 160 GB at most."""
READERS = 16
READ_CHUNK = 256

Answer = TypeVar("Answer")


class ObjectStore:
    """The objects below a URL. Credentials and end points come from the store's own environment variables and files."""

    replaces_folders = False

    def __init__(self, url: str, policy: RetryPolicy | None = None) -> None:
        self._url = url.rstrip("/")
        self._policy = policy or RetryPolicy()
        try:
            self._fs, inner = url_filesystem(self._url)
        except InputError as error:
            raise OutputError(error.message) from error
        self._base = inner.rstrip("/")

    @property
    def url(self) -> str:
        """The URL that was given."""
        return self._url

    def write(self, name: str, data: bytes) -> None:
        """Put an object; raises OutputError, leaving what was there before."""
        path = self._path(name)
        try:
            self._call(f"write {name}", lambda: self._fs.pipe_file(path, data))
        except FileNotFoundError as error:  # no such bucket
            raise self._failure(f"write {name}", error) from error

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A file to stream into, as a multipart upload that is completed when the block ends without an error."""
        path = self._path(name)
        raw = self._call(f"write {name}", lambda: self._fs.open(path, "wb", block_size=STREAM_BLOCK))
        try:
            yield cast("IO[bytes]", _Upload(raw, lambda error: self._failure(f"write {name}", error)))
            try:
                raw.close()
            except Exception as error:
                raise self._failure(f"write {name}", error) from error
        except BaseException:
            _give_up(raw)
            raise

    def read(self, name: str) -> bytes:
        """The object's bytes; raises FileNotFoundError where there is none, OutputError where the store does not answer."""
        path = self._path(name)
        return bytes(self._call(f"read {name}", lambda: self._fs.cat_file(path)))

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """Names and bytes in the given order, read by a few threads; None for objects that have vanished."""
        names = list(names)
        with ThreadPoolExecutor(READERS, thread_name_prefix="maskbatch-store") as pool:
            for start in range(0, len(names), READ_CHUNK):
                chunk = names[start : start + READ_CHUNK]
                yield from zip(chunk, pool.map(self._read_or_none, chunk), strict=True)

    def size(self, name: str) -> int | None:
        """Bytes of the object, or None where there is none."""
        path = self._path(name)
        self._forget(path)
        try:
            info = self._call(f"look at {name}", lambda: self._fs.info(path))
        except FileNotFoundError:
            return None
        return int(info.get("size") or 0) if info.get("type") == "file" else None

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of each object directly in a folder, by name, sorted. Empty where there is none."""
        path = self._path(folder)
        self._forget(path)
        try:
            listed = self._call(f"list {folder}", lambda: self._fs.ls(path, detail=True))
        except FileNotFoundError:
            return {}
        prefix = f"{path}/"
        found = {
            str(entry["name"]).rstrip("/").rpartition("/")[2]: int(entry.get("size") or 0)
            for entry in listed
            if entry.get("type") == "file" and str(entry["name"]).startswith(prefix)
        }
        return dict(sorted(found.items()))

    def names(self, folder: str) -> list[str]:
        """Names of the objects directly in a folder, sorted."""
        return list(self.sizes(folder))

    def names_below(self, folder: str) -> list[str]:
        """Names of all objects below a folder, relative to it, sorted."""
        path = self._path(folder)
        self._forget(path)
        try:
            found = self._call(f"list {folder}", lambda: self._fs.find(path))
        except FileNotFoundError:
            return []
        return sorted(str(name).removeprefix(f"{path}/") for name in found if str(name) != path)

    def remove(self, name: str) -> None:
        """Delete an object; no error where there is none."""
        path = self._path(name)
        with suppress(FileNotFoundError):
            self._call(f"remove {name}", lambda: self._fs.rm_file(path))

    def remove_temporaries(self, folder: str, of: str = "*") -> None:
        """There are none: an upload that was not completed is not an object."""

    def below(self, name: str) -> Store:
        """The store of the objects below a name."""
        return ObjectStore(f"{self._url}/{name.strip('/')}", self._policy)

    @contextmanager
    def replacing(self, folder: str, obsolete: Iterable[str]) -> Iterator[Store]:
        """See `Store.replacing`. There is no rename: new objects are added while the block lasts, the obsolete ones go after it."""
        target = _Recorder(f"{self._url}/{folder.strip('/')}", self._policy)
        old = set(obsolete)
        try:
            yield target
        except BaseException:
            for name in sorted(target.written - old):
                target.remove(name)
            raise
        for name in sorted(old - target.written):
            target.remove(name)

    def local_path(self, name: str) -> Path | None:
        """None: objects are not files."""
        return None

    def lock(self, name: str) -> AbstractContextManager[Lock]:
        """An object with a heartbeat (`storage.object_lock`)."""
        return ObjectLock(self, name)

    def holder(self, name: str) -> str | None:
        """Who holds a lock now, or None."""
        return holder_in(self, name)

    def _path(self, name: str) -> str:
        name = name.strip("/")
        return self._base if name in ("", ".") else f"{self._base}/{name}"

    def _forget(self, path: str) -> None:
        """Drop what fsspec remembers of listings: other machines write here too."""
        self._fs.invalidate_cache(path)
        self._fs.invalidate_cache(path.rpartition("/")[0])

    def _read_or_none(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def _call(self, what: str, call: Callable[[], Answer]) -> Answer:
        try:
            return retry(call, self._policy)
        except FileNotFoundError:
            raise
        except Exception as error:  # each store has its own exceptions
            raise self._failure(what, error) from error

    def _failure(self, what: str, error: Exception) -> OutputError:
        return OutputError(f"{self._url}: cannot {what}: {type(error).__name__}: {error}")


class _Recorder(ObjectStore):
    """Remembers what was written to it."""

    def __init__(self, url: str, policy: RetryPolicy) -> None:
        super().__init__(url, policy)
        self.written: set[str] = set()

    def write(self, name: str, data: bytes) -> None:
        super().write(name, data)
        self.written.add(name)


class _Upload(WriteOnly):
    """What `ObjectStore.writing` gives out: only the end of the block completes the upload."""

    def __init__(self, raw: Any, failure: Callable[[Exception], OutputError]) -> None:
        self._raw = raw
        self._failure = failure

    def write(self, data: bytes) -> int:
        try:
            return int(self._raw.write(bytes(data)))
        except Exception as error:
            raise self._failure(error) from error

    def flush(self) -> None:
        """Parts go up when they are full."""

    def tell(self) -> int:
        return int(self._raw.tell())


def _give_up(raw: Any) -> None:
    """Leave nothing of a failed upload. Marked closed, or fsspec would complete it when the file object is collected."""
    with suppress(Exception):
        raw.discard()
    raw.closed = True
