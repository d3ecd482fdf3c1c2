"""What a work folder says of its run: done, failed, left."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskbatch.errors import InputNotFoundError
from maskbatch.jobs.completed import is_complete
from maskbatch.jobs.ledger import Ledger
from maskbatch.jobs.snapshot import read_snapshot
from maskbatch.results.paths import ENDING, OutputPaths
from maskbatch.storage import open_store

SHOWN_FAILURES = 20


@dataclass(slots=True)
class WorkStatus:
    """The state of a run.

    Attributes:
        work: its work folder.
        inputs: inputs that the last discovery found; None where the run ended before it had found them.
        done: inputs of which every part is done, whatever their status.
        begun: videos of which some parts are done.
        failures: name, error and message of each input (or part of a video) that failed, at most `SHOWN_FAILURES`.
        running: who is working on it now, or None.
        merged: the result has been written from what is done.
    """

    work: str
    inputs: int | None = None
    done: int = 0
    begun: int = 0
    left: int | None = None
    faces: int = 0
    partial: int = 0
    failed: int = 0
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    running: str | None = None
    merged: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return dataclasses.asdict(self)

    def lines(self) -> Iterator[str]:
        """For a person."""
        state = (
            f"running ({self.running})" if self.running else "complete" if self.merged and not self.left else "stopped"
        )
        yield f"{self.work}: {state}"
        total = "" if self.inputs is None else f" of {self.inputs}"
        left = "" if self.left is None else f", {self.left} left"
        yield f"{self.done}{total} inputs done{left}" + (f"; {self.begun} videos begun" if self.begun else "")
        yield f"{self.faces} faces; {self.partial} partial, {self.failed} failed"
        for name, error, message in self.failures:
            yield f"  {name}: {error}: {message}"
        if self.failed > len(self.failures):
            yield f"  … and {self.failed - len(self.failures)} more"


def read_status(path: str) -> WorkStatus:
    """The status of the run with this result or work folder; raises InputNotFoundError where there is none."""
    work = OutputPaths.of(path).path(OutputPaths.of(path).work) if path.endswith((ENDING, "/")) else path
    if path.endswith("/") and open_store(work).size("key.json") is None:
        work = path.rstrip("/")  # a work folder, in place of a partitioned result
    nothing = f"{work}: no work of a scan here; name its result (results.parquet) or its work folder (results.work)"
    if Path(work).is_file():
        raise InputNotFoundError(nothing)
    store = open_store(work)
    try:
        key = Ledger(store).key()
    except FileNotFoundError:
        raise InputNotFoundError(nothing) from None
    status = WorkStatus(work)
    snapshot = read_snapshot(store)
    for (name, fingerprint), pieces in Ledger(store, key).done().items():
        if snapshot is not None and not snapshot.holds(name, fingerprint):
            continue  # removed or changed since
        complete = is_complete(pieces)
        status.done += complete
        status.begun += not complete
        for piece in pieces.values():
            result = piece.result
            status.faces += result.faces
            status.partial += result.status == "partial"
            if result.status == "error":
                status.failed += 1
                if len(status.failures) < SHOWN_FAILURES:
                    status.failures.append((name, result.error or "", result.message))
    if snapshot is not None:
        status.inputs, status.merged = snapshot.inputs, snapshot.merged
        status.done += snapshot.unreadable
        status.failed += snapshot.unreadable
        status.left = snapshot.inputs - status.done
    status.running = store.holder("lock")
    return status
