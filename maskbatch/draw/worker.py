"""Drawing as a job: a worker that turns units of sources, with their rows of the result, into annotated files and crops.

It runs on the same executors as the scan, so that a decoder that crashes or hangs while drawing costs its own input, and what was drawn
before a kill is not drawn again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from maskbatch.config import ScanConfig
from maskbatch.draw.crop_writer import write_crops
from maskbatch.draw.faces import Style
from maskbatch.draw.images import COLUMNS, annotate_image
from maskbatch.draw.search import MIN_SCORE, TwoScales, search_faces
from maskbatch.draw.videos import annotate_video
from maskbatch.runtime.opencv import OneOpenCVThread
from maskbatch.storage.opener import is_url, open_binary
from maskbatch.tasks import Task
from maskbatch.types import Piece, PieceResult, ProgressCallback, UnitRows, WorkUnit, as_problem

if TYPE_CHECKING:
    from maskbatch.detect.base import Detector
    from maskbatch.runtime import Device


@dataclass(frozen=True, slots=True)
class DrawPiece(Piece):
    """One source to draw, whole, and where its rows are in the result.

    Attributes:
        first_row: index of its first row.
        rows: how many it has.
        drawn_as: the name that its outputs have, where it is not the source's own.
    """

    first_row: int = 0
    rows: int = 0
    drawn_as: str = ""


@dataclass(frozen=True, slots=True)
class DrawWorkerSpec:
    """What a worker process needs to draw.

    Attributes:
        config: what to draw, and how videos are read.
        task: how labels look.
        results: path or URL of the rows, in one file in the order of the sources.
        devices: on which videos that are redacted are searched; the CPU where there is none.
    """

    config: ScanConfig
    task: Task
    results: str
    devices: tuple[Device, ...] = ()

    @property
    def gpus(self) -> int:
        """See `WorkerSpec.gpus`; none where nothing is inferred."""
        return len(self.devices) if self.devices and self.devices[0].is_gpu else 0

    @property
    def folders(self) -> tuple[str, ...]:
        """Where annotated files and crops go."""
        outputs = self.config.outputs
        return tuple(os.fspath(folder) for folder in (outputs.annotate, outputs.crops) if folder is not None)

    def for_worker(self, number: int) -> DrawWorkerSpec:
        """See `ScanWorkerSpec.for_worker`."""
        return replace(self, devices=(self.devices[number % len(self.devices)],)) if self.devices else self

    def open(self) -> DrawWorker:
        """Open the rows; raises OSError or InputError where they cannot be read."""
        return DrawWorker(self)


class DrawWorker:
    """Draws units of `DrawPiece`. Not thread-safe; one per process."""

    def __init__(self, spec: DrawWorkerSpec) -> None:
        self._config = spec.config
        outputs = spec.config.outputs
        self._style = Style(
            boxes=outputs.boxes,
            redact=bool(outputs.redact),
            part=outputs.redact_part,
            mute=outputs.mute,
            task=spec.task,
        )
        self._devices = spec.devices
        self._detector: Detector | None = None
        self._rows = RowFile(spec.results)
        self._threads = OneOpenCVThread()

    def run(self, unit: WorkUnit, report: ProgressCallback) -> UnitRows:
        """Draw one unit; what could not be drawn is in the results, and is not a row of any table."""
        started = time.monotonic()
        clock = time.thread_time()
        results = []
        for index, piece in enumerate(unit.pieces):
            report("begin", index)
            result = PieceResult(piece.source.name, piece.source.fingerprint)
            try:
                assert isinstance(piece, DrawPiece)
                self._draw(piece, lambda at=index: report("tick", at))  # type: ignore[misc]
            except Exception as error:
                result.note(as_problem(error, "drawing"))
            report("end", index)
            results.append(result)
        stages = {"draw": time.thread_time() - clock}
        return UnitRows(part=b"", rows=0, results=tuple(results), stages=stages, started=started)

    def close(self) -> None:
        """See `Worker.close`."""
        self._threads.close()
        self._rows.close()

    def _draw(self, piece: DrawPiece, tick: Callable[[], None]) -> None:
        source, config = piece.source, self._config
        rows = self._rows.read(piece.first_row, piece.rows)
        outputs, limits, style = config.outputs, config.limits, self._style
        sampling, drawn_as = config.sampling, piece.drawn_as
        cover = None
        if style.redact and source.media == "video" and (outputs.annotate is not None or len(rows)):
            cover = search_faces(
                source,
                self._searcher(),
                rows,
                sampling,
                limits,
                outputs.redact_every_s,
                tick,
                landmarks=style.part == "eyes",
            )
        if outputs.annotate is not None:
            if source.media == "image":
                annotate_image(source, rows, outputs.annotate, style, limits, drawn_as)
            else:
                annotate_video(source, rows, outputs.annotate, sampling, style, limits, tick, drawn_as, cover)
        if outputs.crops is not None and len(rows):
            write_crops(source, rows, outputs.crops, style, sampling, limits, tick, drawn_as, cover)

    def _searcher(self) -> Detector:
        """The detector, loaded when the first video is to be redacted."""
        if self._detector is None:
            # Most drawing needs no model, and its workers start faster without ONNX Runtime.
            from maskbatch.detect import make_detector
            from maskbatch.runtime import resolve_device

            config = self._config
            device = self._devices[0] if self._devices else resolve_device("cpu")
            models = replace(config.models, min_score=min(MIN_SCORE, config.models.min_score))
            # One look: what a second one would drop is rather blurred once too often.
            small: Detector = make_detector(models, device, config.execution.batch_size).with_one_look()
            size = config.outputs.redact_size
            if size > models.det_size:
                large = make_detector(
                    replace(models, det_size=size), device, config.execution.batch_size
                ).with_one_look()
                small = TwoScales(small, large)
            self._detector = small
        return self._detector


class RowFile:
    """Rows of a result by their index. The row group that was read last is kept: neighbours are mostly drawn together.

    Args:
        path: of a Parquet file, local or a URL.
    """

    def __init__(self, path: str) -> None:
        self._stack = contextlib.ExitStack()
        raw: IO[bytes] = open_binary(path) if is_url(path) else Path(path).open("rb")  # noqa: SIM115  closed by `close`
        self._file = self._stack.enter_context(pq.ParquetFile(self._stack.enter_context(raw)))
        self._columns = [name for name in COLUMNS if name in self._file.schema_arrow.names]
        counts = [self._file.metadata.row_group(i).num_rows for i in range(self._file.metadata.num_row_groups)]
        self._starts = [sum(counts[:i]) for i in range(len(counts) + 1)]
        self._group: tuple[int, pa.Table] | None = None

    def read(self, first: int, count: int) -> pa.Table:
        """`count` rows from `first` on, with the columns that drawing needs."""
        parts = [self._file.schema_arrow.empty_table().select(self._columns)]
        for group, start in enumerate(self._starts[:-1]):
            low, high = max(first, start), min(first + count, self._starts[group + 1])
            if low < high:
                parts.append(self._read_group(group).slice(low - start, high - low))
        return pa.concat_tables(parts[1:] or parts)

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def _read_group(self, group: int) -> pa.Table:
        if self._group is None or self._group[0] != group:
            self._group = (group, self._file.read_row_group(group, columns=self._columns))
        return self._group[1]
