"""The executor without processes: everything in this one, for debugging and for tests. A crash ends the run; an exception does not."""

from __future__ import annotations

from maskbatch.config import Execution
from maskbatch.errors import MaskbatchError
from maskbatch.jobs.executors.base import WorkerSpec, describe_failure, open_ledger, work
from maskbatch.jobs.scheduler import Scheduler
from maskbatch.types import Event


class InlineExecutor:
    """Runs unit after unit in the calling process, and leaves its settings as they were."""

    def workers(self, execution: Execution, gpus: int) -> int:
        """One: this process."""
        return 1

    def run(self, scheduler: Scheduler, spec: WorkerSpec, ledger_url: str, execution: Execution) -> None:
        """See `Executor.run`."""
        ledger = open_ledger(ledger_url)
        worker = None

        def report(_event: Event, _index: int) -> None:
            scheduler.moved(1)

        try:
            while not scheduler.finished:
                unit = scheduler.next()
                if unit is None:
                    break
                worker = worker or spec.for_worker(0).open()
                try:
                    answer = work(worker, ledger, unit, report)
                except MaskbatchError:
                    raise
                except Exception as error:
                    cause, detail = describe_failure(error)
                    scheduler.lost(unit, cause, detail=detail)
                else:
                    scheduler.completed(unit, answer)
        finally:
            if worker is not None:
                worker.close()
