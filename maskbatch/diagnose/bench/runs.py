"""A whole scan in a process of its own, watched from outside: time, memory of parent and workers, CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskbatch.errors import EXIT_OK, EXIT_SOME_FAILED, WorkerError

WATCH_S = 0.05
COMMAND = (sys.executable, "-c", "from maskbatch.cli import main; main()")


@dataclass(slots=True)
class ScanRun:
    """One scan.

    Attributes:
        summary: what `maskbatch scan --json` printed.
        whole_s: from starting the command to its end, with Python's start, finding inputs and merging.
        cpu_s: of all its processes.
        parent_mb: largest resident memory of the command's own process.
        worker_mb: largest resident memory of any of its workers.
        first_s: from starting the command until the first unit was final; None where nothing was done.
    """

    summary: dict[str, Any]
    whole_s: float
    cpu_s: float
    parent_mb: float
    worker_mb: float
    first_s: float | None = None

    @property
    def frames(self) -> int:
        return int(self.summary["frames_read"])

    @property
    def frames_per_s(self) -> float:
        """Over the scan itself: from the first unit handed out to the last receipt, loading of the models included."""
        return self.frames / max(1e-9, float(self.summary["wall_s"]))


@dataclass(slots=True)
class _Watched:
    worker_mb: dict[int, float] = field(default_factory=dict)
    parent_mb: float = 0.0
    first_s: float | None = None


def run_scan(paths: Sequence[Path | str], options: Sequence[str] = ()) -> ScanRun:
    """Scan into a folder that is removed afterwards.

    Raises:
        WorkerError: the scan ended with an error; carries its message.
    """
    with tempfile.TemporaryDirectory(prefix="maskbatch-bench-") as folder:
        out, log = Path(folder, "results.parquet"), Path(folder, "stderr")
        command = [*COMMAND, "scan", *map(str, paths), "--out", str(out), "--json", "--progress", "none", *options]
        before = os.times()
        started = time.perf_counter()
        watched = _Watched()
        with log.open("wb") as errors, tempfile.TemporaryFile() as answer:
            with subprocess.Popen(command, stdout=answer, stderr=errors) as process:
                while process.poll() is None:
                    _watch(process.pid, out, watched, started)
                    time.sleep(WATCH_S)
            whole_s = time.perf_counter() - started
            after = os.times()
            if process.returncode not in (EXIT_OK, EXIT_SOME_FAILED):
                raise WorkerError(f"the scan failed: {log.read_text(errors='replace').strip()}")
            answer.seek(0)
            summary = json.load(answer)
    cpu_s = after.children_user - before.children_user + after.children_system - before.children_system
    worker_mb = max(watched.worker_mb.values(), default=0.0)
    return ScanRun(summary, whole_s, cpu_s, watched.parent_mb, worker_mb, watched.first_s)


def _watch(pid: int, out: Path, watched: _Watched, started: float) -> None:
    watched.parent_mb = max(watched.parent_mb, _peak_mb(pid))
    for child in _children(pid):
        watched.worker_mb[child] = max(watched.worker_mb.get(child, 0.0), _peak_mb(child))
    if watched.first_s is None:
        receipts = out.with_suffix(".work") / "receipts"
        if receipts.is_dir() and any(entry.suffix == ".json" for entry in receipts.iterdir()):
            watched.first_s = time.perf_counter() - started


def _children(pid: int) -> Iterator[int]:
    for task in _names(f"/proc/{pid}/task"):
        try:
            listed = Path(f"/proc/{pid}/task/{task}/children").read_text()
        except OSError:
            continue
        yield from map(int, listed.split())


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  (only the names are wanted)
    except OSError:
        return []


def _peak_mb(pid: int) -> float:
    """The process's largest resident memory so far; 0 once it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0
