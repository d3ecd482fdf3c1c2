"""First step: find the inputs, resolve what is ``auto``, and refuse what would do harm, before anything is written."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

from maskbatch.config import ScanConfig
from maskbatch.draw.paths import check_output_folder
from maskbatch.errors import OutputExistsError, UsageError
from maskbatch.jobs.key import RunKey
from maskbatch.jobs.ledger import Ledger
from maskbatch.pipeline.models import model_identity, pin_models, task_of_models
from maskbatch.results.dataset import Dataset
from maskbatch.runtime import Device, list_devices, usable_cpus
from maskbatch.scanning.context import Run, ScanRequest
from maskbatch.scanning.progress import Reporter
from maskbatch.scanning.summary import ScanSummary
from maskbatch.sources.capture_metadata import CaptureMetadataRules
from maskbatch.sources.discovery.discover import discover
from maskbatch.sources.since import is_since, iso_time
from maskbatch.sources.videos.streams import streams_of
from maskbatch.storage import open_store


def find_inputs(request: ScanRequest, reporter: Reporter) -> Run:
    """The scan with everything that is known before it begins.

    Raises:
        UsageError, ModelError, DeviceError: what was asked for cannot be had, or would overwrite something.
    """
    devices = list_devices(request.config.execution.device)
    config = dataclasses.replace(
        resolve_auto(request.config, devices), models=pin_models(request.config.models, devices[0])
    )
    summary = ScanSummary(
        device=devices[0].name,
        provider=devices[0].provider,
        workers=config.execution.workers,
        models=model_identity(config.models, devices[0]),
    )
    rules = CaptureMetadataRules(config.capture)
    reporter.phase("discover")
    outputs = config.outputs
    ours = [folder for folder in (outputs.annotate, outputs.crops) if folder is not None]
    limit = request.limit if request.since is None else None  # else the oldest could use it up
    found = discover(request.paths, limit=limit, exclude=ours, follow=request.follow, sniff_all=request.sniff)
    for option, folder in (("--annotate", outputs.annotate), ("--crops", outputs.crops)):
        if folder is not None:
            check_output_folder(folder, found.roots.values(), option)
    accept = request.accept or (lambda _source: True)
    sources = [rules.apply(source) for source in found.sources if accept(source)]
    named_in_vain = rules.unused()
    if request.since is not None:
        newer = [source for source in sources if is_since(source, request.since)]
        summary.older = len(sources) - len(newer)
        rules = CaptureMetadataRules(config.capture)  # so that it counts those that stay
        sources = [rules.apply(source) for source in newer[: request.limit]]
    files = len(sources)
    sources = [
        stream for source in sources for stream in streams_of(source, config.sampling.video_stream, config.limits)
    ]
    summary.inputs = len(sources)
    summary.ignored = found.ignored
    summary.ignored_by_extension = dict(found.ignored_by_extension.most_common())
    summary.clocks, summary.cameras = dict(rules.clocks), dict(rules.cameras)
    summary.media = dict(Counter(source.media for source in sources))
    out = request.out
    store, work = open_store(out.folder), open_store(out.path(out.work))
    key = RunKey(
        roots=dict(found.roots),
        settings=config.row_settings(),
        models=summary.models,
        provider=devices[0].provider,
        unit_seconds=config.execution.unit_seconds,
        hash=outputs.hash,
        duplicates=outputs.skip_duplicates,
    )
    run = Run(
        request=request,
        config=config,
        devices=devices,
        task=task_of_models(config.models, devices[0]),
        sources=sources,
        roots=dict(found.roots),
        key=key,
        store=store,
        work=work,
        ledger=Ledger(work),
        reporter=reporter,
        summary=summary,
    )
    if config.capture.time_pattern and rules.matched < files:
        which = "none" if not rules.matched else f"{rules.matched:,}"
        run.note(f"--time-pattern matched {which} of {files:,} names; the others were read by the built-in formats")
    if named_in_vain:
        run.note(f"the manifest names {len(named_in_vain)} paths that are not inputs, {named_in_vain[0]} among them")
    if summary.older and request.since is not None:
        what = "1 input" if summary.older == 1 else f"{summary.older:,} inputs"
        run.note(f"--since leaves out {what} from before {iso_time(request.since)}")
    _refuse_to_overwrite(run)
    _refuse_to_overwrite_inputs(run)
    return run


def resolve_auto(config: ScanConfig, devices: tuple[Device, ...]) -> ScanConfig:
    """The settings that are 0 for "auto", filled in."""
    execution, device = config.execution, devices[0]
    workers = execution.workers
    if not workers and execution.executor != "ray":  # which counts the cluster's
        workers = len(devices) if device.is_gpu else usable_cpus()
    threads = execution.decode_threads or device.decode_threads
    prefetch_mb = execution.prefetch_mb or device.prefetch_mb
    return dataclasses.replace(
        config,
        execution=dataclasses.replace(execution, workers=workers, decode_threads=threads, prefetch_mb=prefetch_mb),
    )


def _refuse_to_overwrite(run: Run) -> None:
    """A result stays unless it is this very scan's own (then it is brought up to date) or --overwrite was given."""
    out, store = run.out, run.store
    if out.dataset:
        dataset = Dataset(store, out.results)
        dataset.check()
        exists = dataset.exists()
    else:
        exists = store.size(out.results) is not None
    if run.request.overwrite or not (exists or store.size(out.run) is not None):
        return
    if not run.ledger.belongs_to(run.key):
        raise OutputExistsError(
            f"{out.path(out.results)} exists and was made with other inputs, settings or models; "
            "use --overwrite to replace it, or another --out"
        )


def _refuse_to_overwrite_inputs(run: Run) -> None:
    """No output may take the place of an input, whatever the two are called."""
    for name in run.out.files:
        path = run.store.local_path(name)
        if path is None:
            return
        try:
            found = path.stat()
        except OSError:
            continue
        for source in run.sources:
            if source.size == found.st_size and "://" not in source.path and _is_same_file(path, source.path):
                raise UsageError(f"--out would overwrite the input {source.path}; name another file")


def _is_same_file(path: Path, other: str) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False
