"""A spawned process per worker on this machine.

The parent sends a unit down a pipe and gets back the receipt. Which inputs the worker has begun and ended, and that it is alive, stands
meanwhile in memory that both share: no message per image wakes the parent, which has no core to itself. No worker outlives its parent,
however that ends.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskbatch.config import Execution
from maskbatch.errors import InputError, MaskbatchError, WorkerError
from maskbatch.jobs.executors.base import WorkerSpec, describe_failure, open_ledger, work
from maskbatch.jobs.executors.supervisor import (
    Burial,
    Message,
    Observation,
    Ready,
    SupervisedWorker,
    Supervisor,
    WorkerFailure,
)
from maskbatch.jobs.executors.warm_pool import WarmProcess, drop_warm_pool, take_process
from maskbatch.jobs.scheduler import Scheduler
from maskbatch.types import Event, WorkUnit

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

START_TIMEOUT_S = 1800.0
"""Loading models is not bound by `--timeout`: TensorRT builds its engines then."""
STOP_TIMEOUT_S = 5.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

BEGUN, ENDED = 1, 2


def serve(connection: Connection, board: Any) -> None:
    """Runs in the worker's process: load, then unit after unit until the parent hangs up."""

    def send(message: Message) -> None:
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
        send(Ready())
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
                send(WorkerFailure(*describe_failure(error)))
                return
            send(answer)
    except InputError as error:
        send(WorkerError(f"a worker failed: {error}"))
    except MaskbatchError as error:
        send(error)
    except Exception as error:
        send(WorkerError(f"a worker failed: {describe_failure(error)[1]}"))


@dataclass(slots=True, eq=False, kw_only=True)
class _Child(SupervisedWorker):
    """The parent's view of one worker."""

    started: WarmProcess

    @property
    def process(self) -> SpawnProcess:
        return self.started.process

    @property
    def connection(self) -> Connection:
        return self.started.connection

    @property
    def board(self) -> Any:
        return self.started.board


class ProcessesExecutor:
    """`execution.workers` spawned processes; see the module."""

    def workers(self, execution: Execution, gpus: int) -> int:
        """See `Executor.workers`."""
        return max(1, execution.workers)

    def run(self, scheduler: Scheduler, spec: WorkerSpec, ledger_url: str, execution: Execution) -> None:
        """See `Executor.run`."""
        host = _ProcessHost(spec, ledger_url, self.workers(execution, spec.gpus), execution.unit_images)
        Supervisor(host, scheduler, execution).run()


class _ProcessHost:
    """Workers as processes of this machine (`supervisor.WorkerHost`)."""

    start_timeout_s = START_TIMEOUT_S
    idle_timeout_s = math.inf

    def __init__(self, spec: WorkerSpec, ledger_url: str, count: int, unit_images: int) -> None:
        self._spec = spec
        self._ledger_url = ledger_url
        self._board_entries = 1 + unit_images
        self.count = count

    def start(self, number: int) -> _Child:
        child = _Child(number=number, started=take_process(self._board_entries))
        with contextlib.suppress(OSError):  # dead already, which `messages` finds out
            child.connection.send((self._spec.for_worker(number), self._ledger_url))
        return child

    def started(self) -> None:
        drop_warm_pool()

    def send(self, worker: _Child, unit: WorkUnit) -> None:
        count = len(unit.pieces)
        worker.board[1 : 1 + count] = [0] * count
        with contextlib.suppress(OSError):  # died this instant: its unit comes back through `messages`
            worker.connection.send(unit)

    def is_alive(self, worker: _Child) -> bool:
        return worker.process.is_alive()

    def messages(self, workers: Sequence[_Child], timeout_s: float) -> Iterator[tuple[_Child, Message]]:
        by_handle = {child.connection: child for child in workers}
        for handle in wait(list(by_handle), timeout=timeout_s):
            child = by_handle[handle]  # type: ignore[index]
            while not child.connection.closed:
                try:
                    if not child.connection.poll():
                        break
                    message = child.connection.recv()
                except (EOFError, OSError):
                    yield child, WorkerFailure("crashed")
                    break
                yield child, message

    def observe(self, worker: _Child) -> Observation | None:
        return Observation(worker.board[0], resident_mb=resident_mb(worker.process.pid))

    def bury(self, worker: _Child, failure: WorkerFailure) -> Burial:
        if failure.cause == "crashed":
            worker.process.join(STOP_TIMEOUT_S)  # it has hung up and is about to have an exit code
        exit_code = worker.process.exitcode
        self.stop(worker)
        count = 0 if worker.unit is None else len(worker.unit.pieces)
        begun = frozenset(index for index, state in enumerate(worker.board[1 : 1 + count]) if state == BEGUN)
        if failure.cause != "crashed":
            return Burial(failure.cause, failure.detail, begun)
        if worker.unit is not None and exit_code in (-signal.SIGKILL, -signal.SIGTERM):
            detail = "its process was killed from outside, perhaps by the system for lack of memory"
            return Burial("crashed", detail, begun, killed=True)
        return Burial("crashed", describe_exit(exit_code), begun)

    def dismiss(self, workers: Sequence[_Child]) -> None:
        for child in workers:
            with contextlib.suppress(OSError):
                child.connection.send(None)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in workers:
            child.process.join(max(0.0, deadline - time.monotonic()))

    def stop(self, worker: _Child) -> None:
        worker.process.kill()
        worker.process.join(STOP_TIMEOUT_S)  # one that waits for a dead network drive cannot even be killed
        worker.connection.close()

    def diagnosis(self) -> str:
        return ""


def resident_mb(pid: int | None) -> float:
    """Resident memory of a process in MiB; 0 where it is not known."""
    try:
        pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * PAGE_BYTES / 2**20


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
