"""Who wore a mask, when and where: the counts of a result by camera and hour."""

from __future__ import annotations

import datetime as dt
import os
import re
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from maskbatch.errors import UsageError
from maskbatch.results.corrections import CORRECTED, with_decided_probabilities
from maskbatch.results.reader import ResultReader
from maskbatch.results.tracks import USED, tracks_table
from maskbatch.tasks import Task

Counted = Literal["people", "faces", "people and faces"]

_QUARTER_US = 900_000_000
"""Clocks of all time zones differ from UTC by whole quarters of an hour, so quarters can be counted before a zone is chosen."""

_COLUMNS = ("source", "camera", "media", "time_s", "captured_at", "label", "track")


@dataclass(frozen=True, slots=True)
class ResultSummary:
    """Counts of a result.

    Attributes:
        counted: ``people`` are tracks, ``faces`` are sightings; a result with both tracked videos and images has
            ``people and faces``: people in the videos, faces in the images.
        by: what the rows are split by.
        timezone: in which the hours and dates are.
        rows: one per group in order: its keys (text, or None where unknown), `count`, a count per label, and `share` (of all
            counted, those with the headline label: a mask worn correctly).
        total: the same over all rows, without keys.
        untracked: faces in tracked videos that belong to no person; they are not counted.
        labels: those of the result, in the order of the classifier's outputs.
        headline: the label that `share` is about.
    """

    counted: Counted
    by: tuple[str, ...]
    timezone: str
    rows: tuple[dict[str, Any], ...]
    total: dict[str, Any]
    untracked: int = 0
    labels: tuple[str, ...] = ()
    headline: str = ""


@dataclass(frozen=True, slots=True)
class _When:
    """A moment to a quarter of an hour, or (without a clock) hours since the beginning of the recording."""

    quarter: int | None
    hour: int | None

    def local(self, zone: dt.tzinfo) -> dt.datetime | None:
        if self.quarter is None:
            return None
        return dt.datetime.fromtimestamp(self.quarter * _QUARTER_US // 1_000_000, zone)


def _hour(when: _When, zone: dt.tzinfo) -> str | None:
    moment = when.local(zone)
    if moment is not None:
        # The hour that a clock change repeats is two hours, told apart by their offset.
        repeated = moment.replace(fold=0).utcoffset() != moment.replace(fold=1).utcoffset()
        return f"{moment:%Y-%m-%d %H:00}" + (f" {_offset(moment)}" if repeated else "")
    return None if when.hour is None else f"+{when.hour:02d}:00"


def _offset(moment: dt.datetime) -> str:
    text = moment.strftime("%z")
    return f"{text[:3]}:{text[3:5]}"


def _in_order(part: str | None) -> tuple[bool, str, float]:
    """Unknown last; of a repeated hour the first one, which has the larger offset, first."""
    if part is not None and (match := re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:00) ([+-])(\d\d):(\d\d)", part)):
        minutes = 60 * int(match[3]) + int(match[4])
        return False, match[1], float(minutes if match[2] == "-" else -minutes)
    return part is None, part or "", 0.0


def _format(pattern: str) -> Callable[[_When, dt.tzinfo], str | None]:
    def formatted(when: _When, zone: dt.tzinfo) -> str | None:
        moment = when.local(zone)
        return None if moment is None else moment.strftime(pattern)

    return formatted


def _weekday(when: _When, zone: dt.tzinfo) -> str | None:
    moment = when.local(zone)
    return None if moment is None else f"{moment.isoweekday()} {moment:%a}"


_TIMES: dict[str, Callable[[_When, dt.tzinfo], str | None]] = {
    "hour": _hour,
    "hour-of-day": _format("%H:00"),
    "date": _format("%Y-%m-%d"),
    "weekday": _weekday,
}
KEYS: tuple[str, ...] = ("source", "camera", *_TIMES)
"""What a summary can be split by. ``hour`` is the hour of the calendar (with its offset where a clock change repeats it), or of the recording
(``+02:00``) where no clock is known."""


def summarize(
    path: str | os.PathLike[str],
    by: tuple[str, ...] = ("camera", "hour"),
    timezone: str = "UTC",
    corrections: bool | str | os.PathLike[str] = False,
) -> ResultSummary:
    """Count the people of a result; its faces where it was made without tracking.

    A person counts once, in the hour in which they were first seen and with the label that their sightings voted for. Without
    tracking every sighting counts: somebody who stays for a minute at a frame a second is sixty faces.

    Args:
        path: ``results.parquet`` or the folder of a partitioned result, local or a URL.
        by: any of `KEYS`.
        timezone: IANA name for hours and dates.
        corrections: count as people decided, see `read_results`.

    Raises:
        UsageError: unknown key or zone, or `path` is not a result.
    """
    unknown = [key for key in by if key not in KEYS]
    if unknown or len(set(by)) != len(by):
        raise UsageError(f"--by {','.join(by)}: choose from {', '.join(KEYS)}, each once")
    try:
        zone = zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"--timezone {timezone!r} is not a time zone; write one as in Europe/Berlin or UTC") from error
    reader = ResultReader(path, corrections)
    task, tracked = reader.task, reader.is_tracked
    counter = _Counter(by, zone, task)
    untracked = sum(_count_faces(counter, table, tracked) for table in reader.tables(_COLUMNS))
    if tracked:
        counter.add(people_table(reader), "first_at", "first_s")
    counted: Counted = "people" if tracked else "faces"
    if tracked and counter.faces:
        counted = "people and faces"
    return ResultSummary(counted, by, timezone, counter.rows(), counter.total(), untracked, task.labels, task.headline)


class _Counter:
    def __init__(self, by: tuple[str, ...], zone: dt.tzinfo, task: Task) -> None:
        self._by = by
        self._task = task
        self._zone = zone
        self._counts: dict[tuple[str | None, ...], list[int]] = {}
        self.faces = 0

    def add(self, table: pa.Table, at: str, seconds: str) -> None:
        """Count the rows of a table with ``label`` and the columns that the keys need."""
        if not len(table):
            return
        micros = table[at].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        columns = {
            "label": table["label"].cast(pa.string()),
            "quarter": pc.floor(pc.divide(micros.cast(pa.float64()), float(_QUARTER_US))).cast(pa.int64()),
            "hour": pc.floor(pc.divide(table[seconds], 3600.0)).cast(pa.int64()),
        }
        columns.update({key: table[key].cast(pa.string()) for key in ("source", "camera") if key in self._by})
        groups = pa.table(columns).group_by(list(columns)).aggregate([([], "count_all")])
        for group in groups.to_pylist():
            when = _When(group["quarter"], group["hour"])
            key = tuple(_TIMES[k](when, self._zone) if k in _TIMES else group[k] for k in self._by)
            counts = self._counts.setdefault(key, [0] * len(self._task.labels))
            counts[self._task.labels.index(group["label"])] += group["count_all"]

    def rows(self) -> tuple[dict[str, Any], ...]:
        order = sorted(self._counts, key=lambda key: [_in_order(part) for part in key])
        return tuple(
            {**dict(zip(self._by, key, strict=True)), **self._figures(self._counts[key])} for key in order if self._by
        )

    def total(self) -> dict[str, Any]:
        return self._figures(
            [sum(column) for column in zip(*self._counts.values(), strict=True)] or [0] * len(self._task.labels)
        )

    def _figures(self, counts: list[int]) -> dict[str, Any]:
        count, labels = sum(counts), self._task.labels
        share = counts[labels.index(self._task.headline)] / count if count else None
        return {"count": count, **dict(zip(labels, counts, strict=True)), "share": share}


def _count_faces(counter: _Counter, table: pa.Table, tracked: bool) -> int:
    """Count the faces that are not followed as people; return how many faces in tracked videos belong to nobody."""
    in_video = pc.equal(table["media"].cast(pa.string()), "video")
    loose = table.filter(pc.invert(in_video)) if tracked else table
    counter.faces += len(loose)
    counter.add(loose, "captured_at", "time_s")
    return int(pc.sum(pc.and_(in_video, pc.is_null(table["track"]))).as_py() or 0) if tracked else 0


def people_table(reader: ResultReader) -> pa.Table:
    """The tracks of a result: from its tracks table where that lies beside it, else (and where people decided) made from the faces."""
    table = None if reader.corrections else reader.tracks()
    if table is not None:
        return table
    labels = reader.task.labels
    faces = reader.tables((*USED, "label", *reader.task.probability_columns, CORRECTED))
    return tracks_table(with_decided_probabilities(piece, labels) for piece in faces)
