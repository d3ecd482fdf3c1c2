"""Where bytes are kept and read from: local files and object stores behind one protocol, URLs, retries, the one atomic write.

Nothing here knows of scans, models or images.
"""

from __future__ import annotations

from maskbatch.storage.base import Lock, Store

__all__ = ["Lock", "Store", "open_store"]


def open_store(url: str) -> Store:
    """The store at a local path, or at a URL such as ``s3://bucket/folder`` (needs the extra of that store).

    Raises:
        MissingExtraError: the package for this kind of URL is not installed.
        OutputError: the store cannot be reached with these settings.
    """
    if "://" in url:
        from maskbatch.storage.object_store import ObjectStore

        return ObjectStore(url)
    from maskbatch.storage.local import LocalStore

    return LocalStore(url)
