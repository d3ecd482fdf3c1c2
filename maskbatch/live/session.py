"""One connection of one camera, from its first frame to its last: an input of the result, with rows that come minute by minute."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskbatch.live.inference import Looked
from maskbatch.live.people import People
from maskbatch.pipeline.rows import RowBuffer
from maskbatch.results.columns import numbers
from maskbatch.results.merge import Merged, result_rows
from maskbatch.sources.live.reader import Counts
from maskbatch.tasks import Task
from maskbatch.types import PieceResult, Problem, Source

FINGERPRINT = "live"


def source_name(camera: str, at: float, taken: set[str]) -> str:
    """``gate/20261127T140503Z``: a name that says camera and time, as file names do; each is given once."""
    return unique_name(f"{camera}/{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(at))}", taken)


def unique_name(stem: str, taken: set[str]) -> str:
    """The name itself the first time, then with ``~2``, ``~3`` …; `taken` grows."""
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}~{number}"
    taken.add(name)
    return name


@dataclass(slots=True)
class Session:
    """A connection.

    Attributes:
        name: the column ``source``.
        number: of the camera's connections in this watch.
        began: POSIX seconds of its first frame.
        counts: of its reader, as last heard.
        ended: why it ended; None while it lasts.
        fingerprint: of the recording that is read.
        problem: what is wrong with it.
        trouble: what was wrong with the first of its frames that could not be converted, or not in full size.
    """

    name: str
    camera: str
    number: int
    began: float
    task: Task
    people: People | None = None
    counts: Counts = field(default_factory=Counts)
    ended: str | None = None
    fingerprint: str = FINGERPRINT
    problem: Problem | None = None
    trouble: Problem | None = None
    looked: int = 0
    unconverted: int = 0
    faces: int = 0
    detect_s: float = 0.0
    classify_s: float = 0.0
    _rows: RowBuffer | None = None
    _added: int = 0
    _tracks: list[int] = field(default_factory=list)
    _at: list[int] = field(default_factory=list)

    def add(self, looked: Looked, *, keep_rows: bool) -> list[int]:
        """Take in a frame that was looked at; the track of each face, empty where nobody is followed."""
        sample = looked.sample
        self.trouble = self.trouble or looked.problem
        if sample is None:
            self.unconverted += 1
            return []
        self.looked += 1
        count = len(looked.found)
        self.faces += count
        self.detect_s += looked.detect_s
        self.classify_s += looked.classify_s
        at = round(sample.at * 1e6)
        tracks: list[int] = []
        if self.people is not None:
            found = looked.found
            tracks = self.people.see(
                sample.frame, at, found.boxes, found.scores, looked.probabilities, looked.sharpness
            )
        if count and keep_rows:
            if self._rows is None:
                self._rows = RowBuffer(self.task)
            self._rows.add(sample.frame, looked.found, looked.crops)
            self._rows.add_probabilities(looked.probabilities)
            self._added += count
            self._tracks.extend(tracks or [-1] * count)
            self._at.extend([at] * count)
        return tracks

    def rows(self, *, tracked: bool) -> pa.Table | None:
        """The rows since the last call, of the contract's schema; None for none."""
        if self._rows is None:
            return None
        part, _ = self._rows.to_parquet([self._added])
        table = pq.ParquetFile(pa.BufferReader(part)).read()
        source = Source("", self.name, "video", camera=self.camera, start_time=self.began)
        followed = np.array(self._tracks, np.int64)
        track = numbers(followed, pa.int64(), followed < 0) if tracked else None
        rows = result_rows([Merged(source, self.result(), table)], [track], self.task)
        # When a frame came is what the clock of this machine said then, whatever became of the stream's own clock since.
        index = rows.schema.get_field_index("captured_at")
        at = numbers(np.array(self._at, np.int64), pa.int64()).cast(pa.timestamp("us", tz="UTC"))
        rows = rows.set_column(index, rows.schema.field(index), at)
        self._rows, self._added, self._tracks, self._at = None, 0, [], []
        return rows

    def result(self) -> PieceResult:
        """Its row of the inputs table so far."""
        counts = self.counts
        result = PieceResult(
            self.name,
            self.fingerprint,
            width=counts.width or None,
            height=counts.height or None,
            frames_read=self.looked,
            frames_failed=counts.failed + self.unconverted,
            frames_skipped=max(0, counts.frames - self.looked - self.unconverted),
            faces=self.faces,
            duration_s=round(max(counts.seconds, counts.last - counts.began), 3) if counts.frames else 0.0,
            started_at=self.began,
            detect_s=self.detect_s,
            classify_s=self.classify_s,
        )
        if counts.failed or self.unconverted:
            result.note(Problem("partial", "corrupt", "some frames could not be decoded"))
        if self.trouble is not None:
            result.note(self.trouble)
        if counts.dropped:
            result.note(Problem("ok", None, f"{counts.dropped} samples were dropped, since the models were busy"))
        if counts.repairs:
            result.note(Problem("ok", None, f"the stream's clock was wrong {counts.repairs} times and was bridged"))
        if counts.sizes:
            result.note(Problem("ok", None, f"the size of the frames changed {counts.sizes} times"))
        if self.problem is not None:
            result.note(self.problem)
        if self.ended:
            result.note(Problem("ok", None, f"ended: {self.ended}"))
        return result


def gap(name: str, began: float, until: float, reason: str) -> PieceResult:
    """A row of the inputs table that says when a camera was not seen."""
    result = PieceResult(f"{name}.gap", FINGERPRINT, started_at=began, duration_s=round(max(0.0, until - began), 3))
    result.note(Problem("error", "gap", f"not seen for {max(0.0, until - began):.1f} s: {reason}"))
    return result


def with_counts(session: Session, counts: Counts) -> None:
    """Take over what the reader counted, if it is of this connection."""
    if counts.session == session.number:
        session.counts = replace(counts)
