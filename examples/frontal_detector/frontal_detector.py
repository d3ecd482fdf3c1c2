"""A detector family of our own: RetinaFace, but only faces that look at the camera.

A family says how the outputs of its ONNX files are read. Here the reading is that of maskbatch's RetinaFace, and of what it proposes
only those faces stay whose nose lies between the eyes: compliance of people who walk away cannot be judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from maskbatch.detect.base import Array, Candidates, DetectorFamily, LetterboxDetector, Reader
from maskbatch.detect.letterbox import Bucket
from maskbatch.detect.retinaface import make_retinaface
from maskbatch.types import Session

LEAST_BALANCE = 0.3
"""Distance of the nose to the nearer eye over that to the farther one, along the line of the eyes; 1 is straight ahead."""


def frontal(candidates: Candidates) -> Candidates:
    """The candidates that look at the camera."""
    if candidates.landmarks is None:
        return candidates
    left, right, nose = (candidates.landmarks[:, index] for index in range(3))
    across = right - left
    length = np.maximum(np.linalg.norm(across, axis=1), 1e-6)
    along = ((nose - left) * across).sum(axis=1) / length**2  # 0 at the left eye, 1 at the right one
    balance = np.minimum(along, 1 - along) / np.maximum(np.maximum(along, 1 - along), 1e-6)
    keep = balance >= LEAST_BALANCE
    return replace(
        candidates,
        boxes=candidates.boxes[keep],
        scores=candidates.scores[keep],
        landmarks=candidates.landmarks[keep],
    )


class FrontalReader:
    """Reads what another reader reads, and drops profiles."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __call__(self, outputs: Sequence[Array], row: int, bucket: Bucket, min_score: float) -> Candidates:
        return frontal(self._reader(outputs, row, bucket, min_score))


def make_frontal(name: str, session: Session, buckets: tuple[Bucket, ...], min_score: float) -> LetterboxDetector:
    """RetinaFace over a loaded file, reading frontal faces only."""
    return make_retinaface(name, session, buckets, min_score).with_reader(FrontalReader)


FAMILY = DetectorFamily("frontal", lambda _outputs: False, make_frontal, layout="NHWC")
