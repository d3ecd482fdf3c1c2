"""A scan from its arguments to its summary: discover → process → merge → draw → finish."""

from __future__ import annotations

import datetime as dt
import glob
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from maskbatch.config import ScanConfig, ScanOptions
from maskbatch.errors import UsageError
from maskbatch.jobs.snapshot import write_snapshot
from maskbatch.pipeline.worker import ScanWorkerSpec
from maskbatch.results.paths import OutputPaths
from maskbatch.scanning.context import Run, ScanRequest
from maskbatch.scanning.discover import find_inputs
from maskbatch.scanning.draw import draw
from maskbatch.scanning.duplicates import find_duplicates
from maskbatch.scanning.finish import finish
from maskbatch.scanning.merge import process_and_merge
from maskbatch.scanning.progress import Reporter, SilentReporter
from maskbatch.scanning.summary import ScanSummary
from maskbatch.sources.capture_metadata import capture_zone
from maskbatch.sources.since import since_time
from maskbatch.types import Source


def scan(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] = "results.parquet",
    config: ScanConfig | None = None,
    *,
    overwrite: bool = False,
    restart: bool = False,
    limit: int | None = None,
    dry_run: bool = False,
    follow: bool = False,
    sniff: bool = False,
    since: str | float | dt.datetime | None = None,
    settings_file: Mapping[str, Any] | None = None,
    accept: Callable[[Source], bool] | None = None,
    reporter: Reporter | None = None,
    **options: Unpack[ScanOptions],
) -> ScanSummary:
    """Find every face in images and videos, say how it wears its mask, and write one table.

    ::

        summary = maskbatch.scan(["photos", "cctv"], "results.parquet", every_s=5, workers=2)
        print(summary.faces, summary.labels, summary.exit_code)

    Args:
        paths: files, folders (recursive), globs, URLs, ``@list``; one or several.
        out: the table to write; a folder ending in ``/`` gives a partitioned data set. A URL works too.
        config: all settings.
        overwrite: replace an existing result that was made with other inputs, settings or models.
        restart: forget the finished work of an interrupted run instead of continuing it.
        limit: process at most this many inputs.
        dry_run: find the inputs and check models, device and output, then stop.
        follow: enter linked folders too, each folder once.
        sniff: look into files in folders whose extension says nothing, and scan those that are images or videos.
        since: leave out inputs whose capture began before this (ISO 8601, POSIX seconds, a `datetime`, or how long ago: ``7d``);
            where the time of capture is in neither name nor manifest, the time of the last change of the file counts.
        settings_file: recorded in the run file as the origin of the settings (path, checksum, values).
        accept: of what is found, only the sources for which this is true are inputs.
        reporter: told of the progress.
        options: single settings by name (`maskbatch.ScanOptions`), e.g. ``workers=1``; they win over `config`.

    Returns:
        What was done; `exit_code` is that of the command line.

    Raises:
        MaskbatchError: what a person can fix, in one sentence; inputs that fail are rows, not exceptions.
        KeyboardInterrupt: interrupted; the same call continues.
    """
    paths = [paths] if isinstance(paths, str | os.PathLike) else paths
    reporter = reporter or SilentReporter()
    try:
        if not paths:
            raise UsageError("name at least one file, folder or glob to scan")
        settings = (config or ScanConfig()).with_options(**options)
        request = ScanRequest(
            paths=tuple(os.fspath(path) for path in paths),
            out=OutputPaths.of(os.fspath(out)),
            config=settings,
            overwrite=overwrite,
            restart=restart,
            limit=limit,
            dry_run=dry_run,
            follow=follow,
            sniff=sniff,
            since=None if since is None else since_time(since, capture_zone(settings.capture.timezone)),
            settings_file=settings_file,
            accept=accept,
        )
        return _scan(request, reporter)
    finally:
        reporter.close()


def _scan(request: ScanRequest, reporter: Reporter) -> ScanSummary:
    started = time.monotonic()
    run = find_inputs(request, reporter)
    if request.dry_run or not run.sources:  # otherwise the workers, which load the models anyway, tell of a broken one
        ScanWorkerSpec(run.config, run.devices).for_worker(0).open().close()
    if request.dry_run:
        run.summary.dry_run = True
        return run.summary
    with run.work.lock("lock") as lock:
        if lock.note:
            run.note(lock.note)
        _claim(run)
        totals = process_and_merge(run, lock)
        draw(run)
        finish(run, totals, started)
        write_snapshot(run.work, run.own_sources, merged=True)
    return run.summary


def _claim(run: Run) -> None:
    """Make the work folder this run's own; nobody else writes here while the lock is held."""
    run.ledger.clear_temporaries()
    for name in run.out.files:
        run.store.remove_temporaries(".", glob.escape(name))
    # With --overwrite too, the same command continues.
    if run.request.restart or (run.request.overwrite and not run.ledger.belongs_to(run.key)):
        run.ledger.clear()
    run.ledger.claim(run.key)
    if run.config.outputs.skip_duplicates:
        run.twins.update(find_duplicates(run.sources, run.work))
        run.summary.duplicates = len(run.twins)
    write_snapshot(run.work, run.own_sources)
