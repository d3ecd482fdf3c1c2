"""A bounded queue between the threads that decode and the thread that runs the models. It counts bytes, not items."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Closed(Exception):
    """The consumer has left; the producer stops."""


class ByteQueue(Generic[Item]):
    """First in, first out; `put` waits while more than `max_bytes` are held (one item always fits).

    The producer calls `finish` (with its exception, if it had one); the consumer iterates, and calls `close` when it leaves early,
    so that no thread is ever left waiting.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: deque[tuple[Item, int]] = deque()
        self._held = 0
        self._finished = False
        self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, item: Item, nbytes: int) -> None:
        """Add an item of `nbytes`; raises Closed when the consumer has left."""
        with self._changed:
            while self._items and self._held + nbytes > self._max_bytes and not self._closed:
                self._changed.wait()
            if self._closed:
                raise Closed
            self._items.append((item, nbytes))
            self._held += nbytes
            self._changed.notify_all()

    def finish(self, error: BaseException | None = None) -> None:
        """No more items; `error` is raised in the consumer once it has taken the rest."""
        with self._changed:
            self._finished = True
            self._error = error
            self._changed.notify_all()

    def close(self) -> None:
        """The consumer leaves."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                while not self._items and not self._finished:
                    self._changed.wait()
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item, nbytes = self._items.popleft()
                self._held -= nbytes
                self._changed.notify_all()
            yield item
