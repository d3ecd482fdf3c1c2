"""Tracks of persons within one video, and the table of them.

Who is who from frame to frame is decided in `results.following`. Tracks are made when the rows of a whole video are together, so that how it
was cut into units does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskbatch.results.columns import numbers
from maskbatch.results.following import Follower
from maskbatch.results.schema import DICTIONARY, SMALL_DICTIONARY

_CHUNK = 65_536

TRACKS = pa.schema(
    [
        pa.field("source", DICTIONARY, nullable=False),
        ("camera", DICTIONARY),
        pa.field("track", pa.int64(), nullable=False),
        ("first_s", pa.float64()),
        ("last_s", pa.float64()),
        ("first_at", pa.timestamp("us", tz="UTC")),
        ("last_at", pa.timestamp("us", tz="UTC")),
        pa.field("sightings", pa.int64(), nullable=False),
        pa.field("label", SMALL_DICTIONARY, nullable=False),
        pa.field("share", pa.float32(), nullable=False),
        ("best_frame", pa.int64()),
        pa.field("best_face", pa.int32(), nullable=False),
        *[pa.field(f"best_{name}", pa.float32(), nullable=False) for name in ("x1", "y1", "x2", "y2")],
    ]
)
"""`results.tracks.parquet`: a row per track, ordered by source and track. `share` is the part of the vote that `label` got."""


def track_video(table: pa.Table) -> pa.Array:
    """Number the persons of one video.

    Args:
        table: the faces of one video, ordered by frame and face; of the columns, ``frame, time_s, x1, y1, x2, y2, score`` are used.

    Returns:
        int64 per row: the track, counted from 0 in the order of first appearance; null for a low-score face that is on no track.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    times = _floats(table["time_s"])
    frames = _floats(table["frame"])
    boxes = np.column_stack([_floats(table[name]) for name in ("x1", "y1", "x2", "y2")])
    scores = _floats(table["score"])
    if np.isnan(times).any():
        times = frames
    numbering = np.full(len(table), -1, np.int64)
    if len(table):
        edges = np.flatnonzero(np.diff(frames, prepend=np.nan, append=np.nan) != 0)
        follower = Follower(times[edges[:-1]])
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            numbering[begin:end] = follower.update(boxes[begin:end], scores[begin:end], float(times[begin]))
    return numbers(numbering, pa.int64(), numbering < 0)


@dataclass(slots=True)
class _Person:
    """What is known of one track so far."""

    camera: str | None
    first_s: float | None
    last_s: float | None
    first_at: int | None
    last_at: int | None
    sightings: int = 0
    votes: np.ndarray[Any, np.dtype[np.float64]] = field(default_factory=lambda: np.zeros(0))
    best: float = -1.0
    best_frame: int | None = None
    best_face: int = 0
    best_box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


def tracks_table(results: Iterable[pa.Table | pa.RecordBatch]) -> pa.Table:
    """The persons of a result.

    A person's label is a vote: each sighting votes for its label with its confidence, so a sure one counts for more than a
    doubtful one; `share` is what the winner got of all votes.
    The best face is the one with the largest product of area and sharpness.

    Args:
        results: rows of ``results.parquet`` with tracks, in any number of tables or batches; those of one source in the order of
            the contract.

    Returns:
        A table of the schema `TRACKS`, sources in the order of their first row. Rows without a track are left out.
    """
    sources: dict[str, dict[int, _Person]] = {}
    labels: list[str] = []
    for names, rows in _rows(results):
        labels = labels or names
        for row in rows:
            _see(sources.setdefault(row["source"], {}), row, labels)
    columns: dict[str, list[Any]] = {name: [] for name in TRACKS.names}
    for source, people in sources.items():
        _append(columns, source, people, labels)
    return pa.table({name: pa.array(columns[name], TRACKS.field(name).type) for name in TRACKS.names}, schema=TRACKS)


USED = [
    "source",
    "camera",
    "frame",
    "time_s",
    "captured_at",
    "face",
    "x1",
    "y1",
    "x2",
    "y2",
    "sharpness",
    "track",
]
"""Columns of a result that tracks are made from, beside ``p_<label>``."""


def _rows(results: Iterable[pa.Table | pa.RecordBatch]) -> Iterator[tuple[list[str], list[dict[str, Any]]]]:
    """The labels, and some rows."""
    for part in results:
        table = pa.Table.from_batches([part]) if isinstance(part, pa.RecordBatch) else part
        probabilities = [name for name in table.column_names if name.startswith("p_")]
        table = table.select([name for name in (*USED, *probabilities) if name in table.column_names])
        labels = [name.removeprefix("p_") for name in probabilities]
        table = table.filter(pc.is_valid(table["track"]))
        if "captured_at" in table.column_names:
            at = table.schema.get_field_index("captured_at")
            table = table.set_column(at, "captured_at", table["captured_at"].cast(pa.int64()))
        for begin in range(0, len(table), _CHUNK):
            yield labels, table.slice(begin, _CHUNK).to_pylist()


def _see(people: dict[int, _Person], row: dict[str, Any], labels: list[str]) -> None:
    person = people.get(row["track"])
    at, time_s = row.get("captured_at"), row["time_s"]
    if person is None:
        person = _Person(row.get("camera"), time_s, time_s, at, at, votes=np.zeros(len(labels)))
        people[row["track"]] = person
    person.last_s, person.last_at = time_s, at
    person.sightings += 1
    probabilities = [row[f"p_{label}"] for label in labels]
    winner = int(np.argmax(probabilities))
    person.votes[winner] += probabilities[winner]
    box = (row["x1"], row["y1"], row["x2"], row["y2"])
    sharpness = row.get("sharpness")
    quality = max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]) * (1.0 if sharpness is None else sharpness)
    if quality > person.best:
        person.best, person.best_frame, person.best_face, person.best_box = quality, row["frame"], row["face"], box


def _append(columns: dict[str, list[Any]], source: str, people: dict[int, _Person], labels: list[str]) -> None:
    for number, person in sorted(people.items()):
        winner = int(person.votes.argmax())
        total = float(person.votes.sum())
        values = {
            "source": source,
            "camera": person.camera,
            "track": number,
            "first_s": person.first_s,
            "last_s": person.last_s,
            "first_at": person.first_at,
            "last_at": person.last_at,
            "sightings": person.sightings,
            "label": labels[winner],
            "share": float(person.votes[winner]) / total if total > 0 else 0.0,
            "best_frame": person.best_frame,
            "best_face": person.best_face,
        }
        values.update(zip(("best_x1", "best_y1", "best_x2", "best_y2"), person.best_box, strict=True))
        for name, column in columns.items():
            column.append(values[name])


def _floats(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Numbers of a column as float64; NaN where it is null."""
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
