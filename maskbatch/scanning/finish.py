"""Last step: say what was done, in ``results.run.json``."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time

import maskbatch
from maskbatch.pipeline.models import variant_choices
from maskbatch.results.merge import Totals
from maskbatch.runtime import usable_cpus
from maskbatch.scanning.context import ROWS_COPY, Run
from maskbatch.sources.since import iso_time


def finish(run: Run, totals: Totals, started: float) -> None:
    """Complete the summary and write it.

    Args:
        run: the scan.
        totals: what the merge counted.
        started: `time.monotonic` at its beginning.
    """
    summary = run.summary
    for name in ("status", "faces", "labels", "frames_read", "frames_skipped", "frames_failed", "video_s"):
        setattr(summary, name, getattr(totals, name))
    summary.messages = dict(totals.messages.most_common())
    summary.total_s = time.monotonic() - started
    machine = {
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "usable_cpus": usable_cpus(),
        "python": platform.python_version(),
    }
    described = {
        "tool": f"maskbatch {maskbatch.__version__}",
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine,
        "roots": run.roots,
        "labels": list(run.task.labels),
        "settings": run.config.row_settings(),
        "execution": dataclasses.asdict(run.config.execution),
        "settings_file": run.request.settings_file,
        "since": None if run.request.since is None else iso_time(run.request.since),
        "variants": [
            dataclasses.asdict(choice) for choice in variant_choices(run.request.config.models, run.devices[0])
        ],
        "summary": summary.as_dict(),
    }
    run.store.write(run.out.run, json.dumps(described, indent=1, default=os.fspath).encode())
    if run.needs_rows_copy:
        run.work.remove(ROWS_COPY)
