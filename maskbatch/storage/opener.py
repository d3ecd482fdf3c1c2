"""Reading the bytes of one input: a local path, or a URL that fsspec understands.

Special files are never waited for: a FIFO opens without blocking and is refused by what ``fstat`` says of it.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import tempfile
import threading
from collections import OrderedDict
from typing import Any, BinaryIO, cast

from maskbatch.errors import InputError, MissingExtraError
from maskbatch.storage.ranges import Window, is_range, split_range
from maskbatch.storage.retry import RetryPolicy, real_cause, retry

RETRY_POLICY = RetryPolicy(attempts=4)
READ_AHEAD = 8 << 20
"""Bytes that are fetched at once from stores and servers where a file is read in pieces."""

MAX_BYTES = 1 << 30
"""Images of more bytes are not read. The largest that the default pixel limit lets through is about so large."""


def is_url(path: str) -> bool:
    """Whether `path` is to be opened by fsspec (``s3://…``, ``https://…``, ``memory://…``)."""
    return "://" in path


def read_bytes(path: str, max_bytes: int = MAX_BYTES) -> bytes:
    """All bytes of a file.

    Args:
        path: local path (surrogate-escaped where its name is not valid UTF-8) or a URL with ``://``.
        max_bytes: larger files are refused before they are read.

    Raises:
        InputError: ``not_found``, ``permission``, ``empty``, ``special_file``, ``too_large`` or ``io``.
        MissingExtraError: a URL whose file system is not installed.
    """
    if is_range(path):
        data = _read_range(path, max_bytes)
    else:
        data = _read_url(path, max_bytes) if is_url(path) else _read_local(path, max_bytes)
    if not data:
        raise InputError("empty", "the file is empty (0 bytes)")
    return data


def open_binary(path: str) -> BinaryIO:
    """A file to read and seek in, to be closed by the caller. Errors as in `read_bytes`, except ``empty``.

    An object in a store is read by ranges, ahead of the reader; from a server that gives no ranges it is copied to a temporary file.
    """
    if is_range(path):
        container, offset, size = split_range(path)
        return cast("BinaryIO", io.BufferedReader(Window(open_binary(container), offset, size)))
    if not is_url(path):
        try:
            return open(_open_local(path), "rb", buffering=0)
        except OSError as error:
            raise as_input_error(error) from error
    filesystem, inner = url_filesystem(path)
    try:
        file = retry(lambda: filesystem.open(inner, "rb", block_size=READ_AHEAD), RETRY_POLICY)
        return cast("BinaryIO", file if file.seekable() and getattr(file, "size", 0) is not None else _copied(file))
    except Exception as error:
        raise as_remote_error(error, "opening") from error


def read_head(path: str, size: int) -> bytes:
    """The first `size` bytes, or fewer; empty for an empty file. Errors as in `read_bytes`."""
    with open_binary(path) as file:
        try:
            return file.read(size)
        except OSError as error:
            raise as_input_error(error) from error


def _read_local(path: str, max_bytes: int) -> bytes:
    try:
        with open(_open_local(path), "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise _too_many_bytes(size, max_bytes)
            data = file.readall()
    except OSError as error:
        raise as_input_error(error) from error
    except MemoryError as error:
        raise InputError("out_of_memory", "not enough memory to read the file") from error
    if len(data) > max_bytes:
        raise _too_many_bytes(len(data), max_bytes)
    return data


def _open_local(path: str) -> int:
    """A descriptor of a regular file. ``O_NONBLOCK`` keeps the open of a FIFO without a writer from waiting for ever."""
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        descriptor = os.open(path, flags)
    except ValueError as error:  # a NUL in the name
        raise InputError("not_found", f"no file can have this name ({error})") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise InputError("special_file", f"not a regular file but {describe_mode(mode)}")
    return descriptor


def describe_mode(mode: int) -> str:
    """What a person calls the kind of file in ``st_mode``."""
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO (named pipe)"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISREG, "a regular file"),
    )
    return next((name for test, name in kinds if test(mode)), "something special")


def as_input_error(error: OSError) -> InputError:
    """The row that a failed system call on an input becomes."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError("not_found", "the file does not exist (any more)")
    if isinstance(error, PermissionError):
        return InputError("permission", "no permission to read the file")
    if error.errno == errno.ELOOP:
        return InputError("io", "a loop of symbolic links")
    if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket, or a device without a driver
        return InputError("special_file", "not a regular file but a socket or a device")
    return InputError("io", f"reading failed: {error.strerror or type(error).__name__}")


def _too_many_bytes(size: int, max_bytes: int) -> InputError:
    return InputError("too_large", f"the file has {size:,} bytes; images of up to {max_bytes:,} bytes are read")


def url_filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path inside it.

    Raises:
        MissingExtraError: fsspec, or the package for this kind of URL, is not installed.
        InputError: ``io`` where the store cannot be reached with these settings.
    """
    try:
        import fsspec.core
    except ImportError as error:
        raise MissingExtraError(f"{_for_people(url)} needs another package: {_install(url)}") from error
    scheme = url.partition("://")[0]
    try:
        filesystem, inner = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingExtraError(f"{scheme}:// needs another package: {_install(url)} ({error})") from error
    except ValueError as error:  # a scheme that fsspec does not know
        raise InputError("unsupported", f"{scheme}:// is not a kind of address that can be read ({error})") from error
    except Exception as error:  # each store has its own exceptions for lost networks and credentials
        raise InputError("io", f"{scheme}:// cannot be opened: {error}") from error
    return filesystem, str(inner)


EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"} | dict.fromkeys(
    ("az", "abfs", "abfss", "adl"), "azure"
)
"""The extra of maskbatch that reads and writes each kind of URL."""


def _install(url: str) -> str:
    extra = EXTRAS.get(url.partition("://")[0])
    return (
        f"pip install 'maskbatch[{extra}]'" if extra else "pip install fsspec and the package for this kind of address"
    )


def _for_people(url: str) -> str:
    """The address without a query, which may hold a signature."""
    return url.partition("?")[0]


def as_remote_error(error: Exception, what: str = "reading") -> InputError:
    """The row that a failed call to a store or a web server becomes."""
    if isinstance(error, InputError):
        return error
    cause = real_cause(error)
    status = getattr(cause, "status", None)  # aiohttp's answers
    if status in (401, 403):
        return InputError("permission", "no permission to read the file")
    if status in (404, 410):
        return InputError("not_found", "the file does not exist (any more)")
    if isinstance(cause, FileNotFoundError | PermissionError):
        return as_input_error(cause)
    return InputError("io", f"{what} failed: {type(cause).__name__}: {cause}")


def _read_url(url: str, max_bytes: int) -> bytes:
    filesystem, inner = url_filesystem(url)
    try:
        size = retry(lambda: filesystem.size(inner), RETRY_POLICY)
        if size is not None and size > max_bytes:
            raise _too_many_bytes(size, max_bytes)
        end = max_bytes + 1 if size is None else None
        data = bytes(retry(lambda: filesystem.cat_file(inner, end=end), RETRY_POLICY))
    except Exception as error:
        raise as_remote_error(error) from error
    if len(data) > max_bytes:
        raise _too_many_bytes(len(data), max_bytes)
    return data


def _copied(file: Any) -> BinaryIO:
    with file:
        copy = tempfile.SpooledTemporaryFile(READ_AHEAD)  # noqa: SIM115  the caller closes it
        shutil.copyfileobj(file, copy, 1 << 20)
    copy.seek(0)
    return cast("BinaryIO", copy)


def _read_range(path: str, max_bytes: int) -> bytes:
    container, offset, size = split_range(path)
    if size > max_bytes:
        raise _too_many_bytes(size, max_bytes)
    if is_url(container):
        data = _blocks.read(container, offset, size)
    else:
        try:
            with open(_open_local(container), "rb", buffering=0) as file:
                data = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise as_input_error(error) from error
    if len(data) < size:
        raise InputError("truncated", f"the archive ends {size - len(data):,} bytes before the end of this member")
    return data


class _Blocks:
    """The blocks of remote archives that were read last. Neighbouring members come in one request, whichever thread wants them."""

    KEPT = 4

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[str, tuple[int, bytes]] = OrderedDict()

    def read(self, container: str, offset: int, size: int) -> bytes:
        """Some bytes of an archive, fewer at its end. Errors as in `read_bytes`."""
        with self._lock:
            start, block = self._blocks.get(container, (0, b""))
            if not start <= offset <= offset + size <= start + len(block):
                start, block = offset, self._fetch(container, offset, max(size, READ_AHEAD))
                self._blocks[container] = (start, block)
            self._blocks.move_to_end(container)
            if len(self._blocks) > self.KEPT:
                self._blocks.popitem(last=False)
            return block[offset - start : offset - start + size]

    @staticmethod
    def _fetch(container: str, offset: int, size: int) -> bytes:
        filesystem, inner = url_filesystem(container)
        try:
            return bytes(retry(lambda: filesystem.cat_file(inner, start=offset, end=offset + size), RETRY_POLICY))
        except Exception as error:
            raise as_remote_error(error) from error


_blocks = _Blocks()
