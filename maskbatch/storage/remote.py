"""Inputs in object stores and on web servers, listed through fsspec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from glob import has_magic
from typing import Any

from maskbatch.errors import InputError, InputNotFoundError, MissingExtraError, UsageError
from maskbatch.storage.opener import RETRY_POLICY, as_remote_error, url_filesystem
from maskbatch.storage.retry import real_cause, retry

ASKED_AT_ONCE = 16
CHUNK = 1024


@dataclass(frozen=True, slots=True)
class RemoteItem:
    """One object: its full address, its key relative to what was listed, and what the store says of it."""

    url: str
    key: str
    size: int
    mtime_ns: int
    etag: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What is at a URL: one object (`is_file`), or all objects below it or that it matches (`globbed`), sorted by key."""

    is_file: bool
    items: tuple[RemoteItem, ...]
    globbed: bool = False


def remote_listing(url: str) -> Listing:
    """List a URL.

    Raises:
        InputNotFoundError: there is nothing at the URL.
        UsageError: the store cannot be reached or listed.
        MissingExtraError: the package for this kind of URL is not installed.
    """
    try:
        filesystem, inner = url_filesystem(url)
    except InputError as error:
        raise UsageError(error.message) from error
    try:
        filesystem.invalidate_cache()
        info = None if url.endswith("/") else _info_or_none(filesystem, inner)
        if info is not None and info.get("type") == "file":
            return Listing(True, (_item(filesystem, inner, inner, info),))
        magic = has_magic(inner.partition("?")[0])
        list_all = filesystem.glob if magic else filesystem.find
        found: dict[str, dict[str, Any]] = retry(lambda: list_all(inner, detail=True), RETRY_POLICY)
    except FileNotFoundError as error:
        raise InputNotFoundError(f"{url.partition('?')[0]} does not exist") from error
    except Exception as error:  # each store has its own exceptions
        raise UsageError(f"{url.partition('?')[0]} cannot be listed: {as_remote_error(error).message}") from error
    if not found:
        raise InputNotFoundError(f"{url} does not exist or {'matches' if magic else 'holds'} nothing")
    base = f"{_unmagic(inner) if magic else inner.rstrip('/')}/"
    files = (path for path in sorted(found) if found[path].get("type", "file") == "file")
    items = (_item(filesystem, path, path.removeprefix(base), found[path]) for path in files)
    return Listing(False, tuple(items), globbed=magic)


def _info_or_none(filesystem: Any, inner: str) -> dict[str, Any] | None:
    try:
        info: dict[str, Any] = retry(lambda: filesystem.info(inner), RETRY_POLICY)
    except FileNotFoundError as error:
        cause = real_cause(error)
        if getattr(cause, "status", 404) not in (404, 410):
            raise cause from error
        return None
    return info


def remote_items(urls: Iterable[str]) -> Iterator[RemoteItem | InputError]:
    """What the stores say of each URL, in order; an InputError for what is not there or cannot be asked. A few at a time."""
    urls = list(urls)
    with ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="maskbatch-list") as pool:
        for start in range(0, len(urls), CHUNK):
            yield from pool.map(_look_up, urls[start : start + CHUNK])


def _look_up(url: str) -> RemoteItem | InputError:
    try:
        filesystem, inner = url_filesystem(url)
        info = retry(lambda: filesystem.info(inner), RETRY_POLICY)
    except InputError as error:
        return error
    except MissingExtraError:
        raise
    except Exception as error:
        return as_remote_error(error)
    return replace(_item(filesystem, inner, inner, info), url=url)


def _unmagic(pattern: str) -> str:
    """The folders in front of the first part with a wildcard."""
    parts = pattern.split("/")
    return "/".join(parts[: next(i for i, part in enumerate(parts) if has_magic(part))])


def _item(filesystem: Any, path: str, key: str, info: dict[str, Any]) -> RemoteItem:
    etag = next((str(info[field]) for field in ("ETag", "etag", "md5Hash", "content_md5") if info.get(field)), "")
    changed = next((info[field] for field in ("LastModified", "mtime", "updated", "created") if info.get(field)), None)
    if isinstance(changed, datetime):
        mtime_ns = int(changed.timestamp() * 1e9)
    else:
        mtime_ns = int(changed * 1e9) if isinstance(changed, int | float) else 0
    size = int(info.get("size") or 0)
    return RemoteItem(filesystem.unstrip_protocol(path), key, size, mtime_ns, etag.strip('"'))
