"""One writer per output.

On one host the kernel keeps the lock (`flock`): it falls when its holder dies, however it dies. Across hosts that share a folder the
lock file's heartbeat decides: a holder elsewhere that has not been heard of for `STALE_AFTER_S` is taken for dead.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType

from maskbatch.errors import LockedError, OutputError

HEARTBEAT_S = 5.0
STALE_AFTER_S = 60.0


class Lock:
    """Holds the lock file at `path` for the length of a `with` block.

    Attributes:
        note: what to tell the user about a stale lock that was taken over, or empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note = ""
        self._descriptor: int | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lock:
        """Take the lock; raises LockedError naming the holder, or OutputError where the folder cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error
        holder = self._read(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise LockedError(
                f"another run is writing this output ({describe(holder)}); wait for it or stop it"
            ) from None
        except OSError:  # a file system without flock: the heartbeat alone decides
            pass
        if holder:
            elsewhere = holder.get("host") != socket.gethostname()
            silent_s = time.time() - float(str(holder.get("heartbeat", 0)))
            if elsewhere and silent_s < STALE_AFTER_S:
                os.close(descriptor)
                raise LockedError(
                    f"another run is writing this output ({describe(holder)}, heard of {silent_s:.0f} s ago); "
                    f"if it is dead, try again in {STALE_AFTER_S - silent_s:.0f} s"
                )
            self.note = f"took over the lock of a run that ended without releasing it ({describe(holder)})"
        self._descriptor = descriptor
        self._beat()
        self._thread = threading.Thread(target=self._keep_beating, name="lock-heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)  # emptied, not removed: another run may have it open already
            os.close(self._descriptor)
            self._descriptor = None

    @staticmethod
    def _read(descriptor: int) -> dict[str, object]:
        try:
            content = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    def _beat(self) -> None:
        if self._descriptor is not None:
            content = {"host": socket.gethostname(), "pid": os.getpid(), "heartbeat": round(time.time(), 1)}
            data = json.dumps(content).encode()
            os.pwrite(self._descriptor, data, 0)
            os.ftruncate(self._descriptor, len(data))

    def _keep_beating(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                self._beat()
            except OSError:  # a full disk must not end the run here; the next write of a result will say it
                continue


def describe(holder: dict[str, object]) -> str:
    """The holder of a lock for a person."""
    if not holder:
        return "holder unknown"
    return f"host {holder.get('host', 'unknown')}, process {holder.get('pid', 'unknown')}"


def holder_of(path: Path) -> str | None:
    """Who holds the lock at `path` now, or None; takes nothing."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        holder = Lock._read(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return describe(holder)
        except OSError:
            pass
        fresh = holder and time.time() - float(str(holder.get("heartbeat", 0))) < STALE_AFTER_S
        return describe(holder) if fresh and holder.get("host") != socket.gethostname() else None
    finally:
        os.close(descriptor)
