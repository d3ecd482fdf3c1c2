"""What every store is: named blobs below one place, each of which appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol


class Lock(Protocol):
    """Held for the length of a `with` block; entering raises LockedError naming the holder, or OutputError."""

    note: str
    """What to tell the user about a stale lock that was taken over, or empty."""

    def check(self) -> None:
        """Raises LockedError when another run has taken the lock meanwhile."""


class Store(Protocol):
    """Named blobs below one place. Names are ``/``-separated."""

    @property
    def url(self) -> str:
        """Where it is: an absolute path or a URL. `open_store(url)` opens the same store in another process."""

    @property
    def replaces_folders(self) -> bool:
        """Whether `replacing` swaps a folder in one step, so that a killed writer leaves nothing inside it."""

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

    def names_below(self, folder: str) -> list[str]:
        """Names of all blobs below a folder, relative to it, sorted; raises UsageError where `folder` is a file."""

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """Names and blobs in the given order; None for those that are not there. Quicker than one by one where a store is far."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of each blob directly in a folder, by name, sorted; without temporary ones. One listing, however many there are."""

    def remove(self, name: str) -> None:
        """Remove a blob; no error where there is none."""

    def remove_temporaries(self, folder: str, of: str = "*") -> None:
        """Remove what killed writers left half-written of the blobs in `folder` whose names match the glob `of`."""

    def below(self, name: str) -> Store:
        """The store of a folder in this one."""

    def replacing(self, folder: str, obsolete: Iterable[str]) -> AbstractContextManager[Store]:
        """A store whose blobs become the content of `folder` when the block ends without an error.

        Args:
            folder: in this store.
            obsolete: names in it that are to go. Where `replaces_folders`, all that was in it goes.
        """

    def local_path(self, name: str) -> Path | None:
        """The blob as a file that can be opened and mapped, or None where the store is not a file system."""

    def lock(self, name: str) -> AbstractContextManager[Lock]:
        """One holder at a time, on this machine or any other."""

    def holder(self, name: str) -> str | None:
        """Who holds a lock now, for a person, or None; takes nothing."""


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
