"""Rows as they grow: columns in memory, a Parquet part at the end."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskbatch.results.columns import flags, numbers
from maskbatch.results.schema import part_schema
from maskbatch.tasks import Task
from maskbatch.types import Detections, Floats, Frame, Image


class RowBuffer:
    """The faces of one unit, in the order in which they were found; probabilities follow later, in the same order."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._frames: list[int | None] = []
        self._times: list[float | None] = []
        self._faces: list[int] = []
        self._boxes: list[Floats] = []
        self._scores: list[Floats] = []
        self._landmarks: list[Floats] = []
        self._sharpness: list[float] = []
        self._probabilities: list[Floats] = []

    def add(self, frame: Frame, found: Detections, crops: Image) -> None:
        """Add the faces of one frame.

        Args:
            frame: where they were found.
            found: n faces in pixels of the original image.
            crops: n×S×S×3 uint8 BGR, the same faces.
        """
        count = len(found)
        self._frames.extend([frame.ordinal] * count)
        self._times.extend([frame.time_s] * count)
        self._faces.extend(range(count))
        self._boxes.append(found.boxes)
        self._scores.append(found.scores)
        landmarks = (
            np.full((count, 10), np.nan, np.float32) if found.landmarks is None else found.landmarks.reshape(count, 10)
        )
        self._landmarks.append(landmarks)
        self._sharpness.extend(sharpness(crop) for crop in crops)

    def add_probabilities(self, probabilities: Floats) -> None:
        """The classifier's n×k outputs for the next n faces."""
        self._probabilities.append(probabilities)

    def labels(self) -> dict[str, int]:
        """Faces per label."""
        if not self._probabilities:
            return {}
        counts = np.bincount(np.concatenate(self._probabilities).argmax(axis=1), minlength=len(self._task.labels))
        return {label: int(count) for label, count in zip(self._task.labels, counts, strict=True)}

    def to_parquet(self, faces_per_piece: list[int]) -> tuple[bytes, int]:
        """The part file and its number of rows (no bytes for no rows).

        Args:
            faces_per_piece: checked against the rows, since the receipt's offsets depend on it.
        """
        count = len(self._faces)
        if sum(faces_per_piece) != count or sum(len(chunk) for chunk in self._probabilities) != count:
            raise RuntimeError(f"{count} rows, {sum(faces_per_piece)} faces counted, or not all classified")
        if not count:
            return b"", 0
        boxes, scores = np.concatenate(self._boxes), np.concatenate(self._scores)
        landmarks, probabilities = np.concatenate(self._landmarks), np.concatenate(self._probabilities)
        missing = np.isnan(landmarks[:, 0])
        columns = [
            numbers(self._frames, pa.int64()),
            numbers(self._times, pa.float64()),
            numbers(np.array(self._faces), pa.int32()),
            *[numbers(boxes[:, i], pa.float32()) for i in range(4)],
            numbers(scores, pa.float32()),
            pa.FixedSizeListArray.from_arrays(
                numbers(landmarks.reshape(-1), pa.float32()), 10, mask=flags(missing) if missing.any() else None
            ),
            *[numbers(probabilities[:, i], pa.float32()) for i in range(len(self._task.labels))],
            numbers(np.array(self._sharpness), pa.float32()),
        ]
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_arrays(columns, schema=part_schema(self._task)), sink, compression="zstd")
        return sink.getvalue(), count


def sharpness(crop: Image) -> float:
    """Variance of the Laplacian of the grey crop: large for a sharp face, near 0 for a blurred one."""
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
    deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))[1]
    return float(deviation[0, 0]) ** 2
