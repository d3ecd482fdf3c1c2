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
FLOCK_ATTEMPTS = 5
RECORD_BYTES = 512


class FileLock:
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

    def __enter__(self) -> FileLock:
        """Take the lock; raises LockedError naming the holder, or OutputError where the folder cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error
        try:
            kept_by_kernel = self._flock(descriptor)
            holder = self._read(descriptor)
            if holder:
                here = holder.get("host") == socket.gethostname()
                silent_s = time.time() - heartbeat(holder)
                # On this host the kernel has just said that the holder is dead; without its lock only the heartbeat can.
                if silent_s < STALE_AFTER_S and not (here and (kept_by_kernel or not is_running(holder.get("pid")))):
                    raise LockedError(
                        f"another run is writing this output ({describe(holder)}, heard of {max(0.0, silent_s):.0f} s ago); "
                        f"if it is dead, try again in {STALE_AFTER_S - silent_s:.0f} s"
                    )
                self.note = f"took over the lock of a run that ended without releasing it ({describe(holder)})"
            self._descriptor = descriptor
            self._beat()
            os.ftruncate(descriptor, RECORD_BYTES)
        except BaseException as error:
            self._descriptor = None
            os.close(descriptor)
            if isinstance(error, OSError):
                raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error
            raise
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

    def check(self) -> None:
        """Nothing to find out here: nobody takes the lock of a run that lives (`ObjectLock.check` may raise)."""

    def _flock(self, descriptor: int) -> bool:
        """Take the kernel's lock; False on a file system that has none. Raises LockedError where another process has it."""
        for attempt in range(FLOCK_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if attempt < FLOCK_ATTEMPTS - 1:  # `maskbatch status` looks at the lock for an instant
                    time.sleep(0.05)
                continue
            except OSError:
                return False
            return True
        holder = self._read(descriptor)
        raise LockedError(f"another run is writing this output ({describe(holder)}); wait for it or stop it")

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
            # Of one length, so that a reader on another host never sees the end of an older beat behind a newer one.
            os.pwrite(self._descriptor, json.dumps(content).encode().ljust(RECORD_BYTES), 0)

    def _keep_beating(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                self._beat()
            except OSError:  # a full disk must not end the run here; the next write of a result will say it
                continue


def heartbeat(holder: dict[str, object]) -> float:
    """POSIX seconds at which a holder was last heard of; 0 where the lock file does not say it."""
    beat = holder.get("heartbeat")
    return float(beat) if isinstance(beat, int | float) else 0.0


def is_running(pid: object) -> bool:
    """Whether a process of this host has this id."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def describe(holder: dict[str, object]) -> str:
    """The holder of a lock for a person."""
    if not holder:
        return "holder unknown"
    return f"host {holder.get('host', 'unknown')}, process {holder.get('pid', 'unknown')}"


def holder_of(path: Path) -> str | None:
    """Who holds the lock at `path` now, or None; takes nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        holder = FileLock._read(descriptor)
        kept_by_kernel = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return describe(holder)
        except OSError:
            kept_by_kernel = False
        fresh = bool(holder) and time.time() - heartbeat(holder) < STALE_AFTER_S
        here = holder.get("host") == socket.gethostname()
        return (
            describe(holder) if fresh and not (here and (kept_by_kernel or not is_running(holder.get("pid")))) else None
        )
    finally:
        os.close(descriptor)
