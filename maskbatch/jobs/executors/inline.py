"""The executor without processes: everything in this one, for debugging and for tests. A crash ends the run; an exception does not."""

from __future__ import annotations

from maskbatch.config import Execution
from maskbatch.errors import MaskbatchError
from maskbatch.jobs.executors.base import WorkerSpec, describe_failure, open_ledger, work
from maskbatch.jobs.scheduler import Scheduler


class InlineExecutor:
    """Runs unit after unit in the calling process."""

    def workers(self, execution: Execution, on_gpu: bool) -> int:
        """One: this process."""
        return 1

    def run(self, scheduler: Scheduler, spec: WorkerSpec, ledger_url: str, execution: Execution) -> None:
        """See `Executor.run`."""
        ledger = open_ledger(ledger_url)
        worker = None
        while not scheduler.finished:
            unit = scheduler.next()
            if unit is None:
                break
            worker = worker or spec.open()
            try:
                answer = work(worker, ledger, unit, lambda _event, _index: None)
            except MaskbatchError:
                raise
            except Exception as error:
                scheduler.lost(unit, *describe_failure(error))
            else:
                scheduler.completed(unit, answer)
