"""What a running scan tells whoever shows it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal, Protocol

from maskbatch.types import Receipt


@dataclass(slots=True)
class Progress:
    """The state of a running scan, or of its drawing. `pieces` are images and parts of videos; `moved` counts signs of life, which
    in drawing are frames."""

    inputs: int = 0
    pieces: int = 0
    pieces_done: int = 0
    resumed: int = 0
    bytes: int = 0
    bytes_done: int = 0
    frames: int = 0
    faces: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    partial: int = 0
    errors: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    first_result_s: float | None = None
    counts: Literal["faces", "drawn"] = "faces"
    moved: int = 0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        """By the bytes that are left, since a video is more work than an image; None before the first unit is done."""
        if not self.bytes_done or not self.bytes:
            return None
        return self.elapsed_s * max(0, self.bytes - self.bytes_done) / self.bytes_done

    def count(self, receipt: Receipt, size: int) -> None:
        """Add a finished unit whose inputs make up `size` bytes."""
        if self.first_result_s is None:
            self.first_result_s = self.elapsed_s
        self.pieces_done += len(receipt.results)
        self.bytes_done += size
        self.faces += receipt.rows
        self.frames += sum(result.frames_read for result in receipt.results)
        self.partial += sum(result.status == "partial" for result in receipt.results)
        self.errors += sum(result.status == "error" for result in receipt.results)
        for label, count in receipt.labels.items():
            self.labels[label] = self.labels.get(label, 0) + count
        for stage, seconds in receipt.stages.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + seconds


class Reporter(Protocol):
    """Shows a scan's progress. All methods are called from the thread that scans."""

    def phase(self, name: str) -> None:
        """A new phase begins: ``discover, scan, merge, annotate``."""

    def progress(self, state: Progress) -> None:
        """Something was finished."""

    def note(self, text: str) -> None:
        """A sentence that the user should see (a worker was replaced, a stale lock taken over …)."""

    def close(self) -> None:
        """The scan has ended, well or not."""


class SilentReporter:
    """Shows nothing."""

    def phase(self, name: str) -> None:
        """See `Reporter`."""

    def progress(self, state: Progress) -> None:
        """See `Reporter`."""

    def note(self, text: str) -> None:
        """See `Reporter`."""

    def close(self) -> None:
        """See `Reporter`."""
