"""SCRFD (Guo et al., 2021), as insightface's model packs hold it: distances from cell centres to the four sides.

Outputs come in the order scores, boxes, landmarks, each for the strides 8, 16 and 32; files without landmarks have six
outputs. Some files drop the batch axis, some have a fixed shape; both are honoured.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskbatch.detect.base import Array, Candidates, DetectorFamily, LetterboxDetector, Preparation
from maskbatch.detect.letterbox import Bucket
from maskbatch.errors import ModelError
from maskbatch.types import Session

STRIDES = (8, 16, 32)
_CELL_ANCHORS = 2
_NMS_IOU = 0.4  # as in insightface


def read_scrfd(outputs: Sequence[Array], row: int, bucket: Bucket, min_score: float) -> Candidates:
    """Candidates of one row; see `maskbatch.detect.base.Reader`."""
    has_points = len(outputs) == 9
    boxes, scores, points = [], [], []
    for level, stride in enumerate(STRIDES):
        score = _row(outputs[level], row)[:, 0]
        chosen = np.flatnonzero(score >= min_score)
        columns = bucket.width // stride
        cell = chosen // _CELL_ANCHORS
        middle = np.stack([cell % columns, cell // columns], axis=1).astype(np.float32) * stride
        sides = _row(outputs[level + 3], row)[chosen] * stride
        boxes.append(np.concatenate([middle - sides[:, :2], middle + sides[:, 2:]], axis=1))
        scores.append(score[chosen])
        if has_points:
            shifts = _row(outputs[level + 6], row)[chosen].reshape(-1, 5, 2)
            points.append(middle[:, None] + shifts * stride)
    return Candidates(
        np.concatenate(boxes).astype(np.float32, copy=False),
        np.concatenate(scores).astype(np.float32, copy=False),
        np.concatenate(points).astype(np.float32, copy=False) if has_points else None,
    )


def _row(output: Array, row: int) -> Array:
    return output[row] if output.ndim == 3 else output


def make_scrfd(name: str, session: Session, buckets: tuple[Bucket, ...], min_score: float) -> LetterboxDetector:
    """SCRFD over a loaded file.

    Raises:
        ModelError: the file has another number of outputs.
    """
    count = len(session.outputs)
    if count not in (6, 9):
        raise ModelError(f"model {name} is not a SCRFD: it has {count} outputs, not 6 or 9; choose another file")
    return LetterboxDetector(
        name,
        session,
        read_scrfd,
        buckets,
        min_score=min_score,
        nms_iou=_NMS_IOU,
        has_landmarks=count == 9,
        preparation=Preparation("NCHW", mean=127.5, scale=1 / 128, rgb=True),
    )


SCRFD = DetectorFamily("scrfd", lambda outputs: len(outputs) in (6, 9), make_scrfd)
