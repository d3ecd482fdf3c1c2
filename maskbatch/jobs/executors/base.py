"""What an executor is: a place where workers run. They differ in nothing else.

The scheduler says what is next and what is done about a lost worker; the worker turns a unit into rows and the ledger makes them
final, both inside the worker's process, so that images and rows never travel.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Protocol

from maskbatch.config import Execution
from maskbatch.errors import InputErrorCode
from maskbatch.jobs.ledger import Ledger
from maskbatch.jobs.scheduler import Scheduler
from maskbatch.storage import open_store
from maskbatch.types import ProgressCallback, Receipt, Split, UnitRows, WorkUnit


class Worker(Protocol):
    """Turns units into rows. Loaded once per process."""

    def run(self, unit: WorkUnit, report: ProgressCallback) -> UnitRows | Split:
        """Process a unit; errors of inputs are in the result.

        A MaskbatchError is one of the run itself and ends it; any other exception is taken for the fault of an input that is still to
        be found (`Scheduler.lost`).
        """

    def close(self) -> None:
        """Undo what `WorkerSpec.open` changed in this process."""


class WorkerSpec(Protocol):
    """Picklable; says how to make a worker in another process."""

    @property
    def gpus(self) -> int:
        """GPUs that the workers share; 0 where they need none."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Local folders that workers write to beside the work folder; all machines must share them."""

    def for_worker(self, number: int) -> WorkerSpec:
        """The same for one worker of several: it is given its own GPU."""

    def open(self) -> Worker:
        """Load the models and be ready."""


class Executor(Protocol):
    """Runs a scheduler's units until it is finished."""

    def workers(self, execution: Execution, gpus: int) -> int:
        """How many workers there will be; where that depends on a cluster, it is joined now. `gpus`: as in `WorkerSpec`."""

    def run(self, scheduler: Scheduler, spec: WorkerSpec, ledger_url: str, execution: Execution) -> None:
        """Return when every unit has a receipt.

        Raises WorkerError when workers cannot go on, and KeyboardInterrupt after stopping them when interrupted.
        """


def work(worker: Worker, ledger: Ledger, unit: WorkUnit, report: ProgressCallback) -> Receipt | Split:
    """One unit from pixels to receipt: the same few lines on every executor."""
    outcome = worker.run(unit, report)
    return outcome if isinstance(outcome, Split) else ledger.commit(unit, outcome)


def describe_failure(error: Exception) -> tuple[InputErrorCode, str]:
    """What is told of an exception that a worker should not have let through: a defect of ours, or of a library."""
    if isinstance(error, MemoryError):
        return "out_of_memory", "allocation failed"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "maskbatch" in frame.filename] or frames
    where = f" ({Path(ours[-1].filename).name}:{ours[-1].lineno})" if ours else ""
    return "internal", f"unexpected {type(error).__name__}: {error}{where}"


def open_ledger(url: str) -> Ledger:
    """The ledger at a store's URL."""
    return Ledger(open_store(url))
