"""Who wore a mask, when and where: the counts of a result by camera and hour."""

from __future__ import annotations

import datetime as dt
import io
import zoneinfo
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from maskbatch.errors import UsageError
from maskbatch.results.paths import OutputPaths
from maskbatch.results.tracks import USED, tracks_table
from maskbatch.storage import open_store
from maskbatch.tasks.mask import LABELS

Counted = Literal["people", "faces", "people and faces"]

_QUARTER_US = 900_000_000
"""Clocks of all time zones differ from UTC by whole quarters of an hour, so quarters can be counted before a zone is chosen."""

_COLUMNS = [*USED, "media", "label", "confidence"]


@dataclass(frozen=True, slots=True)
class ResultSummary:
    """Counts of a result.

    Attributes:
        counted: ``people`` are tracks, ``faces`` are sightings; a result with both tracked videos and pictures has
            ``people and faces``: people in the videos, faces in the pictures.
        by: what the rows are split by.
        timezone: in which the hours and dates are.
        rows: one per group in order: its keys (text, or None where unknown), `count`, a count per label, and `share` (of all
            counted, those with a mask worn correctly).
        total: the same over all rows, without keys.
        untracked: faces in tracked videos that belong to no person; they are not counted.
    """

    counted: Counted
    by: tuple[str, ...]
    timezone: str
    rows: tuple[dict[str, Any], ...]
    total: dict[str, Any]
    untracked: int = 0


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
        return moment.strftime("%Y-%m-%d %H:00")
    return None if when.hour is None else f"+{when.hour:02d}:00"


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
"""What a summary can be split by. ``hour`` is the hour of the calendar, or of the recording (``+02:00``) where no clock is known."""


def summarize(path: str, by: tuple[str, ...] = ("camera", "hour"), timezone: str = "UTC") -> ResultSummary:
    """Count the people of a result; its faces where it was made without tracking.

    A person counts once, in the hour in which they were first seen and with the label that their sightings voted for. Without
    tracking every sighting counts: somebody who stays for a minute at a frame a second is sixty faces.

    Args:
        path: ``results.parquet`` or the folder of a partitioned result, local or a URL.
        by: any of `KEYS`.
        timezone: IANA name for hours and dates.

    Raises:
        UsageError: unknown key or zone, or `path` is not a result.
    """
    unknown = [key for key in by if key not in KEYS]
    if unknown or len(set(by)) != len(by):
        raise UsageError(f"--by {','.join(by)}: choose from {', '.join(KEYS)}, each once")
    try:
        zone = zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"--timezone {timezone!r} is no time zone; write one as in Europe/Berlin or UTC") from error
    counter = _Counter(by, zone)
    try:
        tracked = _is_tracked(path)
        untracked = sum(_count_faces(counter, table, tracked) for table in _tables(path, _COLUMNS))
        if tracked:
            counter.add(_people(path), "first_at", "first_s")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such result") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a result of maskbatch ({error})") from None
    counted: Counted = "people" if tracked else "faces"
    if tracked and counter.faces:
        counted = "people and faces"
    return ResultSummary(counted, by, timezone, counter.rows(), counter.total(), untracked)


class _Counter:
    def __init__(self, by: tuple[str, ...], zone: dt.tzinfo) -> None:
        self._by = by
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
            counts = self._counts.setdefault(key, [0] * len(LABELS))
            counts[LABELS.index(group["label"])] += group["count_all"]

    def rows(self) -> tuple[dict[str, Any], ...]:
        order = sorted(self._counts, key=lambda key: [(part is None, part or "") for part in key])
        return tuple(
            {**dict(zip(self._by, key, strict=True)), **_figures(self._counts[key])} for key in order if self._by
        )

    def total(self) -> dict[str, Any]:
        return _figures([sum(column) for column in zip(*self._counts.values(), strict=True)] or [0] * len(LABELS))


def _figures(counts: list[int]) -> dict[str, Any]:
    count = sum(counts)
    share = counts[LABELS.index("with_mask")] / count if count else None
    return {"count": count, **dict(zip(LABELS, counts, strict=True)), "share": share}


def _count_faces(counter: _Counter, table: pa.Table, tracked: bool) -> int:
    """Count the faces that are not followed as people; return how many faces in tracked videos belong to nobody."""
    in_video = pc.equal(table["media"].cast(pa.string()), "video")
    loose = table.filter(pc.invert(in_video)) if tracked else table
    counter.faces += len(loose)
    counter.add(loose, "captured_at", "time_s")
    return int(pc.sum(pc.and_(in_video, pc.is_null(table["track"]))).as_py() or 0) if tracked else 0


def _is_tracked(path: str) -> bool:
    return any(table["track"].null_count < len(table) for table in _tables(path, ["track"]))


def _people(path: str) -> pa.Table:
    """The tracks of a result: from its tracks table where that lies beside it, else made once more from the faces."""
    out = OutputPaths.of(_as_output(path))
    try:
        return pq.read_table(io.BytesIO(open_store(out.folder).read(out.tracks)))
    except FileNotFoundError:
        return tracks_table(_tables(path, _COLUMNS))


def _as_output(path: str) -> str:
    return path if path.endswith((".parquet", "/")) else path + "/"


def _tables(path: str, columns: list[str]) -> Iterator[pa.Table]:
    if "://" not in path and not Path(path).is_dir():
        file = pq.ParquetFile(path)
        names = [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(columns=names):
            yield pa.Table.from_batches([batch])
    elif path.endswith(".parquet"):
        folder, _, name = path.rpartition("/")
        yield pq.read_table(io.BytesIO(open_store(folder).read(name)), columns=columns)
    else:
        yield from _dataset_tables(path, columns)


def _dataset_tables(path: str, columns: list[str]) -> Iterator[pa.Table]:
    from maskbatch.results.dataset import UNKNOWN, files_of

    store = open_store(path)
    stored = [name for name in columns if name != "camera"]
    for name in files_of(store):
        table = pq.read_table(io.BytesIO(store.read(name)), columns=stored, partitioning=None)
        if "camera" in columns:
            shown = name.partition("/")[0].partition("=")[2]
            camera = None if shown == UNKNOWN else unquote(shown)
            table = table.append_column("camera", pa.array([camera] * len(table), pa.string()))
        yield table
