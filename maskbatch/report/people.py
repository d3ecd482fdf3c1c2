"""Who is counted: people where the scan followed them, sightings where it did not; as plain arrays, in cells of a camera and an hour."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from maskbatch.errors import UsageError
from maskbatch.results.reader import ResultReader
from maskbatch.results.summary import people_table
from maskbatch.tasks import Task

Array = npt.NDArray[Any]
Counted = Literal["people", "sightings", "people and sightings"]

UNKNOWN_SLOT = -1
STEPS = 200
"""Confidences are kept in steps of half a per cent."""
SIZES_PER_DOUBLING = 8
"""Face sizes are kept as logarithms, in steps of 9 %."""

_COLUMNS = ("source", "camera", "media", "captured_at", "x1", "y1", "x2", "y2", "label", "confidence", "track")
_QUARTER_US = 900_000_000


@dataclass(frozen=True, slots=True)
class People:
    """Everybody who is counted, sorted by cell and label.

    A *cell* is one camera and one local hour; where no clock is known, one camera and one input. What is counted together
    in one cell has the same camera, day and hour.

    Attributes:
        task: labels and how they look.
        counted: what a row is.
        cameras: names, None for unknown, in order.
        cell_camera: c int, index into `cameras`.
        cell_slot: c int, local hours since `epoch`; `UNKNOWN_SLOT` without a clock.
        cell_count: c int, rows per cell.
        label: n uint8.
        confidence: n uint8 in steps of 1/`STEPS`; of a person the mean over the sightings.
        size: n uint8, longer side of the face in pixels as `size_code`; of a person the largest.
        epoch: day of slot 0.
        timezone: of hours and days.
        untracked: low-score faces in tracked videos that belong to nobody; not counted.
        sources: names → (camera index, seconds since 1970 of the first face, or NaN), for the coverage.
    """

    task: Task
    counted: Counted
    cameras: tuple[str | None, ...]
    cell_camera: Array
    cell_slot: Array
    cell_count: Array
    label: Array
    confidence: Array
    size: Array
    epoch: dt.date
    timezone: str
    untracked: int
    sources: dict[str, tuple[int, float]]

    @property
    def cells(self) -> Array:
        """n int: the cell of each row."""
        return np.repeat(np.arange(len(self.cell_count)), self.cell_count)

    @property
    def cell_cluster(self) -> Array:
        """c int: camera and day; without a clock every input is a cluster of its own."""
        day = np.where(self.cell_slot >= 0, self.cell_slot // 24, -1)
        days = int(day.max(initial=0)) + 1
        known = self.cell_camera.astype(np.int64) * days + day
        loose = days * len(self.cameras) + np.arange(len(day))
        return np.where(self.cell_slot >= 0, known, loose)

    @property
    def cell_correct(self) -> Array:
        """c int: rows with the headline label per cell."""
        correct = self.label == self.task.labels.index(self.task.headline)
        return np.bincount(self.cells, correct, len(self.cell_count)).astype(np.int64)

    @property
    def independent(self) -> bool:
        """Whether rows are people, so that tests mean something."""
        return self.counted == "people"

    @property
    def noun(self) -> str:
        return "people" if self.counted == "people" else "sightings" if self.counted == "sightings" else self.counted

    @property
    def noun_of_one(self) -> str:
        """What one of those counted is called."""
        return {"people": "person", "sightings": "sighting"}.get(self.counted, "person or sighting")


def zone_of(name: str) -> dt.tzinfo:
    """The time zone; raises UsageError for a name that is none."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"--timezone {name!r} is not a time zone; write one as in Europe/Berlin or UTC") from error


def size_code(side: Array) -> Array:
    """Pixels (float) → uint8; 0 is up to one pixel."""
    return np.clip(np.round(SIZES_PER_DOUBLING * np.log2(np.maximum(side, 1.0))), 0, 255).astype(np.uint8)


def read_people(reader: ResultReader, timezone: str = "UTC") -> People:
    """Count a result.

    Raises:
        UsageError: not a result, or not a time zone.
    """
    zone = zone_of(timezone)
    task, tracked = reader.task, reader.is_tracked
    rows = _Rows(task)
    untracked = 0
    seen = []
    for table in reader.tables(_COLUMNS):
        if tracked:
            video = pc.equal(table["media"].cast(pa.string()), "video")
            followed = pc.and_(video, pc.is_valid(table["track"]))
            untracked += len(table.filter(pc.and_(video, pc.is_null(table["track"]))))
            seen.append(_sightings(table.filter(followed)))
            rows.note_sources(table)
            rows.add(table.filter(pc.invert(video)))
        else:
            rows.add(table)
    sightings = rows.count
    if tracked:
        rows.add(_with_quality(people_table(reader), pa.concat_tables(seen)))
    counted: Counted = "sightings" if not tracked else "people and sightings" if sightings else "people"
    return rows.finished(counted, zone, timezone, untracked)


def _sightings(table: pa.Table) -> pa.Table:
    """Confidence and size of faces on tracks."""
    side = pc.max_element_wise(pc.subtract(table["x2"], table["x1"]), pc.subtract(table["y2"], table["y1"]))
    return pa.table(
        {
            "source": table["source"].cast(pa.string()),
            "track": table["track"],
            "confidence": table["confidence"],
            "side": side,
        }
    )


def _with_quality(people: pa.Table, sightings: pa.Table) -> pa.Table:
    """People with the mean confidence and the largest face of their sightings, in the columns of a result."""
    quality = sightings.group_by(["source", "track"]).aggregate([("confidence", "mean"), ("side", "max")])
    joined = people.select(["source", "camera", "track", "first_at", "label"]).join(quality, ["source", "track"])
    zero = pa.array(np.zeros(len(joined), np.float32))
    return pa.table(
        {
            "source": joined["source"],
            "camera": joined["camera"],
            "captured_at": joined["first_at"],
            "x1": zero,
            "y1": zero,
            "x2": joined["side_max"],
            "y2": joined["side_max"],
            "label": joined["label"].cast(pa.string()),
            "confidence": joined["confidence_mean"],
        }
    )


class _Rows:
    """Collects rows as small arrays, with names numbered as they come."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._cameras: dict[str | None, int] = {}
        self._sources: dict[str, int] = {}
        self._source_camera: dict[int, int] = {}
        self._source_first: dict[int, float] = {}
        self._parts: list[tuple[Array, ...]] = []
        self.count = 0

    def note_sources(self, table: pa.Table) -> None:
        """Remember which camera a source belongs to, and when it begins."""
        self._names(table)

    def add(self, table: pa.Table) -> None:
        if not len(table):
            return
        source, camera, quarter = self._names(table)
        side = np.maximum(_floats(table["x2"]) - _floats(table["x1"]), _floats(table["y2"]) - _floats(table["y1"]))
        # A face that a person drew has no confidence of a model: it is a face for certain.
        confidence = np.clip(np.round(STEPS * np.nan_to_num(_floats(table["confidence"]), nan=1.0)), 0, STEPS).astype(
            np.uint8
        )
        label = _codes(table["label"], {name: i for i, name in enumerate(self._task.labels)}).astype(np.uint8)
        self._parts.append((source, camera, quarter, label, confidence, size_code(np.nan_to_num(side))))
        self.count += len(table)

    def _names(self, table: pa.Table) -> tuple[Array, Array, Array]:
        source = _codes(table["source"], self._sources)
        names = (
            table["camera"] if "camera" in table.column_names else pa.chunked_array([pa.nulls(len(table), pa.string())])
        )
        camera = _codes(names, self._cameras)
        micros = table["captured_at"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        quarter = np.floor_divide(_floats(micros), _QUARTER_US)  # every clock differs from UTC by whole quarters
        for index in np.unique(source, return_index=True)[1].tolist():
            self._source_camera.setdefault(int(source[index]), int(camera[index]))
            if int(source[index]) not in self._source_first or np.isnan(self._source_first[int(source[index])]):
                self._source_first[int(source[index])] = float(quarter[index]) * 900
        return source.astype(np.int32), camera.astype(np.int32), quarter

    def finished(self, counted: Counted, zone: dt.tzinfo, timezone: str, untracked: int) -> People:
        kinds: tuple[Any, ...] = (np.int32, np.int32, np.float64, np.uint8, np.uint8, np.uint8)
        columns = [
            np.concatenate([part[i] for part in self._parts]) if self._parts else np.empty(0, kind)
            for i, kind in enumerate(kinds)
        ]
        self._parts.clear()
        source, camera, quarter, label, confidence, size = columns
        names = sorted(self._cameras, key=lambda name: (name is None, natural(name or "")))
        rank = np.empty(len(names), np.int32)
        rank[[self._cameras[name] for name in names]] = np.arange(len(names))
        slot, epoch = _slots(quarter, zone)
        camera = rank[camera] if len(camera) else camera
        loose = np.where(slot < 0, source, -1)
        order = np.lexsort((label, loose, slot, camera))
        key = np.column_stack([camera[order], slot[order], loose[order]])
        starts = np.flatnonzero(np.any(np.diff(key, axis=0, prepend=key[:1] - 1) != 0, axis=1)) if len(key) else order
        sources = {
            name: (int(rank[self._source_camera[code]]), self._source_first[code])
            for name, code in self._sources.items()
        }
        return People(
            task=self._task,
            counted=counted,
            cameras=tuple(names),
            cell_camera=key[starts, 0],
            cell_slot=key[starts, 1],
            cell_count=np.diff(starts, append=len(order)),
            label=label[order],
            confidence=confidence[order],
            size=size[order],
            epoch=epoch,
            timezone=timezone,
            untracked=untracked,
            sources=sources,
        )


def natural(text: str) -> tuple[tuple[int, int | str], ...]:
    """A sorting key by which ``cam 2`` comes before ``cam 10``."""
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", text.lower()) if part)


def _slots(quarter: Array, zone: dt.tzinfo) -> tuple[Array, dt.date]:
    """Local hours since the first day; `UNKNOWN_SLOT` where the quarter is NaN."""
    slot = np.full(len(quarter), UNKNOWN_SLOT, np.int32)
    known = ~np.isnan(quarter)
    if not known.any():
        return slot, dt.date(1970, 1, 1)
    distinct, inverse = np.unique(quarter[known].astype(np.int64), return_inverse=True)
    local = [dt.datetime.fromtimestamp(int(q) * 900, zone) for q in distinct]
    epoch = min(moment.date() for moment in local)
    hours = np.array([(moment.date() - epoch).days * 24 + moment.hour for moment in local], np.int32)
    slot[known] = hours[inverse]
    return slot, epoch


def _codes(column: pa.ChunkedArray, numbers: dict[Any, int]) -> Array:
    """Names as numbers of `numbers`, which grows by those that are new."""
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    codes = np.array(
        [numbers.setdefault(name, len(numbers)) for name in encoded.dictionary.to_pylist()] or [0], np.int32
    )
    indices = encoded.indices
    if not indices.null_count:
        return np.asarray(codes[indices.to_numpy(zero_copy_only=False)])
    missing = numbers.setdefault(None, len(numbers))
    valid = indices.is_valid().to_numpy(zero_copy_only=False)
    return np.where(valid, codes[indices.fill_null(0).to_numpy(zero_copy_only=False)], missing)


def _floats(column: pa.ChunkedArray) -> Array:
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def result_name(path: str) -> str:
    """The last part of a path or URL."""
    return path.rstrip("/").rpartition("/")[2] or path
