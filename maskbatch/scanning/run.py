"""The scan as a whole: discover ▶ plan ▶ execute ▶ merge ▶ draw. Each step is one call into its room."""

from __future__ import annotations

import dataclasses
import glob
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import maskbatch
from maskbatch.config import ScanConfig
from maskbatch.detect import model_identity, pin_models
from maskbatch.draw.paths import check_output_folder
from maskbatch.errors import OutputError, OutputExistsError, UsageError
from maskbatch.jobs.completed import PiecesBySource, remaining
from maskbatch.jobs.executors import make_executor
from maskbatch.jobs.ledger import DamagedPartError, Ledger, key_text
from maskbatch.jobs.scheduler import Scheduler
from maskbatch.jobs.snapshot import write_snapshot
from maskbatch.jobs.units import Backlog
from maskbatch.pipeline.worker import ScanWorkerSpec
from maskbatch.results.dataset import Dataset, generation_of
from maskbatch.results.merge import (
    ROW_GROUP,
    GroupWriter,
    PartCache,
    ResultWriter,
    RowWriter,
    Totals,
    walk,
    with_run_metadata,
)
from maskbatch.results.paths import OutputPaths
from maskbatch.results.schema import RESULTS
from maskbatch.runtime import Device, resolve_device
from maskbatch.scanning.progress import Progress, Reporter, SilentReporter
from maskbatch.scanning.summary import ScanSummary
from maskbatch.sources.capture_metadata import CaptureMetadataRules
from maskbatch.sources.discovery.discover import Discovery, discover
from maskbatch.storage import Store, open_store
from maskbatch.types import Receipt, Source

__all__ = ["ScanSummary", "scan"]

MERGE_ATTEMPTS = 10
"""Each one more than the first follows a part that was found damaged."""


def scan(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] = "results.parquet",
    config: ScanConfig | None = None,
    *,
    overwrite: bool = False,
    restart: bool = False,
    limit: int | None = None,
    dry_run: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> ScanSummary:
    """Find every face in pictures and videos, say how it wears its mask, and write the table.

    Args:
        paths: files, folders, globs, URLs; a single one or several.
        out: ``….parquet``; its companions lie beside it. A folder name ending in ``/`` gives a partitioned data set.
        config: settings; the defaults where left out.
        overwrite: replace a result made with other settings or inputs.
        restart: forget the finished work of an interrupted run instead of continuing it.
        limit: at most so many inputs.
        dry_run: find the inputs and check models, device and output, then stop.
        reporter: told of the progress.
        options: single settings by name, e.g. ``workers=1``; they win over `config`.

    Returns:
        What was done; `exit_code` is that of the command line.

    Raises:
        MaskbatchError: what a person can mend, in one sentence; inputs that fail are rows, not exceptions.
        KeyboardInterrupt: interrupted; the same call continues.
    """
    paths = [paths] if isinstance(paths, str | os.PathLike) else paths
    reporter = reporter or SilentReporter()
    try:
        run = _Run(
            [os.fspath(path) for path in paths],
            os.fspath(out),
            (config or ScanConfig()).with_options(**options),
            reporter,
        )
        return run.execute(overwrite=overwrite, restart=restart, limit=limit, dry_run=dry_run)
    finally:
        reporter.close()


class _Run:
    """One scan from its arguments to its summary."""

    def __init__(self, paths: list[str], out: str, config: ScanConfig, reporter: Reporter) -> None:
        if not paths:
            raise UsageError("name at least one file, folder or glob to scan")
        self.paths = paths
        self.out = OutputPaths.of(out)
        self.reporter = reporter
        self.device = resolve_device(config.execution.device)
        self.config = dataclasses.replace(
            _with_workers(config, self.device), models=pin_models(config.models, self.device)
        )
        self.summary = ScanSummary(
            device=self.device.name,
            provider=self.device.provider,
            workers=self.config.execution.workers,
            models=model_identity(self.config.models, self.device),
        )
        self.started = time.monotonic()
        self._flat_copy: Path | None = None

    def execute(self, *, overwrite: bool, restart: bool, limit: int | None, dry_run: bool) -> ScanSummary:
        rules = CaptureMetadataRules(self.config.capture)
        self.reporter.phase("discover")
        extras = self.config.outputs
        ours = [folder for folder in (extras.annotate, extras.crops) if folder is not None]
        discovery = discover(self.paths, limit=limit, exclude=ours)
        for option, drawn in (("--annotate", extras.annotate), ("--crops", extras.crops)):
            if drawn is not None:
                check_output_folder(drawn, discovery.roots.values(), option)
        sources = [rules.apply(source) for source in discovery.sources]
        if unmatched := rules.unused():
            self._note(f"the manifest names {len(unmatched)} paths that are no inputs, {unmatched[0]} among them")
        self.summary.inputs = len(sources)
        self.summary.ignored = discovery.ignored
        for source in sources:
            self.summary.media[source.media] = self.summary.media.get(source.media, 0) + 1
        store = open_store(self.out.folder)
        work = open_store(self.out.path(self.out.work))
        ledger = Ledger(work)
        key = self._key(discovery)
        self._refuse_to_overwrite(store, ledger, key, overwrite)
        self._refuse_to_overwrite_inputs(store, sources)
        if dry_run or not sources:  # otherwise the workers, which load the models anyway, tell of a broken one
            ScanWorkerSpec(self.config, self.device).open()
        if dry_run:
            self.summary.dry_run = True
            return self.summary
        with ExitStack() as stack:
            lock = stack.enter_context(work.lock("lock"))
            if lock.note:
                self._note(lock.note)
            self._clear_temporaries(store, ledger)
            if (self.out.dataset or store.local_path("") is None) and (ours or extras.track):
                # Drawing and tracks read the rows once more, in the order of the sources.
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="maskbatch-"))
                self._flat_copy = Path(folder) / "results.parquet"
            if restart or (
                overwrite and not ledger.belongs_to(key)
            ):  # with --overwrite too, the same command continues
                ledger.clear()
            ledger.claim(key)
            write_snapshot(work, sources)
            totals = self._process_and_merge(store, sources, ledger, key, lock.check)
            self._draw(store, sources)
            self._finish(store, totals, discovery)
            write_snapshot(work, sources, merged=True)
        return self.summary

    # --- steps

    def _key(self, discovery: Discovery) -> dict[str, Any]:
        return {
            "roots": dict(discovery.roots),
            "settings": self.config.row_settings(),
            "models": self.summary.models,
            "provider": self.device.provider,
            "unit_seconds": self.config.execution.unit_seconds,
            "hash": self.config.outputs.hash,
        }

    def _refuse_to_overwrite(self, store: Store, ledger: Ledger, key: dict[str, Any], overwrite: bool) -> None:
        """A result stays unless it is this very scan's own (then it is brought up to date) or --overwrite was given."""
        if self.out.dataset:
            dataset = Dataset(store, self.out.results)
            dataset.check()
            exists = dataset.exists()
        else:
            exists = store.size(self.out.results) is not None
        if overwrite or not (exists or store.size(self.out.run) is not None):
            return
        if not ledger.belongs_to(key):
            raise OutputExistsError(
                f"{self.out.path(self.out.results)} exists and was made with other inputs, settings or models; "
                "use --overwrite to replace it, or another --out"
            )

    def _refuse_to_overwrite_inputs(self, store: Store, sources: list[Source]) -> None:
        """No output may take the place of an input, whatever the two are called."""
        for name in (self.out.results, self.out.inputs, self.out.tracks, self.out.run):
            path = store.local_path(name)
            if path is None:
                return
            try:
                found = path.stat()
            except OSError:
                continue
            for source in sources:
                if source.size == found.st_size and "://" not in source.path and _same_file(path, source.path):
                    raise UsageError(f"--out would overwrite the input {source.path}; name another file")

    def _clear_temporaries(self, store: Store, ledger: Ledger) -> None:
        """Remove what killed runs left half-written; nobody else writes here while the lock is held."""
        ledger.clear_temporaries()
        for name in (self.out.results, self.out.inputs, self.out.tracks, self.out.run):
            store.remove_temporaries(".", glob.escape(name))

    def _process_and_merge(
        self, store: Store, sources: list[Source], ledger: Ledger, key: dict[str, Any], still_ours: Callable[[], None]
    ) -> Totals:
        for attempt in range(MERGE_ATTEMPTS):
            done = self._process(sources, ledger, key, again=attempt > 0)
            if missing := remaining(sources, done):
                self._note(f"the receipts of {len(missing)} inputs did not hold; these inputs are done again")
                continue
            still_ours()
            self.reporter.phase("merge")
            try:
                return self._merge(store, ledger, sources, done, key)
            except DamagedPartError as error:
                ledger.forget(error.unit)
                self._note(f"{error}; its inputs are done again")
        raise OutputError(
            f"what is written to {ledger.store.url} comes back damaged again and again; is its disk failing?"
        )

    def _process(self, sources: list[Source], ledger: Ledger, key: dict[str, Any], again: bool) -> PiecesBySource:
        done = ledger.done()
        pieces = remaining(sources, done)
        sizes = {(piece.source.name): piece.source.size for piece in pieces}
        readable = sum(source.problem is None for source in sources)
        state = Progress(
            inputs=len(sources), pieces=len(pieces), bytes=sum(sizes.values()), resumed=readable - len(pieces)
        )
        if not again:
            self.summary.resumed = state.resumed
        if not pieces:
            return done
        if state.resumed and not again:
            self._note(f"continuing: {state.resumed} of {readable} inputs are already done")
        self.reporter.phase("scan")

        def on_receipt(receipt: Receipt) -> None:
            state.count(receipt, sum(sizes.get(r.name, 0) // max(1, r.parts) for r in receipt.results))
            self.reporter.progress(state)

        execution = self.config.execution
        executor = make_executor(execution.executor)
        workers = self.summary.workers = executor.workers(execution, self.device.is_gpu)
        backlog = Backlog(pieces, key_text(key), workers, execution.unit_images)
        scheduler = Scheduler(backlog, ledger, key_text(key), done, on_receipt, self._note)
        self.reporter.progress(state)
        state.started = time.monotonic()
        executor.run(scheduler, ScanWorkerSpec(self.config, self.device), ledger.store.url, execution)
        self.summary.wall_s = state.elapsed_s
        self.summary.pieces = state.pieces_done
        self.summary.first_result_s = state.first_result_s
        self.summary.stages = state.stages
        cores = workers if execution.executor == "ray" else min(workers, os.cpu_count() or 1)
        self.summary.ceiling_fraction = sum(state.stages.values()) / (cores * self.summary.wall_s)
        return ledger.done()

    def _merge(
        self,
        store: Store,
        ledger: Ledger,
        sources: list[Source],
        done: PiecesBySource,
        key: dict[str, Any],
    ) -> Totals:
        metadata = {"tool": f"maskbatch {maskbatch.__version__}", "models": key["models"], "settings": key["settings"]}
        schema = with_run_metadata(RESULTS, metadata)
        track = _tracker() if self.config.outputs.track else None
        with ExitStack() as stack:
            inputs = stack.enter_context(store.writing(self.out.inputs))
            rows: list[RowWriter] = []
            if self.out.dataset:
                generation = generation_of(key_text(key), sources, self.config.outputs.track)
                rows.append(stack.enter_context(Dataset(store, self.out.results).writing(schema, generation)))
            else:
                rows.append(GroupWriter(stack.enter_context(store.writing(self.out.results)), schema, ROW_GROUP))
            if self._flat_copy is not None:
                rows.append(GroupWriter(stack.enter_context(self._flat_copy.open("wb")), schema, ROW_GROUP))
            writer = ResultWriter(rows, inputs, metadata)
            for item in walk(sources, done, PartCache(ledger)):
                tracked = track is not None and item.source.media == "video" and len(item.rows) > 0
                writer.add(item, track(item.rows) if tracked and track is not None else None)
            writer.close()
        self.summary.outputs = {
            "results": self.out.path(self.out.results),
            "inputs": self.out.path(self.out.inputs),
            "run": self.out.path(self.out.run),
        }
        if self.config.outputs.track:
            self._write_tracks(store)
        return writer.totals

    def _write_tracks(self, store: Store) -> None:
        import pyarrow.parquet as pq

        from maskbatch.results.tracks import tracks_table

        file = pq.ParquetFile(self._flat_copy or self.out.path(self.out.results))
        with store.writing(self.out.tracks) as target:
            pq.write_table(tracks_table(file.iter_batches()), target, compression="zstd")
        self.summary.outputs["tracks"] = self.out.path(self.out.tracks)

    def _draw(self, store: Store, sources: list[Source]) -> None:
        extras = self.config.outputs
        if extras.annotate is None and extras.crops is None:
            return
        import pyarrow.parquet as pq

        from maskbatch.draw.jobs import draw_all

        self.reporter.phase("annotate")
        for name, folder in (("annotated", extras.annotate), ("crops", extras.crops)):
            if folder is not None:
                self.summary.outputs[name] = os.fspath(folder)
        results = os.fspath(self._flat_copy or self.out.path(self.out.results))
        table = pq.read_table(io.BytesIO(store.read(self.out.inputs)), columns=["source", "status"])
        inputs = table.to_pylist()
        unreadable = {row["source"] for row in inputs if row["status"] == "error"}
        draw_all(sources, results, unreadable, self.config, self._note)

    def _finish(self, store: Store, totals: Totals, discovery: Discovery) -> None:
        summary = self.summary
        summary.status, summary.faces, summary.labels = totals.status, totals.faces, totals.labels
        summary.frames_read, summary.frames_skipped = totals.frames_read, totals.frames_skipped
        summary.frames_failed, summary.video_s = totals.frames_failed, totals.video_s
        summary.total_s = time.monotonic() - self.started
        described = {
            "tool": f"maskbatch {maskbatch.__version__}",
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()},
            "roots": dict(discovery.roots),
            "settings": self.config.row_settings(),
            "execution": dataclasses.asdict(self.config.execution),
            "summary": summary.as_dict(),
        }
        store.write(self.out.run, json.dumps(described, indent=1, default=os.fspath).encode())

    # --- small things

    def _note(self, text: str) -> None:
        self.summary.notes.append(text)
        self.reporter.note(text)


def _same_file(path: Path, other: str) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _with_workers(config: ScanConfig, device: Device) -> ScanConfig:
    """The settings that are 0 for "what suits the device", filled in."""
    execution = config.execution
    workers = execution.workers
    if not workers and execution.executor != "ray":  # which counts the cluster's
        workers = os.cpu_count() or 1 if device.name == "cpu" else 1
    threads = execution.decode_threads or device.decode_threads
    prefetch_mb = execution.prefetch_mb or device.prefetch_mb
    return dataclasses.replace(
        config,
        execution=dataclasses.replace(execution, workers=workers, decode_threads=threads, prefetch_mb=prefetch_mb),
    )


def _tracker() -> Any:
    from maskbatch.results.tracks import track_video

    return track_video
