"""Third step: merge the parts into the result, with tracks where they are wanted."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

import maskbatch
from maskbatch.config import FOLLOWING_FPS, WIDEST_STEP_S
from maskbatch.errors import OutputError
from maskbatch.jobs.completed import PiecesBySource, remaining
from maskbatch.jobs.ledger import DamagedPartError
from maskbatch.results.dataset import Dataset, generation_of
from maskbatch.results.merge import (
    ROW_GROUP,
    GroupWriter,
    PartCache,
    ResultWriter,
    RowWriter,
    Totals,
    Tracker,
    ends_in_future,
    walk,
    with_run_metadata,
)
from maskbatch.results.reader import ResultReader
from maskbatch.results.schema import results_schema
from maskbatch.scanning.context import ROWS_COPY, Run
from maskbatch.scanning.duplicates import LookAlikes
from maskbatch.scanning.process import process
from maskbatch.sources.capture_metadata import UNKNOWN, capture_zone, plausible_iso
from maskbatch.storage import Lock
from maskbatch.types import Problem

MERGE_ATTEMPTS = 10


def process_and_merge(run: Run, lock: Lock) -> Totals:
    """Process and merge; what turns out to be damaged on the way is processed again, a few times.

    Raises:
        OutputError: what is written comes back damaged again and again.
        LockedError: another run has taken over this output.
    """
    for attempt in range(MERGE_ATTEMPTS):
        done = process(run, again=attempt > 0)
        if missing := remaining(run.own_sources, done):
            run.note(f"the receipts of {len(missing)} inputs failed validation; reprocessing them")
            continue
        lock.check()
        run.reporter.phase("merge")
        try:
            return _merge(run, done)
        except DamagedPartError as error:
            run.ledger.forget(error.unit)
            run.note(f"{error}; reprocessing its inputs")
    raise OutputError(f"what is written to {run.work.url} comes back damaged again and again; is its disk failing?")


def _merge(run: Run, done: PiecesBySource) -> Totals:
    out, outputs = run.out, run.config.outputs
    metadata = {
        "tool": f"maskbatch {maskbatch.__version__}",
        "models": dict(run.key.models),
        "labels": list(run.task.labels),
        "settings": dict(run.key.settings),
    }
    schema = with_run_metadata(results_schema(run.task), metadata)
    track = _tracker() if outputs.track else None
    with ExitStack() as stack:
        inputs = stack.enter_context(run.store.writing(out.inputs))
        rows: list[RowWriter] = []
        if out.dataset:
            # A picture's Exif time is read in this zone, and the default adds nothing.
            key = run.key.text + run.config.capture.timezone.removesuffix("UTC")
            generation = generation_of(key, run.sources, outputs.track)
            rows.append(stack.enter_context(Dataset(run.store, out.results).writing(schema, generation)))
        else:
            rows.append(GroupWriter(stack.enter_context(run.store.writing(out.results)), schema, ROW_GROUP))
        if run.needs_rows_copy:
            rows.append(GroupWriter(stack.enter_context(run.work.writing(ROWS_COPY)), schema, ROW_GROUP))
        writer = ResultWriter(rows, inputs, metadata, run.task, duplicates=outputs.skip_duplicates)
        look_alikes = LookAlikes() if outputs.skip_duplicates else None
        without_name = from_metadata = 0
        zone = capture_zone(run.config.capture.timezone)
        parts = PartCache(run.ledger, run.task)
        for item in walk(run.sources, done, parts, run.twins, look_alikes.find if look_alikes else None):
            if item.result.taken_at is not None:
                item.result.started_at = plausible_iso(item.result.taken_at, zone)
            if item.source.start_time is None:
                without_name += 1
                from_metadata += item.result.started_at is not None
            if (future := ends_in_future(item)) is not None:
                item.result.note(future)
            if item.source.remark is not None:
                item.result.note(Problem("ok", None, item.source.remark))
            tracked = track is not None and item.source.media == "video" and len(item.rows) > 0
            writer.add(item, track(item.rows) if tracked and track is not None else None)
        writer.close()
    run.summary.near_duplicates = look_alikes.found if look_alikes else 0
    run.summary.clocks |= {"metadata": from_metadata, UNKNOWN: without_name - from_metadata}
    run.summary.outputs = {
        "results": out.path(out.results),
        "inputs": out.path(out.inputs),
        "run": out.path(out.run),
    }
    if outputs.track:
        _write_tracks(run)
    return writer.totals


def _write_tracks(run: Run) -> None:
    from maskbatch.results.tracks import tracks_table

    rows: Any = ResultReader(run.rows_path).tables()
    tracks = tracks_table(rows)
    with run.store.writing(run.out.tracks) as target:
        pq.write_table(tracks, target, compression="zstd")
    run.summary.people = len(tracks)
    run.summary.people_seen_once = int(pc.sum(pc.equal(tracks["sightings"], 1)).as_py() or 0)
    sampling = run.config.sampling
    if sampling.mode == "keyframes" or (sampling.mode == "every" and sampling.every_s > WIDEST_STEP_S):
        run.note(
            f"people are followed over steps of more than {WIDEST_STEP_S:g} s: where many pass at a time they are told apart worse than with --fps {FOLLOWING_FPS:g}"
        )
    run.summary.outputs["tracks"] = run.out.path(run.out.tracks)


def _tracker() -> Tracker:
    from maskbatch.results.tracks import track_video

    return track_video
