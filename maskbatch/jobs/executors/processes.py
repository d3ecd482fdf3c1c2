"""A spawned process per worker on this machine, watched by the parent.

The parent sends a unit down a pipe; the worker sends back which inputs it has begun and ended, signs of life in between, and at last
the receipt. A worker that dies, or shows no sign of life for `--timeout`, or grows over its memory limit, is replaced; the
scheduler decides what becomes of its unit. No worker outlives its parent, however that ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from maskbatch.config import Execution
from maskbatch.errors import InputError, InputErrorCode, MaskbatchError, WorkerError
from maskbatch.jobs.executors.base import WorkerSpec, describe_failure, open_ledger, work
from maskbatch.jobs.scheduler import Scheduler
from maskbatch.types import Event, WorkUnit

POLL_S = 0.5
TICK_S = 0.25
START_TIMEOUT_S = 1800.0
"""Loading models is not bound by `--timeout`: TensorRT builds its engines then."""
STOP_TIMEOUT_S = 5.0
PR_SET_PDEATHSIG = 1
MAX_FAILED_STARTS = 3
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def _worker_main(connection: Connection, spec: WorkerSpec, ledger_url: str) -> None:
    """Runs in the spawned process: load, then unit after unit until the parent hangs up."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with_parent()
    lock = threading.Lock()
    last_tick = 0.0

    def send(message: tuple[Any, ...]) -> None:
        try:
            with lock:
                connection.send(message)
        except OSError:  # the parent is gone: nobody will hand out or count this work
            os._exit(1)

    def report(event: Event, index: int) -> None:
        nonlocal last_tick
        if event == "tick":
            now = time.monotonic()
            if now - last_tick < TICK_S:
                return
            last_tick = now
        send((event, index))

    try:
        worker = spec.open()
        ledger = open_ledger(ledger_url)
        send(("ready", 0))
        while True:
            try:
                unit: WorkUnit | None = connection.recv()
            except EOFError:
                os._exit(0)
            if unit is None:
                return
            try:
                answer = work(worker, ledger, unit, report)
            except MaskbatchError:
                raise
            except Exception as error:
                send(("broke", describe_failure(error)))
                return
            send(("finished", answer))
    except InputError as error:
        send(("failed", WorkerError(f"a worker failed: {error}")))
    except MaskbatchError as error:
        send(("failed", error))
    except Exception as error:
        send(("failed", WorkerError(f"a worker failed: {describe_failure(error)[2]}")))


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends: a worker that hangs in a decoder would never notice by itself."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():  # it has ended already
        os._exit(1)


@dataclass(slots=True)
class _Child:
    """The parent's view of one worker."""

    process: SpawnProcess
    connection: Connection
    ready: bool = False
    unit: WorkUnit | None = None
    begun: set[int] = field(default_factory=set)
    heard: float = field(default_factory=time.monotonic)

    def send(self, unit: WorkUnit) -> None:
        self.unit = unit
        self.begun = set()
        self.heard = time.monotonic()
        self.connection.send(unit)

    def resident_mb(self) -> float:
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0.0
        return pages * PAGE_BYTES / 2**20

    def stop(self) -> None:
        self.process.kill()
        self.process.join(STOP_TIMEOUT_S)  # one that waits for a dead network drive cannot even be killed
        self.connection.close()


class ProcessesExecutor:
    """`execution.workers` spawned processes; see the module."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._children: list[_Child] = []
        self._failed_starts = 0

    def workers(self, execution: Execution, on_gpu: bool) -> int:
        """See `Executor.workers`."""
        return max(1, execution.workers)

    def run(self, scheduler: Scheduler, spec: WorkerSpec, ledger_url: str, execution: Execution) -> None:
        """See `Executor.run`."""
        count = max(1, execution.workers)
        try:
            for _ in range(count):
                self._start(spec, ledger_url)
            while not scheduler.finished:
                self._hand_out(scheduler)
                self._listen(scheduler)
                self._watch(scheduler, execution)
                while len(self._children) < count and not scheduler.finished:
                    self._start(spec, ledger_url)
            self._dismiss()
        finally:
            for child in self._children:
                child.stop()
            self._children = []

    def _start(self, spec: WorkerSpec, ledger_url: str) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_worker_main, args=(theirs, spec, ledger_url), name="maskbatch-worker", daemon=True
        )
        # Ctrl-C reaches the whole group, but the parent decides: a worker inherits the blocked signal from its first instruction on,
        # and the parent gets it once the worker is in the list of those to be stopped.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
            self._children.append(_Child(process, ours))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def _hand_out(self, scheduler: Scheduler) -> None:
        for child in self._children:
            if child.ready and child.unit is None and child.process.is_alive():
                unit = scheduler.next()
                if unit is None:
                    return
                with contextlib.suppress(OSError):  # died this instant: its unit comes back through `_listen`
                    child.send(unit)

    def _listen(self, scheduler: Scheduler) -> None:
        by_handle = {child.connection: child for child in self._children}
        for handle in wait(list(by_handle), timeout=POLL_S):
            child = by_handle[handle]  # type: ignore[index]
            while child in self._children:
                try:
                    if not child.connection.poll():
                        break
                    message = child.connection.recv()
                except (EOFError, OSError):
                    self._bury(child, scheduler, "crashed")
                else:
                    self._hear(child, message, scheduler)

    def _hear(self, child: _Child, message: tuple[str, Any], scheduler: Scheduler) -> None:
        kind, content = message
        child.heard = time.monotonic()
        if kind == "begin":
            child.begun.add(content)
        elif kind == "end":
            child.begun.discard(content)
        elif kind == "ready":
            child.ready = True
        elif kind == "failed":
            raise content
        elif kind == "broke":
            cause, _, detail = content
            self._bury(child, scheduler, cause, detail)
        elif kind == "finished" and child.unit is not None:
            self._failed_starts = 0
            unit, child.unit = child.unit, None
            scheduler.completed(unit, content)

    def _watch(self, scheduler: Scheduler, execution: Execution) -> None:
        now = time.monotonic()
        for child in list(self._children):
            if child.unit is None and child.ready:
                continue
            if now - child.heard > (execution.timeout_s if child.ready else START_TIMEOUT_S):
                self._bury(child, scheduler, "hung")
            elif execution.max_memory_mb and child.resident_mb() > execution.max_memory_mb:
                self._bury(child, scheduler, "out_of_memory")

    def _bury(self, child: _Child, scheduler: Scheduler, cause: InputErrorCode, detail: str = "") -> None:
        """Remove a worker and give its unit back. `cause` is ``crashed`` for one that went by itself."""
        if child not in self._children:
            return
        self._children.remove(child)
        if cause == "crashed":
            child.process.join(STOP_TIMEOUT_S)  # it has hung up and is about to have an exit code
        exit_code = child.process.exitcode
        child.stop()
        if child.unit is not None:
            killed = cause == "crashed" and exit_code in (-signal.SIGKILL, -signal.SIGTERM)
            if killed:
                detail = "its process was killed from outside, perhaps by the system for want of memory"
            elif cause == "crashed":
                detail = describe_exit(exit_code)
            scheduler.lost(child.unit, cause, child.begun, detail, killed)
        else:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise WorkerError(
                    f"workers do not start: {self._failed_starts} ended before they took any work ({describe_exit(exit_code)})"
                )

    def _dismiss(self) -> None:
        """Let idle workers end by themselves; they hold nothing that must be saved."""
        for child in self._children:
            with contextlib.suppress(OSError):
                child.connection.send(None)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in self._children:
            child.process.join(max(0.0, deadline - time.monotonic()))


def describe_exit(code: int | None) -> str:
    """How a process ended, for a person."""
    if code is None:
        return "no exit code"
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
