"""The executor without processes: everything in this one, for debugging and for tests. A crash ends the run."""

from __future__ import annotations

from maskbatch.config import Execution
from maskbatch.jobs.executors.base import WorkerSpec, open_ledger, work
from maskbatch.jobs.scheduler import Scheduler


class InlineExecutor:
    """Runs unit after unit in the calling process."""

    def run(self, scheduler: Scheduler, spec: WorkerSpec, ledger_url: str, execution: Execution) -> None:
        """See `Executor.run`."""
        ledger = open_ledger(ledger_url)
        worker = None
        while not scheduler.finished:
            unit = scheduler.next()
            if unit is None:
                break
            worker = worker or spec.open()
            scheduler.completed(unit, work(worker, ledger, unit, lambda _event, _index: None))
