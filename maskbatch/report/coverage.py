"""What was looked at, and what was not: the denominator of everything. From the table of the inputs."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskbatch.config import CaptureMetadata
from maskbatch.errors import UsageError
from maskbatch.report.people import People, natural, zone_of
from maskbatch.results.reader import ResultReader
from maskbatch.sources.capture_metadata import CaptureMetadataRules
from maskbatch.types import SEVERITY, Source

COUNTS = ("inputs", "ok", "partial", "error", "images", "video_s", "frames_read", "frames_skipped", "frames_failed")
_COLUMNS = (
    "source",
    "media",
    "status",
    "error",
    "message",
    "frames_read",
    "frames_failed",
    "frames_skipped",
    "duration_s",
)


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that is not ok."""

    source: str
    camera: str | None
    status: str
    error: str
    message: str
    frames_failed: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """Counts of the inputs.

    Attributes:
        cameras: names, None for unknown; those of the people first, then others.
        by_camera: `COUNTS` per camera.
        hours: (camera index, local hour since the people's epoch) → [seconds of video or images seen, inputs partial or failed].
        failures: inputs that are not ok, the worst first.
        by_error: error → inputs.
        known: False where there is no table of inputs.
    """

    cameras: tuple[str | None, ...]
    by_camera: tuple[dict[str, float], ...]
    hours: dict[tuple[int, int], list[float]]
    failures: tuple[Failure, ...]
    by_error: dict[str, int]
    known: bool

    @property
    def total(self) -> dict[str, float]:
        """`COUNTS` over all cameras."""
        return {name: sum(one[name] for one in self.by_camera) for name in COUNTS}


def read_coverage(reader: ResultReader, people: People) -> Coverage:
    """Count the inputs of a result; empty, and not `known`, where their table is missing."""
    try:
        table = reader.inputs().select(list(_COLUMNS))
    except (UsageError, KeyError):
        return Coverage(people.cameras, tuple(_zero() for _ in people.cameras), {}, (), {}, False)
    rules = CaptureMetadataRules(CaptureMetadata(timezone="UTC"))
    cameras = list(people.cameras)
    index = {name: i for i, name in enumerate(cameras)}
    counts = [_zero() for _ in cameras]
    hours: dict[tuple[int, int], list[float]] = {}
    failures: list[Failure] = []
    errors: dict[str, int] = {}
    zone = zone_of(people.timezone)
    for batch in table.to_batches(max_chunksize=65_536):
        for row in batch.to_pylist():
            camera, start = _place(row, people, rules)
            if camera not in index:
                index[camera] = len(cameras)
                cameras.append(camera)
                counts.append(_zero())
            at = index[camera]
            _count(counts[at], row)
            _spread(hours, at, row, start, zone, people.epoch)
            if row["status"] != "ok":
                errors[row["error"] or row["status"]] = errors.get(row["error"] or row["status"], 0) + 1
                failures.append(
                    Failure(
                        row["source"],
                        camera,
                        row["status"],
                        row["error"] or "",
                        (row["message"] or "")[:300],
                        row["frames_failed"],
                    )
                )
    failures.sort(key=lambda f: (-SEVERITY.index(f.status), -f.frames_failed, natural(f.source)))
    by_error = dict(sorted(errors.items(), key=lambda item: -item[1]))
    return Coverage(tuple(cameras), tuple(counts), hours, tuple(failures), by_error, True)


def _place(row: dict[str, Any], people: People, rules: CaptureMetadataRules) -> tuple[str | None, float]:
    """Camera and start (POSIX seconds, NaN unknown): by the faces of the input; without any, by its name, as a scan reads it."""
    if row["source"] in people.sources:
        camera, first = people.sources[row["source"]]
        return people.cameras[camera], first
    found = rules.apply(Source(row["source"], row["source"], row["media"]))
    # A name is believed only where it leads to a camera that is known: a manifest or --camera may have named the others.
    plausible = found.camera in people.cameras or people.cameras in ((), (None,))
    return (found.camera if plausible else None), (found.start_time if found.start_time is not None else np.nan)


def _count(one: dict[str, float], row: dict[str, Any]) -> None:
    one["inputs"] += 1
    one[row["status"]] += 1
    if row["status"] != "error":
        one["images"] += row["media"] == "image"
        one["video_s"] += row["duration_s"] or 0.0
    for name in ("frames_read", "frames_skipped", "frames_failed"):
        one[name] += row[name]


def _spread(
    hours: dict[tuple[int, int], list[float]],
    camera: int,
    row: dict[str, Any],
    start: float,
    zone: dt.tzinfo,
    epoch: dt.date,
) -> None:
    """Spread an input over the local hours that it covers."""
    if np.isnan(start):
        return
    left = 1.0 if row["media"] == "image" else (row["duration_s"] or 0.0)
    at = start
    for _ in range(24 * 366):
        moment = dt.datetime.fromtimestamp(at, zone)
        slot = (moment.date() - epoch).days * 24 + moment.hour
        here = min(left, 3600 - (at % 3600))
        cell = hours.setdefault((camera, slot), [0.0, 0.0])
        if row["status"] != "error":
            cell[0] += here
        if row["status"] != "ok":
            cell[1] += 1
        left, at = left - here, at + here
        if left <= 0 or row["media"] == "image":
            break


def _zero() -> dict[str, float]:
    return dict.fromkeys(COUNTS, 0)
