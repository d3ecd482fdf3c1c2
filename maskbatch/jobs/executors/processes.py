"""A spawned process per worker on this machine, watched by the parent.

The parent sends a unit down a pipe and gets back the receipt. Which inputs the worker has begun and ended, and that it is alive, stands
meanwhile in memory that both share: no message per picture wakes the parent, which has no core to itself. A worker that dies, or shows no sign of life for `--timeout`, or grows over its memory limit, is replaced; the
scheduler decides what becomes of its unit. No worker outlives its parent, however that ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskbatch.config import Execution
from maskbatch.errors import InputError, InputErrorCode, MaskbatchError, WorkerError
from maskbatch.jobs.executors.base import WorkerSpec, describe_failure, open_ledger, work
from maskbatch.jobs.executors.warm_pool import Started, drop_warm_pool, start
from maskbatch.jobs.scheduler import Scheduler
from maskbatch.types import Event, WorkUnit

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

POLL_S = 0.5
START_TIMEOUT_S = 1800.0
"""Loading models is not bound by `--timeout`: TensorRT builds its engines then."""
STOP_TIMEOUT_S = 5.0
MAX_FAILED_STARTS = 3
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


BEGUN, ENDED = 1, 2


def serve(connection: Connection, board: Any) -> None:
    """Runs in the worker's process: load, then unit after unit until the parent hangs up."""

    def send(message: tuple[Any, ...]) -> None:
        try:
            connection.send(message)
        except OSError:  # the parent is gone: nobody will hand out or count this work
            os._exit(1)

    def report(event: Event, index: int) -> None:
        # Called by several threads; a count lost between two of them is still a change.
        board[0] = (board[0] + 1) & 0xFFFFFFFF
        if event != "tick":
            board[1 + index] = BEGUN if event == "begin" else ENDED

    try:
        try:
            spec, ledger_url = connection.recv()
        except EOFError:
            os._exit(0)
        worker = spec.open()
        ledger = open_ledger(ledger_url)
        gc.freeze()  # what is loaded now stays: collections need not look at it again
        send(("ready", 0))
        while True:
            try:
                unit: WorkUnit | None = connection.recv()
            except EOFError:
                os._exit(0)
            if unit is None:
                os._exit(0)  # nothing is left to be saved; an orderly end only takes longer
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


@dataclass(slots=True)
class _Child:
    """The parent's view of one worker."""

    started: Started
    ready: bool = False
    unit: WorkUnit | None = None
    heard: float = field(default_factory=time.monotonic)
    signs: int = 0

    @property
    def process(self) -> SpawnProcess:
        return self.started.process

    @property
    def connection(self) -> Connection:
        return self.started.connection

    @property
    def begun(self) -> set[int]:
        """Pieces of its unit that it has begun and not ended."""
        count = 0 if self.unit is None else len(self.unit.pieces)
        return {index for index, state in enumerate(self.started.board[1 : 1 + count]) if state == BEGUN}

    def send(self, unit: WorkUnit) -> None:
        self.unit = unit
        self.heard = time.monotonic()
        count = len(unit.pieces)
        self.started.board[1 : 1 + count] = [0] * count
        self.connection.send(unit)

    def listen(self) -> float:
        """When it last showed a sign of life."""
        signs = self.started.board[0]
        if signs != self.signs:
            self.signs, self.heard = signs, time.monotonic()
        return self.heard

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
                self._start(spec, ledger_url, execution.unit_images)
            drop_warm_pool()
            while not scheduler.finished:
                self._hand_out(scheduler)
                self._listen(scheduler)
                self._watch(scheduler, execution)
                while len(self._children) < count and not scheduler.finished:
                    self._start(spec, ledger_url, execution.unit_images)
            self._dismiss()
        finally:
            for child in self._children:
                child.stop()
            self._children = []

    def _start(self, spec: WorkerSpec, ledger_url: str, unit_images: int) -> None:
        # An interrupt gets through once the worker is in the list of those to be stopped.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            child = _Child(start(1 + unit_images))
            self._children.append(child)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with contextlib.suppress(OSError):  # dead already, which `_listen` finds out
            child.connection.send((spec, ledger_url))

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
        if kind == "ready":
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
            if now - child.listen() > (execution.timeout_s if child.ready else START_TIMEOUT_S):
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
