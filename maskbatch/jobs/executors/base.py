"""What an executor is: a place where workers run. They differ in nothing else.

The scheduler says what is next and what is done about a lost worker; the worker turns a unit into rows and the ledger makes them
final, both inside the worker's process, so that pictures and rows never travel.
"""

from __future__ import annotations

from typing import Protocol

from maskbatch.config import Execution
from maskbatch.jobs.ledger import Ledger
from maskbatch.jobs.scheduler import Scheduler
from maskbatch.jobs.store import open_store
from maskbatch.types import Receipt, Report, Split, UnitRows, WorkUnit


class Worker(Protocol):
    """Turns units into rows. Loaded once per process."""

    def run(self, unit: WorkUnit, report: Report) -> UnitRows | Split:
        """Process a unit; errors of inputs are in the result, any exception is one of the run itself."""


class WorkerSpec(Protocol):
    """Picklable; says how to make a worker in another process."""

    def open(self) -> Worker:
        """Load the models and be ready."""


class Executor(Protocol):
    """Runs a scheduler's units until it is finished."""

    def run(self, scheduler: Scheduler, spec: WorkerSpec, ledger_url: str, execution: Execution) -> None:
        """Return when every unit has a receipt.

        Raises WorkerError when workers cannot go on, and KeyboardInterrupt after stopping them when interrupted.
        """


def work(worker: Worker, ledger: Ledger, unit: WorkUnit, report: Report) -> Receipt | Split:
    """One unit from pixels to receipt: the same few lines on every executor."""
    outcome = worker.run(unit, report)
    return outcome if isinstance(outcome, Split) else ledger.commit(unit, outcome)


def open_ledger(url: str) -> Ledger:
    """The ledger at a store's URL."""
    return Ledger(open_store(url))
