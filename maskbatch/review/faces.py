"""The faces of a result as plain columns in memory, and what people decided about them so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from maskbatch.results.columns import to_numpy
from maskbatch.results.correction_log import CorrectionLog
from maskbatch.results.corrections import Action, Correction, Corrections, now
from maskbatch.results.reader import ResultReader
from maskbatch.tasks import Task

Array = npt.NDArray[Any]
NO_DECISION, NOT_A_FACE = 0, 255
"""Values of `FaceTable.decided`; between them stand the labels, counted from 1."""
_COLUMNS: tuple[str, ...] = (
    "source",
    "camera",
    "media",
    "frame",
    "time_s",
    "captured_at",
    "face",
    "x1",
    "y1",
    "x2",
    "y2",
)
_COLUMNS += ("score", "label", "confidence", "sharpness", "track")
NO_TIME = np.iinfo(np.int64).min


@dataclass(slots=True)
class FaceTable:
    """n faces in the order of the result, about 80 bytes each. A face is addressed by its row.

    Attributes:
        task: labels and how they look.
        sources: names.
        cameras: names, "" for unknown.
        source: n int32, index into `sources`.
        camera: n int32, index into `cameras`.
        video: n bool.
        frame: n int64, -1 in a still image.
        time_s: n float64, NaN in a still image.
        captured: n int64, microseconds since 1970, `NO_TIME` where unknown.
        boxes: n×4 float32 in pixels.
        label: n uint8, the model's answer.
        confidence: n float32.
        headline: n float32, probability of the task's headline label.
        score: n float32, of the detector.
        sharpness: n float32.
        track: n int64, -1 for none.
        decided: n uint8: `NO_DECISION`, a label + 1, or `NOT_A_FACE`.
        hashes: source → SHA-256, where known.
    """

    task: Task
    sources: list[str]
    cameras: list[str]
    source: Array
    camera: Array
    video: Array
    frame: Array
    time_s: Array
    captured: Array
    boxes: Array
    label: Array
    confidence: Array
    headline: Array
    score: Array
    sharpness: Array
    track: Array
    decided: Array
    hashes: dict[str, str]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def current(self) -> Array:
        """n int16: the label as decided, else the model's; -1 for what is not a face."""
        given = self.decided.astype(np.int16) - 1
        return np.where(self.decided == NO_DECISION, self.label, np.where(self.decided == NOT_A_FACE, -1, given))

    @property
    def side(self) -> Array:
        """n float32: longer side of the box in pixels."""
        boxes = self.boxes
        sides: Array = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        return sides

    def correction(self, row: int, action: Action, label: str = "", by: str = "", origin: str = "review") -> Correction:
        """A decision on a face, as the log keeps it."""
        name = self.sources[self.source[row]]
        x1, y1, x2, y2 = (float(value) for value in self.boxes[row])
        time_s = float(self.time_s[row])
        return Correction(
            name,
            (x1, y1, x2, y2),
            action,
            label,
            int(self.frame[row]) if self.video[row] else None,
            time_s if np.isfinite(time_s) else None,
            self.hashes.get(name, ""),
            by,
            now(),
            origin,
        )

    def same_image(self, row: int) -> Array:
        """Rows of all faces of the same image or frame."""
        low, high = self._of_source(row)
        rows: Array = np.arange(low, high)[self.frame[low:high] == self.frame[row]]
        return rows

    def same_track(self, row: int) -> Array:
        """Rows of the same person; the row alone where nobody was followed."""
        if self.track[row] < 0:
            return np.array([row])
        low, high = self._of_source(row)
        rows: Array = np.arange(low, high)[self.track[low:high] == self.track[row]]
        return rows

    def _of_source(self, row: int) -> tuple[int, int]:
        """Neighbouring rows of the same source; a data set has those of one camera and day together."""
        here = self.source[row]
        # Sources are in runs; a run is found by doubling, without looking at a million rows.
        low, high = row, row + 1
        step = 64
        while low > 0 and self.source[max(0, low - step)] == here and self.source[low - 1] == here:
            low = max(0, low - step)
            step *= 2
        while low > 0 and self.source[low - 1] == here:
            low -= 1
        step = 64
        while high < len(self) and self.source[high] == here and self.source[min(len(self), high + step) - 1] == here:
            high = min(len(self), high + step)
            step *= 2
        while high < len(self) and self.source[high] == here:
            high += 1
        return low, high


def read_faces(reader: ResultReader) -> FaceTable:
    """Read a result. Raises UsageError where it is none."""
    task = reader.task
    headline = f"p_{task.headline}"
    parts: dict[str, list[Array]] = {}
    sources, cameras = _Names(), _Names()
    for table in reader.tables((*_COLUMNS, headline)):
        columns = {
            "source": sources.codes(table["source"]),
            "camera": cameras.codes(table["camera"]),
            "video": np.asarray(pc.equal(table["media"].cast(pa.string()), "video")),
            "frame": _ints(table["frame"]),
            "time_s": _floats(table["time_s"]),
            "captured": _ints(table["captured_at"].cast(pa.int64()), NO_TIME),
            "boxes": np.stack([to_numpy(table[name]) for name in ("x1", "y1", "x2", "y2")], axis=1),
            "label": _label_codes(table["label"], task),
            "confidence": to_numpy(table["confidence"]),
            "headline": to_numpy(table[headline]),
            "score": to_numpy(table["score"]),
            "sharpness": to_numpy(table["sharpness"]),
            "track": _ints(table["track"]),
        }
        for name, values in columns.items():
            parts.setdefault(name, []).append(values)
    if not parts:
        parts = {name: [np.empty((0, 4) if name == "boxes" else 0, kind)] for name, kind in _EMPTY.items()}
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    count = len(joined["label"])
    return FaceTable(
        task, sources.names, cameras.names, decided=np.zeros(count, np.uint8), hashes=reader.hashes(), **joined
    )


_EMPTY = {
    "source": np.int32,
    "camera": np.int32,
    "video": np.bool_,
    "frame": np.int64,
    "time_s": np.float64,
    "captured": np.int64,
    "boxes": np.float32,
    "label": np.uint8,
    "confidence": np.float32,
    "headline": np.float32,
    "score": np.float32,
    "sharpness": np.float32,
    "track": np.int64,
}


class _Names:
    """Strings as numbers, over all pieces of a result."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._codes: dict[str, int] = {}

    def codes(self, column: pa.ChunkedArray) -> Array:
        encoded = column.cast(pa.string()).combine_chunks().fill_null("").dictionary_encode()
        known = []
        for name in encoded.dictionary.to_pylist():
            if name not in self._codes:
                self._codes[name] = len(self.names)
                self.names.append(name)
            known.append(self._codes[name])
        table = np.array(known, np.int32)
        codes: Array = table[encoded.indices.to_numpy(zero_copy_only=False)] if known else np.empty(0, np.int32)
        return codes


def _ints(column: pa.ChunkedArray, missing: int = -1) -> Array:
    return np.asarray(column.combine_chunks().fill_null(missing).to_numpy(zero_copy_only=False), np.int64)


def _floats(column: pa.ChunkedArray) -> Array:
    return np.asarray(column.combine_chunks().to_numpy(zero_copy_only=False), np.float64)


def _label_codes(column: pa.ChunkedArray, task: Task) -> Array:
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    table = np.array([task.labels.index(name) for name in encoded.dictionary.to_pylist()], np.uint8)
    codes: Array = table[encoded.indices.to_numpy(zero_copy_only=False)] if len(table) else np.empty(0, np.uint8)
    return codes


class Decisions:
    """What was decided, in the log and in the table; nothing counts before it is on the disk.

    Args:
        faces: `decided` is kept up to date.
        path: of the log.
        by: who decides here.
        origin: of the decisions made here. In an audit only answers of audits count: others were given with the model's answer in sight.
    """

    def __init__(self, faces: FaceTable, path: Path, by: str = "", origin: str = "review") -> None:
        self._faces = faces
        self._log = CorrectionLog(path)
        self._by = by
        self._origin = origin
        self._undoable: list[list[Correction]] = []
        self.drawn: list[Correction] = []
        """Faces that people drew."""
        self.checked: set[tuple[str, int | None]] = set()
        """Images (source and frame) that somebody looked at as a whole."""
        self.reload()

    def reload(self) -> None:
        """Take in what is in the log, also what others added."""
        records = self._log.read()
        if self._origin.startswith("audit"):
            records = [record for record in records if record.origin.startswith("audit")]
        corrections = Corrections.of(records).renamed(self._faces.hashes)
        self._faces.decided[:] = NO_DECISION
        for row, decision in corrections.rows(self._faces):
            self._faces.decided[row] = self._value(decision.action, decision.label)
        self.drawn = corrections.missed(self._faces.task.labels)
        self.checked = {(record.source, record.frame) for record in records if record.action == "checked"}

    def decide(self, rows: Sequence[int], action: Action, label: str = "") -> None:
        """Label faces, or say that they are none. Raises UsageError, OutputError; then nothing changed."""
        value = self._value(action, label)
        batch = [self._faces.correction(row, action, label, self._by, self._origin) for row in rows]
        self._log.append(batch)
        self._undoable.append(batch)
        self._faces.decided[np.asarray(rows, np.int64)] = value

    def check(self, image: Correction) -> None:
        """Note that all of an image was looked at."""
        self._log.append([image])
        self.checked.add((image.source, image.frame))

    def sign(self, decision: Correction) -> Correction:
        """A decision with who decides here, when, and where."""
        return dataclasses.replace(decision, by=self._by, at=now(), origin=self._origin)

    def draw(self, face: Correction) -> None:
        """Add a face that was not found."""
        self._log.append([face])
        self._undoable.append([face])
        self.drawn.append(face)

    def undo(self) -> int:
        """Take back the last decision that was made here, on one or many faces; how many it were."""
        if not self._undoable:
            return 0
        batch = self._undoable[-1]
        self._log.append([dataclasses.replace(item, action="undo", label="", at=now()) for item in batch])
        self._undoable.pop()
        self.reload()
        return len(batch)

    def _value(self, action: Action, label: str) -> int:
        return NOT_A_FACE if action == "not_a_face" else self._faces.task.labels.index(label) + 1
