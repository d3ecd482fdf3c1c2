"""Second step: hand out the units that are not done yet, until every input has a receipt."""

from __future__ import annotations

import time

from maskbatch.jobs.completed import PiecesBySource, remaining
from maskbatch.jobs.executors import make_executor
from maskbatch.jobs.scheduler import Scheduler
from maskbatch.jobs.units import Backlog
from maskbatch.pipeline.worker import ScanWorkerSpec
from maskbatch.runtime import usable_cpus
from maskbatch.scanning.context import Run
from maskbatch.scanning.progress import Progress
from maskbatch.types import Receipt


def process(run: Run, *, again: bool) -> PiecesBySource:
    """Process what is left; all pieces that are done then.

    Args:
        run: the scan.
        again: something that was done had to be forgotten, and this is not the first time.

    Raises:
        WorkerError, OutputError: the workers cannot go on, or nothing can be written.
    """
    done = run.ledger.done()
    sources = run.own_sources
    pieces = remaining(sources, done)
    sizes = {piece.source.name: piece.source.size for piece in pieces}
    readable = sum(source.problem is None for source in sources)
    state = Progress(inputs=len(sources), pieces=len(pieces), bytes=sum(sizes.values()), resumed=readable - len(pieces))
    if not again:
        run.summary.resumed = state.resumed
    if not pieces:
        return done
    if state.resumed and not again:
        run.note(f"continuing: {state.resumed} of {readable} inputs are already done")
    run.reporter.phase("scan")

    def on_receipt(receipt: Receipt) -> None:
        state.count(receipt, sum(sizes.get(r.name, 0) // max(1, r.parts) for r in receipt.results))
        run.reporter.progress(state)

    execution = run.config.execution
    spec = ScanWorkerSpec(run.config, run.devices)
    executor = make_executor(execution.executor)
    workers = run.summary.workers = executor.workers(execution, spec.gpus)
    backlog = Backlog(pieces, run.key.text, workers, execution.unit_images)
    scheduler = Scheduler(backlog, run.ledger, run.key.text, done, on_receipt, run.note)
    run.reporter.progress(state)
    state.started = time.monotonic()
    executor.run(scheduler, spec, run.work.url, execution)
    summary = run.summary
    summary.wall_s = state.elapsed_s
    summary.pieces = state.pieces_done
    summary.first_result_s = state.first_result_s
    summary.stages = state.stages
    cores = workers if execution.executor == "ray" else min(workers, usable_cpus())
    summary.ceiling_fraction = sum(state.stages.values()) / (cores * summary.wall_s)
    return run.ledger.done()
