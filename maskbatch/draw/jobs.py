"""The pass after the merge: annotated pictures and videos, and crops, from the table and the sources.

Sources are spread over a few processes, so that a decoder that crashes costs what it was drawing and no more: what cannot be drawn is
noted and counted, never fatal.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from maskbatch.config import ScanConfig
from maskbatch.errors import InputError, OutputError, UsageError
from maskbatch.results.schema import RESULTS
from maskbatch.types import Source

MAX_NOTES = 5


@dataclass(frozen=True, slots=True)
class DrawTask:
    """One source with its rows of the result."""

    source: Source
    rows: pa.Table
    config: ScanConfig


def draw_one(task: DrawTask) -> str:
    """Draw everything that was asked for of one source. Returns what went wrong, or nothing."""
    from maskbatch.draw.crop_writer import write_crops
    from maskbatch.draw.faces import Style
    from maskbatch.draw.images import annotate_image
    from maskbatch.draw.videos import annotate_video

    source, rows, config = task.source, task.rows, task.config
    extras, sampling, limits = config.outputs, config.sampling, config.limits
    style = Style(boxes=extras.boxes, redact=extras.redact)
    try:
        if extras.annotate is not None:
            if source.media == "image":
                annotate_image(source, rows, extras.annotate, style, limits)
            else:
                annotate_video(source, rows, extras.annotate, sampling, style, limits)
        if extras.crops is not None and len(rows):
            write_crops(source, rows, extras.crops, style, sampling, limits)
    except (InputError, OutputError, UsageError, OSError) as error:
        return f"{source.name} could not be drawn: {error}"
    return ""


def draw_all(
    sources: Sequence[Source], results: str, unreadable: set[str], config: ScanConfig, note: Callable[[str], None]
) -> int:
    """Draw all sources but the unreadable ones.

    Args:
        sources: in the order of the result.
        results: path of ``results.parquet``.
        unreadable: names of the sources with status ``error``.
        config: what to draw, and with how many processes.
        note: told what could not be drawn (the first few, then their number).

    Returns:
        How many sources could not be drawn.
    """
    failures: list[str] = []
    tasks = (DrawTask(s, rows, config) for s, rows in with_rows(sources, results) if s.name not in unreadable)
    workers = max(1, config.execution.workers)
    exhausted = False
    while not exhausted:
        pending: dict[Future[str], DrawTask] = {}
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            try:
                while True:
                    while len(pending) < 2 * workers and (task := next(tasks, None)) is not None:
                        pending[pool.submit(draw_one, task)] = task
                    if not pending:
                        exhausted = True
                        break
                    for future in wait(pending, return_when=FIRST_COMPLETED).done:
                        failures += filter(None, [future.result()])
                        del pending[future]
            except BrokenProcessPool:  # what was in flight is given up, the rest goes to a new pool
                failures += [
                    f"{task.source.name} could not be drawn: a drawing process died" for task in pending.values()
                ]
    for failure in failures[:MAX_NOTES]:
        note(failure)
    if len(failures) > MAX_NOTES:
        note(f"{len(failures) - MAX_NOTES} more could not be drawn")
    return len(failures)


def with_rows(sources: Sequence[Source], results: str) -> Iterator[tuple[Source, pa.Table]]:
    """Every source with its rows, reading the result once; it has the order of `sources`."""
    groups = _by_source(results)
    held = next(groups, None)
    for source in sources:
        if held is not None and held[0] == source.name:
            yield source, held[1]
            held = next(groups, None)
        else:
            yield source, RESULTS.empty_table()


def _by_source(results: str) -> Iterator[tuple[str, pa.Table]]:
    """Consecutive rows of the same source, across the batches of the file."""
    name: str | None = None
    parts: list[pa.Table] = []
    for batch in pq.ParquetFile(results).iter_batches():
        names = batch.column("source").cast(pa.string()).to_pylist()
        start = 0
        for end in range(1, len(names) + 1):
            if end < len(names) and names[end] == names[start]:
                continue
            if names[start] != name and parts and name is not None:
                yield name, pa.concat_tables(parts)
                parts = []
            name = names[start]
            parts.append(pa.Table.from_batches([batch.slice(start, end - start)]))
            start = end
    if parts and name is not None:
        yield name, pa.concat_tables(parts)
