"""What people put right in a result, and the result as it is with that applied.

The result itself is never changed. A correction names a face by what it is (source, moment, box), so that it also fits the result of
another model over the same inputs. The last decision on a face counts, and an undo takes the last one back.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from maskbatch.errors import UsageError

Action = Literal["label", "not_a_face", "missed", "undo", "checked"]
Box = tuple[float, float, float, float]
SAME_FACE_IOU = 0.5
"""Boxes of one moment that overlap at least so much are the same face."""
CORRECTED = "corrected"
"""The column that a corrected result has more than others: bool, whether a person decided on the face."""
NEEDED = ("source", "media", "camera", "frame", "time_s", "captured_at", "x1", "y1", "x2", "y2", "label")
"""What of a result the corrections are matched by, or take for faces that were missed."""


def now() -> str:
    """The present second in UTC, ISO 8601: when a decision is made."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Correction:
    """One decision of a person.

    Attributes:
        source: as in the result.
        box: x1, y1, x2, y2 in pixels of the source.
        action: ``label``: it is a face and its label is `label`; ``not_a_face``; ``missed``: a face that was not found, with `label`;
            ``undo``: the last decision on this face is taken back; ``checked``: all faces of this image have been looked at, and those that
            were missed are drawn (the box is the whole image).
        label: of the task, for ``label`` and ``missed``.
        frame: as in the result; for people, not matched by.
        time_s: presentation time in a video, None in an image.
        sha256: of the source's bytes, where the scan knew it; finds a source again that was renamed.
        by: who decided; empty where nobody said.
        at: when, ISO 8601 in UTC.
        origin: where the decision was made: ``review``, ``audit``, ``import:coco``.
    """

    source: str
    box: Box
    action: Action
    label: str = ""
    frame: int | None = None
    time_s: float | None = None
    sha256: str = ""
    by: str = ""
    at: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if self.action not in get_args(Action):
            raise UsageError(f"a correction's action is one of {', '.join(get_args(Action))}, not {self.action!r}")
        if self.action in ("label", "missed") and not self.label:
            raise UsageError(f"a correction that is a {self.action} names a label")
        x1, y1, x2, y2 = self.box
        if not all(map(math.isfinite, self.box)) or x2 <= x1 or y2 <= y1:
            raise UsageError(f"a correction's box is x1, y1, x2, y2 with x1 < x2 and y1 < y2, not {self.box}")


@dataclass(slots=True)
class _Decision:
    """The decisions on one face, the last one on top."""

    stack: list[Correction]

    @property
    def last(self) -> Correction:
        return self.stack[-1]


class Faces(Protocol):
    """A result in memory, as plain columns."""

    sources: list[str]
    source: npt.NDArray[Any]
    time_s: npt.NDArray[Any]
    boxes: npt.NDArray[Any]


class Corrections:
    """What holds after all decisions: the last one of each face.

    Args:
        decisions: one per face.
    """

    def __init__(self, decisions: Iterable[Correction]) -> None:
        self._moments: dict[tuple[str, int | None], list[Correction]] = {}
        self._names: dict[str, str] = {}
        for decision in decisions:
            self._moments.setdefault((decision.source, _millis(decision.time_s)), []).append(decision)
            if decision.sha256:
                self._names[decision.sha256] = decision.source
        self._sources = {source for source, _ in self._moments}

    @classmethod
    def of(cls, records: Iterable[Correction]) -> Corrections:
        """From the records of a log, in order."""
        moments: dict[tuple[str, int | None], list[_Decision]] = {}
        for record in records:
            if record.action == "checked":  # of an image, not of a face
                continue
            faces = moments.setdefault((record.source, _millis(record.time_s)), [])
            at = _best([face.last.box for face in faces], record.box)
            if record.action == "undo":
                if at is not None:
                    faces[at].stack.pop()
                    faces[:] = [face for face in faces if face.stack]
            elif at is None:
                faces.append(_Decision([record]))
            else:
                # A face that was drawn stays a missed one when its label is changed.
                drawn = faces[at].last.action == "missed" and record.action == "label"
                faces[at].stack.append(dataclasses.replace(record, action="missed") if drawn else record)
        return cls(face.last for faces in moments.values() for face in faces)

    def __len__(self) -> int:
        return sum(map(len, self._moments.values()))

    def __iter__(self) -> Iterator[Correction]:
        return (decision for faces in self._moments.values() for decision in faces)

    def renamed(self, hashes: dict[str, str]) -> Corrections:
        """The same for a result whose sources have other names.

        Args:
            hashes: source → SHA-256 of the sources of the result, where known. A source that is not among them, but whose hash is,
                takes the name it has there; one of that name with another hash is another file, and its corrections do not count.
        """
        by_hash = {sha256: source for source, sha256 in hashes.items()}
        kept = []
        for decision in self:
            here = hashes.get(decision.source)
            if not decision.sha256 or here == decision.sha256:
                kept.append(decision)
            elif decision.sha256 in by_hash:
                kept.append(dataclasses.replace(decision, source=by_hash[decision.sha256]))
            elif here is None:
                kept.append(decision)
        return Corrections(kept)

    def apply(self, table: pa.Table) -> pa.Table:
        """A piece of a result as people decided: other labels, without what is not a face.

        Confidence and probabilities stay the model's own.

        Args:
            table: with at least the columns `NEEDED` (`media`, `camera` and `captured_at` may be missing).

        Returns:
            The table with the column `corrected`.

        Raises:
            UsageError: a correction has a label that the result does not have.
        """
        labels: dict[int, str] = {}
        dropped: list[int] = []
        corrected = np.zeros(len(table), np.bool_)
        for rows, decisions in self._matching(table):
            names = ("x1", "y1", "x2", "y2")
            boxes = np.column_stack([table[name].take(pa.array(rows)).to_numpy().astype(np.float64) for name in names])
            for row, decision in _pairs(boxes, rows, decisions):
                corrected[row] = True
                if decision.action == "not_a_face":
                    dropped.append(row)
                else:
                    labels[row] = decision.label
        if labels:
            table = _relabelled(table, labels)
        table = table.append_column(CORRECTED, pa.array(corrected))
        if dropped:
            keep = np.ones(len(table), np.bool_)
            keep[dropped] = False
            table = table.filter(pa.array(keep))
        return table

    def rows(self, faces: Faces) -> Iterator[tuple[int, Correction]]:
        """Rows of a table in memory with the decision on each; those of faces that were drawn are left out."""
        codes = {name: code for code, name in enumerate(faces.sources) if name in self._sources}
        wanted = np.zeros(len(faces.sources), np.bool_)
        wanted[list(codes.values())] = True
        candidates = np.flatnonzero(wanted[faces.source]) if len(faces.sources) else np.empty(0, np.int64)
        moments: dict[tuple[str, int | None], list[int]] = {}
        for row in candidates.tolist():
            time_s = float(faces.time_s[row])
            key = (faces.sources[faces.source[row]], _millis(time_s if math.isfinite(time_s) else None))
            if key in self._moments:
                moments.setdefault(key, []).append(row)
        for key, rows in moments.items():
            decisions = [decision for decision in self._moments[key] if decision.action != "missed"]
            yield from _pairs(faces.boxes[rows].astype(np.float64), rows, decisions)

    def missed(self, labels: Sequence[str]) -> list[Correction]:
        """The faces that people drew, in the order of source and time. Raises UsageError for a label that is not among `labels`."""
        found = [decision for decision in self if decision.action == "missed"]
        for decision in found:
            _check_label(decision.label, labels)
        return sorted(found, key=lambda d: (d.source, -1.0 if d.time_s is None else d.time_s, d.box))

    def _matching(self, table: pa.Table) -> Iterator[tuple[list[int], list[Correction]]]:
        """Moments that have both: their rows, and the decisions that concern detections."""
        if not len(table) or not self._sources:
            return
        sources = table["source"].combine_chunks()
        if not pa.types.is_dictionary(sources.type):
            sources = sources.dictionary_encode()
        names = sources.dictionary.to_pylist()
        wanted = np.array([name in self._sources for name in names], np.bool_)
        codes = sources.indices.to_numpy(zero_copy_only=False)
        candidates = np.flatnonzero(wanted[codes]) if len(names) else np.empty(0, np.int64)
        times = table["time_s"].cast(pa.float64()).take(pa.array(candidates)).to_pylist()
        moments: dict[tuple[str, int | None], list[int]] = {}
        for row, time_s in zip(candidates.tolist(), times, strict=True):
            key = (names[codes[row]], _millis(time_s))
            if key in self._moments:
                moments.setdefault(key, []).append(row)
        for key, rows in moments.items():
            yield rows, [decision for decision in self._moments[key] if decision.action != "missed"]


class MissedFaces:
    """Gathers, while a result is read, what the rows of missed faces need to know of their sources.

    Args:
        faces: as `Corrections.missed` returns them.
    """

    def __init__(self, faces: list[Correction]) -> None:
        self.faces = faces
        self._known: dict[str, dict[str, Any]] = {}
        self._wanted = {face.source for face in faces}

    def look(self, table: pa.Table) -> None:
        """Take note of the sources in a piece of the result."""
        open_sources = self._wanted - self._known.keys()
        if not open_sources or not len(table):
            return
        rows = table.filter(pc.is_in(table["source"].cast(pa.string()), pa.array(sorted(open_sources), pa.string())))
        columns = [name for name in ("source", "media", "camera", "time_s", "captured_at") if name in rows.column_names]
        for row in rows.select(columns).to_pylist():
            self._known.setdefault(row["source"], row)

    def table(self, schema: pa.Schema) -> pa.Table:
        """The missed faces as rows of the result, with NaN where a model would have said something.

        Args:
            schema: of the result, with the column `corrected`.
        """
        rows = []
        for number, face in enumerate(self.faces, 1):
            known = self._known.get(face.source, {})
            captured = known.get("captured_at")
            if captured is not None and face.time_s is not None and known.get("time_s") is not None:
                captured += dt.timedelta(seconds=face.time_s - known["time_s"])
            values: dict[str, Any] = {
                field.name: math.nan if pa.types.is_floating(field.type) else None for field in schema
            }
            values |= dict(zip(("x1", "y1", "x2", "y2"), face.box, strict=True))
            values |= {
                "source": face.source,
                "camera": known.get("camera"),
                "media": known.get("media") or ("image" if face.time_s is None else "video"),
                "frame": face.frame,
                "time_s": face.time_s,
                "captured_at": captured,
                "face": -number,  # of no detection
                "label": face.label,
                CORRECTED: True,
            }
            rows.append(values)
        return pa.Table.from_pylist(rows, schema=schema)


def with_decided_probabilities(table: pa.Table, labels: Sequence[str]) -> pa.Table:
    """The table with probability 1 for the label that a person gave, where one did: votes of tracks are taken from these columns."""
    if CORRECTED not in table.column_names:
        return table
    decided, given = table[CORRECTED], table["label"].cast(pa.string())
    for label in labels:
        at = table.column_names.index(f"p_{label}")
        field = table.schema.field(at)
        certain = pc.equal(given, label).cast(field.type)
        table = table.set_column(at, field, pc.if_else(decided, certain, table[at]))
    return table


def _pairs(
    boxes: npt.NDArray[np.float64], rows: list[int], decisions: list[Correction]
) -> Iterator[tuple[int, Correction]]:
    """Rows and decisions of one moment that are the same face; each at most once, the best overlap first."""
    if not decisions:
        return
    overlap = np.stack([_iou(boxes, decision.box) for decision in decisions], axis=1)
    while overlap.size and overlap.max() >= SAME_FACE_IOU:
        row, decision = np.unravel_index(int(overlap.argmax()), overlap.shape)
        yield rows[int(row)], decisions[int(decision)]
        overlap[row, :] = -1
        overlap[:, decision] = -1


def _relabelled(table: pa.Table, labels: dict[int, str]) -> pa.Table:
    at = table.column_names.index("label")
    field = table.schema.field(at)
    known = [name.removeprefix("p_") for name in table.column_names if name.startswith("p_")]
    values = table["label"].cast(pa.string()).to_pylist()
    for row, label in labels.items():
        if known:
            _check_label(label, known)
        values[row] = label
    column = pa.array(values, pa.string())
    if pa.types.is_dictionary(field.type):
        column = column.dictionary_encode().cast(field.type)
    return table.set_column(at, field, column)


def _check_label(label: str, labels: Sequence[str]) -> None:
    if label not in labels:
        raise UsageError(f"a correction says {label!r}; the labels of this result are {', '.join(labels)}")


def _best(boxes: Sequence[Box], box: Box) -> int | None:
    """Which of the boxes is the same face, or None."""
    if not boxes:
        return None
    overlap = _iou(np.array(boxes, np.float64), box)
    at = int(overlap.argmax())
    return at if overlap[at] >= SAME_FACE_IOU else None


def _iou(boxes: npt.NDArray[np.float64], box: Box) -> npt.NDArray[np.float64]:
    """Intersection over union of n×4 boxes with one."""
    x1, y1, x2, y2 = box
    width = np.clip(np.minimum(boxes[:, 2], x2) - np.maximum(boxes[:, 0], x1), 0, None)
    height = np.clip(np.minimum(boxes[:, 3], y2) - np.maximum(boxes[:, 1], y1), 0, None)
    shared = width * height
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    overlap: npt.NDArray[np.float64] = shared / np.maximum(areas + (x2 - x1) * (y2 - y1) - shared, 1e-9)
    return overlap


def _millis(time_s: float | None) -> int | None:
    return None if time_s is None else round(time_s * 1000)
