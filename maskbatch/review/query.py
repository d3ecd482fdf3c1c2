"""Which faces are shown, and in what order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from maskbatch.errors import UsageError
from maskbatch.review.faces import NO_DECISION, NO_TIME, NOT_A_FACE, Array, FaceTable

POSTER_HOURS = 2.0
"""A box that stays where it is for so long is no passer-by."""
POSTER_SIGHTINGS = 8
_POSTER_LOOK = 0.35
"""Deviation of the sharpness over its mean, up to which sightings look the same."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a person wants to see; None and empty text leave a filter off.

    Attributes:
        queue: one of `QUEUES`.
        sort: one of `SORTS`, with ``-`` in front for the other way round; empty for the order of the queue.
        camera: index.
        label: index of the current label; -1 for what is not a face.
        confidence: from … to.
        size: longer side in pixels, from … to.
        sharpness: from … to.
        source: part of the name.
        time: POSIX seconds, from … to (exclusive).
        row: the track of this row alone.
        decided: whether a person decided.
    """

    queue: str = "all"
    sort: str = ""
    camera: int | None = None
    label: int | None = None
    confidence: tuple[float, float] | None = None
    size: tuple[float, float] | None = None
    sharpness: tuple[float, float] | None = None
    source: str = ""
    time: tuple[float, float] | None = None
    row: int | None = None
    decided: bool | None = None


SORTS: dict[str, Callable[[FaceTable], Array]] = {
    "time": lambda faces: faces.captured,
    "camera": lambda faces: np.argsort(np.argsort(np.array(faces.cameras)))[faces.camera],
    "source": lambda faces: np.argsort(np.argsort(np.array(faces.sources)))[faces.source],
    "label": lambda faces: faces.current,
    "confidence": lambda faces: faces.confidence,
    "size": lambda faces: faces.side,
    "sharpness": lambda faces: faces.sharpness,
    "track": lambda faces: faces.track,
}


def _all(faces: FaceTable, rows: Array) -> Array:
    return rows


def _uncertain(faces: FaceTable, rows: Array) -> Array:
    ordered: Array = rows[np.argsort(faces.confidence[rows], kind="stable")]
    return ordered


def _random(faces: FaceTable, rows: Array) -> Array:
    # The same order each time, whatever the filters: who comes back finds the place again.
    place = np.random.default_rng(0).permutation(len(faces))
    ordered: Array = rows[np.argsort(place[rows])]
    return ordered


def _disagreement(faces: FaceTable, chosen: Array) -> Array:
    """Faces of tracks that were given several labels, track by track."""
    rows = np.flatnonzero(faces.track >= 0)
    if not len(rows):
        return rows
    key = faces.source[rows].astype(np.int64) << 32 | faces.track[rows]
    _, owner = np.unique(key, return_inverse=True)
    current = faces.current[rows]
    low, high = np.full(owner.max() + 1, 999), np.full(owner.max() + 1, -1)
    np.minimum.at(low, owner, current)
    np.maximum.at(high, owner, current)
    mixed = (low != high)[owner]
    kept = np.zeros(len(faces), np.bool_)
    kept[chosen] = True
    mixed &= kept[rows]
    found = rows[mixed]
    order: Array = found[np.lexsort((found, owner[mixed]))]
    return order


def _posters(faces: FaceTable, chosen: Array) -> Array:
    kept = np.zeros(len(faces), np.bool_)
    kept[chosen] = True
    rows = posters(faces)
    order: Array = rows[kept[rows]]
    return order


def posters(faces: FaceTable) -> Array:
    """Faces that do not move: the same box with the same look over hours on one camera, group by group.

    Statues, posters and screens. Boxes are gathered in a grid as wide as a fifth of the face; a group counts from `POSTER_SIGHTINGS`
    sightings over `POSTER_HOURS` hours whose sharpness hardly differs.
    """
    if not len(faces):
        return np.empty(0, np.int64)
    side = np.maximum(faces.side, 1.0)
    step = 2.0 ** np.round(np.log2(side / 5))
    centre = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    # Cameras are told apart; where none is known, sources are.
    place = np.where(
        np.array([bool(name) for name in faces.cameras])[faces.camera], faces.camera, len(faces.cameras) + faces.source
    )
    grid = np.round(centre / step[:, None]).astype(np.int64)
    grid -= grid.min(axis=0)
    key = place.astype(np.int64)
    for part in (np.round(np.log2(side) * 2).astype(np.int64), grid[:, 0], grid[:, 1]):
        key = key * (int(part.max()) + 1) + part
    _, owner, counts = np.unique(key, return_inverse=True, return_counts=True)
    clock = np.where(faces.captured != NO_TIME, faces.captured / 1e6, np.nan_to_num(faces.time_s))
    first, last = np.full(len(counts), np.inf), np.full(len(counts), -np.inf)
    np.minimum.at(first, owner, clock)
    np.maximum.at(last, owner, clock)
    mean = np.bincount(owner, faces.sharpness) / counts
    spread = np.sqrt(np.maximum(np.bincount(owner, faces.sharpness.astype(np.float64) ** 2) / counts - mean**2, 0))
    still = (counts >= POSTER_SIGHTINGS) & (last - first >= POSTER_HOURS * 3600)
    still &= spread <= _POSTER_LOOK * np.maximum(mean, 1e-6)
    rows = np.flatnonzero(still[owner])
    order: Array = rows[np.lexsort((rows, owner[rows], -counts[owner[rows]]))]
    return order


QUEUES: dict[str, tuple[str, Callable[[FaceTable, Array], Array]]] = {
    "all": ("All faces", _all),
    "uncertain": ("Least certain", _uncertain),
    "random": ("Random order", _random),
    "disagreement": ("Disagreement within a track", _disagreement),
    "posters": ("Suspected posters", _posters),
}
"""Name → what a person reads, and what puts chosen rows (in the order of the result) in order, and leaves out what is not of the queue."""


def poster_group(faces: FaceTable, row: int) -> Array:
    """Rows of the suspected poster that a row belongs to; the row alone where it is none."""
    rows = posters(faces)
    if row not in rows:
        return np.array([row])
    same = faces.camera[rows] == faces.camera[row]
    box = faces.boxes[row]
    near = np.abs(faces.boxes[rows] - box).max(axis=1) <= 0.35 * max(float(faces.side[row]), 1.0)
    found: Array = rows[same & near]
    return found


def select(faces: FaceTable, query: Query) -> Array:
    """Rows of the faces, in order. Raises UsageError for a queue or an order that there is not."""
    if query.queue not in QUEUES:
        raise UsageError(f"there is no queue {query.queue!r}: {', '.join(QUEUES)}")
    keep = np.ones(len(faces), np.bool_)
    if query.camera is not None:
        keep &= faces.camera == query.camera
    if query.label is not None:
        keep &= faces.current == query.label
    for bounds, values in (
        (query.confidence, faces.confidence),
        (query.size, faces.side),
        (query.sharpness, faces.sharpness),
    ):
        if bounds is not None:
            keep &= (values >= bounds[0]) & (values <= bounds[1])
    if query.time is not None:
        low, high = (value * 1e6 for value in query.time)
        keep &= (faces.captured >= low) & (faces.captured < high)
    if query.source:
        wanted = query.source.casefold()
        match = np.array([wanted in name.casefold() for name in faces.sources], np.bool_)
        keep &= match[faces.source] if len(match) else False
    if query.decided is not None:
        keep &= (faces.decided != NO_DECISION) == query.decided
    rows = np.flatnonzero(keep)
    if query.row is not None:
        track = faces.same_track(query.row)
        rows = track[keep[track]]
    else:
        rows = QUEUES[query.queue][1](faces, rows)
    if query.sort:
        name = query.sort.removeprefix("-")
        if name not in SORTS:
            raise UsageError(f"faces cannot be sorted by {name!r}: {', '.join(SORTS)}")
        order = np.argsort(SORTS[name](faces)[rows], kind="stable")
        rows = rows[order[::-1] if query.sort.startswith("-") else order]
    return rows


def progress(faces: FaceTable) -> dict[str, int]:
    """How many faces there are, and what was decided of them."""
    decided = faces.decided
    return {
        "faces": len(faces),
        "decided": int((decided != NO_DECISION).sum()),
        "not_a_face": int((decided == NOT_A_FACE).sum()),
        "changed": int(
            ((decided != NO_DECISION) & (decided != NOT_A_FACE) & (decided != faces.label.astype(np.int16) + 1)).sum()
        ),
    }
