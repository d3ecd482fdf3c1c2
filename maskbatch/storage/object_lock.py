"""The lock where there is no file system: an object with a heartbeat."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from maskbatch.errors import LockedError, OutputError
from maskbatch.storage.base import Store
from maskbatch.storage.file_lock import HEARTBEAT_S, STALE_AFTER_S, describe, heartbeat, is_running

SETTLE_S = 1.0
"""Two runs that take a free lock within this time see each other, and the earlier one leaves."""


class ObjectLock:
    """One writer per output, where there is no `flock`: an object that names the holder and is rewritten while it lives.

    A holder that has been silent for `STALE_AFTER_S` is taken for dead, and at once if it was a process of this machine that is gone.
    Should two runs hold it all the same (their clocks differ by a minute), the one that finds the other's name in it stops before the
    merge; parts are the same bytes whoever writes them, so nothing is damaged by then.

    Attributes:
        note: what to tell the user about a stale lock that was taken over, or empty.
    """

    def __init__(self, store: Store, name: str = "lock", settle_s: float = SETTLE_S) -> None:
        self._store = store
        self._name = name
        self._settle_s = settle_s
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost_to: dict[str, object] = {}
        self.note = ""

    def __enter__(self) -> ObjectLock:
        """Take the lock; raises LockedError naming the holder, or OutputError where the store cannot be written."""
        holder = read_holder(self._store, self._name)
        if holder:
            silent_s = silence(holder)
            if silent_s < STALE_AFTER_S:
                raise LockedError(
                    f"another run is writing this output ({describe(holder)}, heard of {silent_s:.0f} s ago); "
                    f"if it is dead, try again in {STALE_AFTER_S - silent_s:.0f} s"
                )
            self.note = f"took over the lock of a run that ended without releasing it ({describe(holder)})"
        self._write()
        time.sleep(self._settle_s)
        self._look()
        self.check()
        self._thread = threading.Thread(target=self._keep_beating, name="lock-heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(OutputError):
            self._look()
            if not self._lost_to:
                self._store.remove(self._name)

    def check(self) -> None:
        """Raises LockedError when another run has taken the lock."""
        if self._lost_to:
            raise LockedError(f"another run took over this output ({describe(self._lost_to)}); this one stops")

    def _look(self) -> None:
        holder = read_holder(self._store, self._name)
        if holder.get("token") != self._token:
            self._lost_to = holder or {"host": "unknown"}

    def _write(self) -> None:
        content = {
            "host": socket.gethostname(),
            "machine": machine_id(),
            "pid": os.getpid(),
            "token": self._token,
            "heartbeat": round(time.time(), 1),
        }
        self._store.write(self._name, json.dumps(content).encode())

    def _keep_beating(self) -> None:
        while not self._stop.wait(HEARTBEAT_S) and not self._lost_to:
            with suppress(OutputError):  # a store that does not answer now will end the run at the next part
                self._look()
                if not self._lost_to:
                    self._write()


def read_holder(store: Store, name: str = "lock") -> dict[str, object]:
    """What the lock object says of its holder; empty where there is none."""
    try:
        content = json.loads(store.read(name))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def silence(holder: dict[str, object]) -> float:
    """Seconds since the holder was heard of; infinite for a process of this machine that is gone."""
    if holder.get("machine") == machine_id() and not is_running(holder.get("pid")):
        return float("inf")
    return max(0.0, time.time() - heartbeat(holder))


def machine_id() -> str:
    """Tells machines, their restarts and containers apart, so that a process number means something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return f"unknown-{socket.gethostname()}-{os.getpid()}"


def holder_in(store: Store, name: str) -> str | None:
    """Who holds the lock now, or None; takes nothing."""
    holder = read_holder(store, name)
    return describe(holder) if holder and silence(holder) < STALE_AFTER_S else None
