"""Watching workers, wherever they run: one unit out per worker, and a worker that dies, hangs or grows too large is replaced.

The supervisor asks a `WorkerHost` for the few things that differ: starting a worker, hearing from it, looking at it, and finding out how
it ended. What becomes of a lost worker's unit is the scheduler's decision. The supervisor never waits for ever.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from maskbatch.config import Execution
from maskbatch.errors import InputErrorCode, MaskbatchError, WorkerError
from maskbatch.jobs.scheduler import Scheduler
from maskbatch.types import Receipt, Split, WorkUnit

POLL_S = 0.5
MAX_FAILED_STARTS = 3


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has loaded its models."""


@dataclass(frozen=True, slots=True)
class WorkerFailure:
    """The worker is gone, or must go: a crash, or an exception that it should not have let through."""

    cause: InputErrorCode
    detail: str = ""


Message = Ready | Receipt | Split | MaskbatchError | WorkerFailure


@dataclass(frozen=True, slots=True)
class Observation:
    """What is seen of a worker that works.

    Attributes:
        signs: counts up whenever something moves in it.
        quiet_s: seconds since something last moved, as far as the host knows; 0 where `signs` tells.
        resident_mb: its memory.
    """

    signs: int
    quiet_s: float = 0.0
    resident_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class Burial:
    """How a worker ended.

    Attributes:
        cause: maybe known better now than when it was buried.
        detail: for a person.
        suspects: indices of the pieces that it had begun and not ended; None where that is not known.
        killed: from outside, so that its input deserves more patience.
        place_gone: not empty where the whole machine is gone, so that no input is to blame; says so.
    """

    cause: InputErrorCode
    detail: str = ""
    suspects: frozenset[int] | None = None
    killed: bool = False
    place_gone: str = ""


@dataclass(slots=True, eq=False, kw_only=True)
class SupervisedWorker:
    """The supervisor's view of one worker. Hosts add what they need to reach it."""

    number: int
    ready: bool = False
    unit: WorkUnit | None = None
    heard: float = field(default_factory=time.monotonic)
    signs: int = 0


WorkerT = TypeVar("WorkerT", bound=SupervisedWorker)


class WorkerHost(Protocol[WorkerT]):
    """Where workers run."""

    @property
    def count(self) -> int:
        """Workers that there are to be."""

    @property
    def start_timeout_s(self) -> float:
        """A worker that has not loaded its models by then is given up."""

    @property
    def idle_timeout_s(self) -> float:
        """An error when no worker has been ready for this long."""

    def start(self, number: int) -> WorkerT:
        """Start a worker; it says `Ready` later. `number` is 0 … count - 1, and that of a worker that it replaces."""

    def started(self) -> None:
        """The first workers have been started."""

    def send(self, worker: WorkerT, unit: WorkUnit) -> None:
        """Give a ready worker its next unit; if it has just died, `messages` tells."""

    def is_alive(self, worker: WorkerT) -> bool:
        """Whether a worker can be given a unit, as far as is known."""

    def messages(self, workers: Sequence[WorkerT], timeout_s: float) -> Iterator[tuple[WorkerT, Message]]:
        """What the workers report; waits for the first message no longer than the time-out."""

    def observe(self, worker: WorkerT) -> Observation | None:
        """What is seen of a worker, or None where nothing is known yet."""

    def bury(self, worker: WorkerT, failure: WorkerFailure) -> Burial:
        """End a worker, and find out how it ended."""

    def dismiss(self, workers: Sequence[WorkerT]) -> None:
        """All work is done: let idle workers end by themselves."""

    def stop(self, worker: WorkerT) -> None:
        """End a worker now, whatever it does; no error where it has ended."""

    def diagnosis(self) -> str:
        """Why workers may not start, for a person; may be empty."""


class Supervisor(Generic[WorkerT]):
    """Runs a scheduler's units on the workers of a host."""

    def __init__(self, host: WorkerHost[WorkerT], scheduler: Scheduler, execution: Execution) -> None:
        self._host = host
        self._scheduler = scheduler
        self._execution = execution
        self._workers: list[WorkerT] = []
        self._failed_starts = 0
        self._last_ready = time.monotonic()

    def run(self) -> None:
        """Return when every unit has a receipt; see `Executor.run`."""
        try:
            self._replace()
            self._host.started()
            while not self._scheduler.finished:
                self._hand_out()
                for worker, message in self._host.messages(self._workers, POLL_S):
                    self._hear(worker, message)
                self._watch()
                self._replace()
            self._host.dismiss(self._workers)
        finally:
            for worker in self._workers:
                self._host.stop(worker)
            self._workers = []

    def _replace(self) -> None:
        while len(self._workers) < self._host.count and not self._scheduler.finished:
            taken = {worker.number for worker in self._workers}
            number = next(n for n in range(self._host.count) if n not in taken)
            with _uninterrupted():  # an interrupt gets through once the worker is in the list of those to be stopped
                self._workers.append(self._host.start(number))

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.ready and worker.unit is None and self._host.is_alive(worker):
                unit = self._scheduler.next()
                if unit is None:
                    return
                worker.unit = unit
                worker.heard = time.monotonic()
                self._host.send(worker, unit)

    def _hear(self, worker: WorkerT, message: Message) -> None:
        if worker not in self._workers:
            return
        worker.heard = time.monotonic()
        if isinstance(message, Ready):
            worker.ready = True
        elif isinstance(message, MaskbatchError):
            raise message
        elif isinstance(message, WorkerFailure):
            self._bury(worker, message)
        elif worker.unit is not None:
            self._failed_starts = 0
            unit, worker.unit = worker.unit, None
            self._scheduler.completed(unit, message)

    def _watch(self) -> None:
        now = time.monotonic()
        if any(worker.ready for worker in self._workers):
            self._last_ready = now
        elif now - self._last_ready > self._host.idle_timeout_s:
            raise WorkerError(f"no worker has been alive for {now - self._last_ready:.0f} s. {self._host.diagnosis()}")
        moved = 0
        for worker in list(self._workers):
            if worker.unit is None and worker.ready:
                continue
            seen = self._host.observe(worker) if worker.ready else None
            if seen is not None:
                moved += self._note(worker, seen, now)
            limit = self._execution.timeout_s if worker.ready else self._host.start_timeout_s
            if now - worker.heard > limit:
                self._bury(worker, WorkerFailure("hung"))
            elif seen and self._execution.max_memory_mb and seen.resident_mb > self._execution.max_memory_mb:
                self._bury(worker, WorkerFailure("out_of_memory"))
        if moved:
            self._scheduler.moved(moved)

    @staticmethod
    def _note(worker: WorkerT, seen: Observation, now: float) -> int:
        """Take in what was seen; how many signs of life are new."""
        fresh = (seen.signs - worker.signs) & 0xFFFFFFFF
        if fresh:
            worker.signs = seen.signs
            worker.heard = max(worker.heard, now - seen.quiet_s)
        return fresh

    def _bury(self, worker: WorkerT, failure: WorkerFailure) -> None:
        """Remove a worker and give its unit back."""
        self._workers.remove(worker)
        burial = self._host.bury(worker, failure)
        if worker.unit is None:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                why = " ".join(filter(None, (f"({burial.detail})" if burial.detail else "", self._host.diagnosis())))
                raise WorkerError(
                    f"workers do not start: {self._failed_starts} ended before they took any work {why}".rstrip()
                )
        elif burial.place_gone:
            self._scheduler.returned(worker.unit, burial.place_gone)
        else:
            self._scheduler.lost(worker.unit, burial.cause, burial.suspects, burial.detail, burial.killed)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
