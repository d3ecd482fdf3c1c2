"""Parts become the result: one pass over the sources in their order, with a bounded number of rows in memory.

The bytes of `results.parquet` are a function of the rows and the metadata alone: row groups have a fixed number of rows, and nothing that
depends on time, on the cut into units or on the number of workers is written to it.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskbatch.jobs.completed import CompletedPiece, PiecesBySource, SourceKey
from maskbatch.jobs.ledger import DamagedPartError, Ledger
from maskbatch.results.columns import numbers, strings, to_numpy
from maskbatch.results.schema import DUPLICATE_COLUMNS, SCHEMA_VERSION, inputs_schema, part_schema, results_schema
from maskbatch.sources.file_names import in_future
from maskbatch.tasks import MASK, Task
from maskbatch.types import PieceResult, Problem, Source

ROW_GROUP = 65_536
INPUT_ROW_GROUP = 16_384
CACHED_PARTS = 16
MESSAGE_KINDS = 1000

Tracker = Callable[[pa.Table], pa.Array]


@dataclass(slots=True)
class Totals:
    """What the merge counted."""

    inputs: int = 0
    status: dict[str, int] = field(default_factory=lambda: {"ok": 0, "partial": 0, "error": 0})
    faces: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    frames_read: int = 0
    frames_skipped: int = 0
    frames_failed: int = 0
    video_s: float = 0.0
    messages: Counter[str] = field(default_factory=Counter)
    """Inputs by what is said of them; of messages that differ in their numbers only, the first stands for all."""


class PartCache:
    """Reads parts of a work folder; keeps the last few, since neighbours in the result are mostly neighbours in a part."""

    def __init__(self, ledger: Ledger, task: Task = MASK) -> None:
        self._ledger = ledger
        self.empty = pa.Table.from_batches([], schema=part_schema(task))
        self._tables: OrderedDict[str, pa.Table] = OrderedDict()

    def rows(self, piece: CompletedPiece) -> pa.Table:
        """The rows of one piece; raises DamagedPartError where the part is not what was written."""
        if not piece.result.faces:
            return self.empty
        table = self._tables.get(piece.unit)
        if table is None:
            table = pq.ParquetFile(io.BytesIO(self._ledger.part(piece.unit))).read()
            self._tables[piece.unit] = table
            if len(self._tables) > CACHED_PARTS:
                self._tables.popitem(last=False)
        self._tables.move_to_end(piece.unit)
        rows = table.slice(piece.offset, piece.result.faces)
        if len(rows) != piece.result.faces:
            raise DamagedPartError(piece.unit)
        return rows


def combine(source: Source, pieces: list[PieceResult]) -> PieceResult:
    """The row of the inputs table for a source, from the results of its pieces in order."""
    total = PieceResult(source.name, source.fingerprint)
    if source.problem is not None:
        total.note(source.problem)
        return total
    if not pieces:
        total.note(Problem("error", "internal", "no worker has answered for this input"))
        return total
    parts_with_frames = 0
    for piece in pieces:
        # A part of a video that failed leaves the others: the video is partial, and in error only if nothing of it was read.
        parts_with_frames += piece.frames_read > 0
        total.note(Problem(piece.status, piece.error, piece.message))
        for name in ("frames_read", "frames_failed", "frames_skipped", "faces", "decode_s", "detect_s", "classify_s"):
            setattr(total, name, getattr(total, name) + getattr(piece, name))
        total.width, total.height = total.width or piece.width, total.height or piece.height
        total.duration_s = max(filter(None, (total.duration_s, piece.duration_s)), default=None)
        total.started_at = piece.started_at if total.started_at is None else total.started_at
        total.taken_at = total.taken_at or piece.taken_at
        total.sha256 = total.sha256 or piece.sha256
        total.dhash = total.dhash or piece.dhash
    if len(pieces) < pieces[0].parts:
        missing = pieces[0].parts - len(pieces)
        total.note(Problem("error", "internal", f"no worker has answered for {missing} of its {pieces[0].parts} parts"))
    if total.status == "error" and parts_with_frames and source.media == "video":
        total.status = "partial"
    return total


@dataclass(frozen=True, slots=True)
class Merged:
    """One source with its row of the inputs table and its faces (part schema, with `track` where tracking is on).

    Attributes:
        duplicate_of: the input with the same bytes whose rows these are.
        near_duplicate_of: an earlier image that looks the same; the rows are this one's own.
    """

    source: Source
    result: PieceResult
    rows: pa.Table
    duplicate_of: str | None = None
    near_duplicate_of: str | None = None


def ends_in_future(item: Merged) -> Problem | None:
    """What to say of an input whose last face would be after today; such a start or such a duration cannot be right."""
    start = item.result.started_at if item.source.start_time is None else item.source.start_time
    if start is None or item.result.status == "error":
        return None
    end = start + (item.result.duration_s or 0.0)
    if not in_future(end):
        return None
    begins = "it would begin" if in_future(start) else "it would go on until"
    try:
        when = f"{dt.datetime.fromtimestamp(start if in_future(start) else end, dt.UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        when = "a year that no calendar has"
    return Problem("partial", "corrupt", f"{begins} {when}, after today; its times cannot be right")


def walk(
    sources: Iterable[Source],
    done: PiecesBySource,
    parts: PartCache,
    twins: Mapping[SourceKey, Source] | None = None,
    look_alike: Callable[[PieceResult], str | None] | None = None,
) -> Iterator[Merged]:
    """Every source in order with what was found in it.

    Args:
        sources: the inputs.
        done: their finished pieces.
        parts: gives the rows.
        twins: inputs that were not worked on, each with the one of the same bytes whose rows it gets.
        look_alike: names an earlier image that looks like this one; called in order, for all that have rows of their own.
    """
    for source in sources:
        twin = twins.get((source.name, source.fingerprint)) if twins else None
        worked_on = twin or source
        found = done.get((worked_on.name, worked_on.fingerprint), {}) if source.problem is None else {}
        pieces = [found[part] for part in sorted(found)]
        result = combine(source, [piece.result for piece in pieces])
        tables = [parts.rows(piece) for piece in pieces if piece.result.faces]
        rows = pa.concat_tables(tables) if tables else parts.empty
        if twin is not None:
            result.decode_s = result.detect_s = result.classify_s = 0.0
            yield Merged(source, result, rows, duplicate_of=twin.name)
        else:
            yield Merged(source, result, rows, near_duplicate_of=look_alike(result) if look_alike else None)


def result_rows(merged: list[Merged], tracks: list[pa.Array | None], task: Task = MASK) -> pa.Table:
    """The rows of several sources in the public schema.

    Args:
        merged: the sources.
        tracks: int64 track of each source's rows, or None where there is no tracking.
        task: whose labels the rows have.
    """
    schema = results_schema(task)
    counts = np.array([len(item.rows) for item in merged])
    rows = pa.concat_tables([item.rows for item in merged]).combine_chunks()
    probabilities = np.column_stack([to_numpy(rows[name]) for name in task.probability_columns])
    best = probabilities.argmax(axis=1)
    columns: dict[str, Any] = {name: rows[name] for name in part_schema(task).names}
    columns["source"] = _repeated([item.source.name for item in merged], counts, schema.field("source").type)
    columns["camera"] = _repeated([item.source.camera for item in merged], counts, schema.field("camera").type)
    columns["media"] = _repeated([item.source.media for item in merged], counts, schema.field("media").type)
    columns["captured_at"] = _captured_at(merged, counts, rows["time_s"])
    columns["label"] = pa.DictionaryArray.from_arrays(numbers(best, pa.int8()), strings(task.labels))
    columns["confidence"] = numbers(probabilities[np.arange(len(best)), best], pa.float32())
    columns["track"] = pa.chunked_array(
        [
            pa.nulls(len(item.rows), pa.int64()) if track is None else track
            for item, track in zip(merged, tracks, strict=True)
        ],
        pa.int64(),
    )
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _repeated(values: list[Any], counts: np.ndarray[Any, Any], kind: pa.DataType) -> pa.DictionaryArray:
    """`values[i]` repeated `counts[i]` times, as a dictionary array; None stays null."""
    distinct = list(dict.fromkeys(value for value in values if value is not None))
    codes = {value: code for code, value in enumerate(distinct)}
    index = np.repeat(np.array([codes.get(value, -1) for value in values], np.int64), counts)
    indices = numbers(index, kind.index_type, index < 0)
    return pa.DictionaryArray.from_arrays(indices, strings(distinct))


def _captured_at(merged: list[Merged], counts: np.ndarray[Any, Any], time_s: pa.ChunkedArray) -> pa.Array:
    starts = [item.result.started_at if item.source.start_time is None else item.source.start_time for item in merged]
    known = np.repeat(np.array([start is not None for start in starts]), counts)
    start_us = np.repeat(np.array([round((start or 0.0) * 1e6) for start in starts], np.int64), counts)
    offset_us = np.round(np.nan_to_num(to_numpy(time_s).astype(np.float64)) * 1e6).astype(np.int64)
    return numbers(start_us + offset_us, pa.int64(), ~known).cast(pa.timestamp("us", tz="UTC"))


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_dictionary(kind):
        return strings(values) if pa.types.is_string(kind) else numbers(values, kind)
    return _encoded(strings(values), kind)


def _encoded(plain: pa.Array, kind: pa.DataType) -> pa.DictionaryArray:
    encoded = plain.dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices.cast(kind.index_type), encoded.dictionary)


class GroupWriter:
    """A Parquet file with row groups of exactly `group` rows, however the rows arrive."""

    def __init__(self, file: IO[bytes], schema: pa.Schema, group: int) -> None:
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")
        self._schema = schema
        self._group = group
        self._held: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Append rows."""
        if len(table):
            self._held.append(table)
            self._rows += len(table)
        while self._rows >= self._group:
            self._flush(self._group)

    def close(self) -> None:
        """Write the rest and the footer."""
        if self._rows:
            self._flush(self._rows)
        self._writer.close()

    def _flush(self, count: int) -> None:
        # Dictionaries are made one and their unused entries dropped, so that the bytes depend on the rows alone.
        table = pa.concat_tables(self._held)
        columns = []
        for column in table.slice(0, count).columns:
            if pa.types.is_dictionary(column.type):
                columns.append(_encoded(column.cast(pa.string()).combine_chunks(), column.type))
            else:
                columns.append(column.combine_chunks())
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=count)
        rest = table.slice(count)
        self._held = [rest] if len(rest) else []
        self._rows = len(rest)


class RowWriter(Protocol):
    """Takes tables of result rows: a file, a data set, or both."""

    def add(self, table: pa.Table) -> None:
        """Append rows."""

    def close(self) -> None:
        """Write what is left."""


def with_run_metadata(schema: pa.Schema, metadata: dict[str, Any]) -> pa.Schema:
    """The schema with the run's metadata (tool, models, settings), as it is written into each file."""
    return schema.with_metadata(
        {"maskbatch": json.dumps({"schema_version": SCHEMA_VERSION, **metadata}, sort_keys=True)}
    )


class ResultWriter:
    """Writes `results.parquet` (or other writers of rows) and `results.inputs.parquet` side by side, source by source."""

    def __init__(
        self,
        results: Sequence[RowWriter],
        inputs: IO[bytes],
        metadata: dict[str, Any],
        task: Task = MASK,
        *,
        duplicates: bool = False,
    ) -> None:
        self._results = results
        self._schema = inputs_schema(duplicates)
        self._inputs = GroupWriter(inputs, with_run_metadata(self._schema, metadata), INPUT_ROW_GROUP)
        self._waiting: list[Merged] = []
        self._waiting_tracks: list[pa.Array | None] = []
        self._waiting_rows = 0
        self._input_rows: list[Merged] = []
        self._task = task
        self.totals = Totals(labels=dict.fromkeys(task.labels, 0))
        self._kinds: dict[str, str] = {}

    def add(self, item: Merged, track: pa.Array | None) -> None:
        """Append one source."""
        self._count(item)
        self._input_rows.append(item)
        if len(self._input_rows) >= 1024:
            self._flush_inputs()
        if len(item.rows):
            self._waiting.append(item)
            self._waiting_tracks.append(track)
            self._waiting_rows += len(item.rows)
        if self._waiting_rows >= ROW_GROUP // 4:
            self._flush_results()

    def close(self) -> None:
        """Write what is left, and both footers."""
        self._flush_results()
        self._flush_inputs()
        for writer in (*self._results, self._inputs):
            writer.close()

    def _flush_results(self) -> None:
        if self._waiting:
            table = result_rows(self._waiting, self._waiting_tracks, self._task)
            for entry in table["label"].cast(pa.string()).value_counts().to_pylist():
                self.totals.labels[entry["values"]] += entry["counts"]
            for writer in self._results:
                writer.add(table)
            self._waiting, self._waiting_tracks, self._waiting_rows = [], [], 0

    def _flush_inputs(self) -> None:
        if not self._input_rows:
            return
        columns: dict[str, list[Any]] = {name: [] for name in self._schema.names}
        for item in self._input_rows:
            columns["source"].append(item.source.name)
            columns["media"].append(item.source.media)
            for name in self._schema.names[2:]:
                value = getattr(item if name in DUPLICATE_COLUMNS else item.result, name)
                columns[name].append(value or None if name == "message" else value)
        arrays = [_column(values, kind.type) for values, kind in zip(columns.values(), self._schema, strict=True)]
        self._inputs.add(pa.Table.from_arrays(arrays, schema=self._schema))
        self._input_rows = []

    def _count(self, item: Merged) -> None:
        totals, result = self.totals, item.result
        totals.inputs += 1
        totals.status[result.status] += 1
        totals.faces += len(item.rows)
        totals.frames_read += result.frames_read
        totals.frames_skipped += result.frames_skipped
        totals.frames_failed += result.frames_failed
        if result.message:
            kind = re.sub(r"\d+(?:\.\d+)?", "0", result.message)
            if kind in self._kinds or len(self._kinds) < MESSAGE_KINDS:
                totals.messages[self._kinds.setdefault(kind, result.message)] += 1
        if item.source.media == "video":
            totals.video_s += result.duration_s or 0.0
