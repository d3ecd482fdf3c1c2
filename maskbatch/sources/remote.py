"""Inputs in object stores and on web servers, listed through fsspec."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from maskbatch.errors import InputError, InputNotFoundError, UsageError
from maskbatch.sources.opener import url_filesystem


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
    """What is at a URL: one object (`is_file`), or all objects below it, sorted by key."""

    is_file: bool
    items: tuple[RemoteItem, ...]


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
        if filesystem.isfile(inner):
            return Listing(True, (_item(filesystem, inner, inner, filesystem.info(inner)),))
        found: dict[str, dict[str, Any]] = filesystem.find(inner, detail=True)
    except FileNotFoundError as error:
        raise InputNotFoundError(f"{url} does not exist") from error
    except Exception as error:  # each store has its own exceptions
        raise UsageError(f"{url} cannot be listed: {type(error).__name__}: {error}") from error
    if not found:
        raise InputNotFoundError(f"{url} does not exist or holds nothing")
    base = inner.rstrip("/") + "/"
    items = (_item(filesystem, path, path.removeprefix(base), found[path]) for path in sorted(found))
    return Listing(False, tuple(items))


def _item(filesystem: Any, path: str, key: str, info: dict[str, Any]) -> RemoteItem:
    etag = next((str(info[field]) for field in ("ETag", "etag", "md5Hash", "content_md5") if info.get(field)), "")
    changed = next((info[field] for field in ("LastModified", "mtime", "updated", "created") if info.get(field)), None)
    if isinstance(changed, datetime):
        mtime_ns = int(changed.timestamp() * 1e9)
    else:
        mtime_ns = int(changed * 1e9) if isinstance(changed, int | float) else 0
    size = int(info.get("size") or 0)
    return RemoteItem(filesystem.unstrip_protocol(path), key, size, mtime_ns, etag.strip('"'))
