"""What is known of a scan once its inputs are found: every step reads it, none changes it but the summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from maskbatch.config import ScanConfig
from maskbatch.jobs.completed import SourceKey
from maskbatch.jobs.key import RunKey
from maskbatch.jobs.ledger import Ledger
from maskbatch.results.paths import OutputPaths
from maskbatch.runtime import Device
from maskbatch.scanning.progress import Reporter
from maskbatch.scanning.summary import ScanSummary
from maskbatch.storage import Store
from maskbatch.tasks import Task
from maskbatch.types import Source

ROWS_COPY = "rows.parquet"


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """What `scan` was told.

    Attributes:
        paths: files, folders, globs, lists, URLs.
        out: the files of the result.
        config: all settings, as given.
        overwrite: replace an existing result made with other inputs, settings or models.
        restart: forget the finished work of an interrupted run.
        limit: process at most this many inputs.
        dry_run: find the inputs and check models, device and output only.
        follow: enter linked folders.
        sniff: look into files whose extension says nothing.
        since: POSIX seconds; older inputs are left out.
        settings_file: what is recorded of the file that settings came from.
        accept: of what is found, only these are inputs; None = all.
    """

    paths: tuple[str, ...]
    out: OutputPaths
    config: ScanConfig
    overwrite: bool = False
    restart: bool = False
    limit: int | None = None
    dry_run: bool = False
    follow: bool = False
    sniff: bool = False
    since: float | None = None
    settings_file: Mapping[str, Any] | None = None
    accept: Callable[[Source], bool] | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One scan.

    Attributes:
        request: what was asked for.
        config: the settings with what was ``auto`` filled in.
        devices: on which the models run; several are GPUs, a worker each.
        task: what the classifier judges.
        sources: the inputs, in the order of the result.
        roots: name of each root → its absolute path or URL.
        key: what the finished work belongs to.
        store: where the result goes.
        work: the work folder, with a `ledger` of what is done.
        reporter: shows the progress.
        summary: grows with every step.
        twins: inputs that are not worked on, each with the one of the same bytes whose rows it gets.
    """

    request: ScanRequest
    config: ScanConfig
    devices: tuple[Device, ...]
    task: Task
    sources: list[Source]
    roots: dict[str, str]
    key: RunKey
    store: Store
    work: Store
    ledger: Ledger
    reporter: Reporter
    summary: ScanSummary = field(default_factory=ScanSummary)
    twins: dict[SourceKey, Source] = field(default_factory=dict)

    @property
    def own_sources(self) -> list[Source]:
        """The inputs that have rows of their own: all but exact duplicates."""
        if not self.twins:
            return self.sources
        return [source for source in self.sources if (source.name, source.fingerprint) not in self.twins]

    @property
    def out(self) -> OutputPaths:
        """The files of the result."""
        return self.request.out

    @property
    def rows_path(self) -> str:
        """Where all rows lie in one file, in the order of the sources: the result itself, or a copy of a data set."""
        store, name = (self.work, ROWS_COPY) if self.out.dataset else (self.store, self.out.results)
        return f"{store.url.rstrip('/')}/{name}"

    @property
    def needs_rows_copy(self) -> bool:
        """Drawing and tracks read the rows once more, in the order of the sources; a data set has another."""
        return self.out.dataset and (self.config.outputs.draws or self.config.outputs.track)

    def note(self, text: str) -> None:
        """Tell the user something, now and in the summary."""
        self.summary.notes.append(text)
        self.reporter.note(text)
