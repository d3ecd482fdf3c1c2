"""Fourth step: annotated images and videos and face crops, as jobs on the same executors.

What was drawn is kept in a ledger of its own inside the work folder (``draw/``), so that a killed run goes on where it stopped, and a
repeated one draws only what is new. What could not be drawn is named and counted, and tried again by the next run.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq

from maskbatch.config import Execution, ScanConfig
from maskbatch.draw.names import annotated_name, changed_names
from maskbatch.draw.paths import output_path
from maskbatch.draw.worker import DrawPiece, DrawWorkerSpec
from maskbatch.jobs.executors import make_executor
from maskbatch.jobs.key import RunKey
from maskbatch.jobs.ledger import Ledger
from maskbatch.jobs.scheduler import Scheduler
from maskbatch.jobs.units import Backlog
from maskbatch.runtime import usable_cpus
from maskbatch.scanning.context import Run
from maskbatch.scanning.progress import Progress
from maskbatch.storage import Store
from maskbatch.types import Receipt, Source

FOLDER = "draw"
MAX_NOTES = 5
VERSION = 2
"""Raised where what is drawn must be drawn again: 2 since redaction looks at every frame."""

SourceKey = tuple[str, str]


def draw(run: Run) -> None:
    """Draw everything that was asked for and is not drawn yet.

    Raises:
        WorkerError, OutputError: the workers cannot go on, or nothing can be written.
    """
    outputs = run.config.outputs
    if not outputs.draws:
        return
    run.reporter.phase("annotate")
    for name, folder in (("annotated", outputs.annotate), ("crops", outputs.crops)):
        if folder is not None:
            run.summary.outputs[name] = os.fspath(folder)
            _remove_temporaries(folder)
    work = run.work.below(FOLDER)
    key = draw_key(run)
    ledger = Ledger(work)
    ledger.clear_temporaries()
    if not ledger.belongs_to(key):
        ledger.clear()
    ledger.claim(key)
    drawn = {name for name, result in _outcomes(ledger).items() if not result}
    wanted = list(_pieces(run))
    pieces = [piece for piece in wanted if _version(piece.source) not in drawn or not _is_there(run, piece)]
    if pieces:
        _draw(run, pieces, ledger, key, work)
    outcomes = _outcomes(ledger)
    missed = {
        piece.source.name: outcomes.get(_version(piece.source), "it was not drawn")
        for piece in wanted
        if outcomes.get(_version(piece.source), "it was not drawn")
    }
    run.summary.drawn = len(wanted) - len(missed)
    run.summary.not_drawn = missed
    for name, message in list(missed.items())[:MAX_NOTES]:
        run.note(f"{name} could not be drawn: {message}")
    if len(missed) > MAX_NOTES:
        run.note(f"{len(missed) - MAX_NOTES} more could not be drawn")


def draw_key(run: Run) -> RunKey:
    """What drawn files belong to: the rows, which follow from the scan's key, and how they are shown and where."""
    outputs = run.config.outputs
    shown = {
        "draw.annotate": None if outputs.annotate is None else os.path.realpath(outputs.annotate),
        "draw.crops": None if outputs.crops is None else os.path.realpath(outputs.crops),
        "draw.redact": outputs.redact_part if outputs.redact else None,
        "draw.redact_every_s": outputs.redact_every_s,
        "draw.redact_size": outputs.redact_size,
        "draw.mute": outputs.mute,
        "draw.version": VERSION,
        "draw.boxes": outputs.boxes,
        "draw.track": outputs.track,
    }
    return dataclasses.replace(run.key, settings={**run.key.settings, **shown}, purpose="draw")


def _draw(run: Run, pieces: list[DrawPiece], ledger: Ledger, key: RunKey, work: Store) -> None:
    sizes = {piece.source.name: piece.source.size for piece in pieces}
    state = Progress(
        inputs=len(pieces), pieces=len(pieces), bytes=sum(sizes.values()), resumed=0, labels={}, counts="drawn"
    )

    def on_receipt(receipt: Receipt) -> None:
        state.count(receipt, sum(sizes.get(result.name, 0) for result in receipt.results))
        run.reporter.progress(state)

    def on_moved(signs: int) -> None:
        state.moved += signs
        run.reporter.progress(state)

    searches = run.config.outputs.redact and any(piece.source.media == "video" for piece in pieces)
    spec = DrawWorkerSpec(
        _with_absolute_folders(run.config), run.task, run.rows_path, devices=run.devices if searches else ()
    )
    execution = run.config.execution if searches else _execution(run)
    executor = make_executor(execution.executor)
    workers = executor.workers(execution, spec.gpus)
    backlog = Backlog(pieces, key.text, workers, execution.unit_images)
    scheduler = Scheduler(backlog, ledger, key.text, {}, on_receipt, run.note, on_moved)
    run.reporter.progress(state)
    executor.run(scheduler, spec, work.url, execution)
    run.summary.draw_s = state.elapsed_s


def _with_absolute_folders(config: ScanConfig) -> ScanConfig:
    """Workers on other machines have another working folder."""
    annotate, crops = (
        None if folder is None else Path(folder).absolute()
        for folder in (config.outputs.annotate, config.outputs.crops)
    )
    return config.with_options(annotate=annotate, crops=crops)


def _execution(run: Run) -> Execution:
    """As for the scan; but where that has a worker per GPU, drawing, which needs none, has one per core."""
    execution = run.config.execution
    if run.devices[0].is_gpu and not run.request.config.execution.workers and execution.executor != "ray":
        return dataclasses.replace(execution, workers=usable_cpus())
    return execution


def _pieces(run: Run) -> Iterator[DrawPiece]:
    """Every source that could be read, with the place of its rows; the result has the order of the sources."""
    columns = ["status", "faces"]
    table = pq.read_table(io.BytesIO(run.store.read(run.out.inputs)), columns=columns)
    first = 0
    changed = changed_names(run.sources)
    for name, other in list(changed.items())[:MAX_NOTES]:
        run.note(f"{name} is drawn as {other}, since its own name would be that of another input's drawing")
    for source, status, faces in zip(run.sources, table["status"].to_pylist(), table["faces"].to_pylist(), strict=True):
        if status != "error":
            yield DrawPiece(source, first_row=first, rows=faces, drawn_as=changed.get(source.name, ""))
        first += faces


def _outcomes(ledger: Ledger) -> dict[SourceKey, str]:
    """What is known of each source: an empty text where it was drawn, else why it was not."""
    found: dict[SourceKey, str] = {}
    for receipt in ledger.receipts():
        for result in receipt.results:
            version = (result.name, result.fingerprint)
            message = "" if result.status == "ok" else result.message or str(result.error)
            if not message or version not in found:
                found[version] = message
    return found


def _version(source: Source) -> SourceKey:
    return source.name, source.fingerprint


def _is_there(run: Run, piece: DrawPiece) -> bool:
    """Whether what was drawn of a source still exists; somebody may have emptied the folder."""
    outputs = run.config.outputs
    if outputs.crops is not None and not outputs.crops.is_dir():
        return False
    if outputs.annotate is None:
        return True
    name = annotated_name(piece.drawn_as or piece.source.name, piece.source.media)
    return output_path(outputs.annotate, name).exists()


def _remove_temporaries(folder: Path) -> None:
    """What a killed worker left half-written."""
    for path in folder.rglob(".*-????????.tmp"):
        with suppress(OSError):
            path.unlink()
