"""YuNet (Wu, Peng and Yu, 2023): anchor-free, one prediction per cell at strides 8, 16 and 32.

Decoded as OpenCV's ``FaceDetectorYN`` does, which a test compares it with: score is the geometric mean of class and
objectness, a box is an offset from the cell's corner and a log size, both in units of the stride.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskbatch.detect.base import Array, Candidates, DetectorFamily, LetterboxDetector, Preparation
from maskbatch.detect.letterbox import Bucket
from maskbatch.errors import ModelError
from maskbatch.types import Session

STRIDES = (8, 16, 32)
_NMS_IOU = 0.3  # as in FaceDetectorYN


class YuNetReader:
    """Reads ``cls_S``, ``obj_S`` N×C×1, ``bbox_S`` N×C×4 and ``kps_S`` N×C×10 for each stride S."""

    def __init__(self, outputs: tuple[str, ...]) -> None:
        self._index = {
            (kind, stride): outputs.index(f"{kind}_{stride}")
            for kind in ("cls", "obj", "bbox", "kps")
            for stride in STRIDES
        }

    def __call__(self, outputs: Sequence[Array], row: int, bucket: Bucket, min_score: float) -> Candidates:
        boxes, scores, points = [], [], []
        for stride in STRIDES:
            classes = outputs[self._index["cls", stride]][row, :, 0].clip(0, 1)
            objects = outputs[self._index["obj", stride]][row, :, 0].clip(0, 1)
            score = np.sqrt(classes * objects)
            chosen = np.flatnonzero(score >= min_score)
            columns = bucket.width // stride
            corner = np.stack([chosen % columns, chosen // columns], axis=1).astype(np.float32)
            raw = outputs[self._index["bbox", stride]][row, chosen]
            middle = (corner + raw[:, :2]) * stride
            half = np.exp(np.minimum(raw[:, 2:], np.float32(10))) * (stride / 2)
            boxes.append(np.concatenate([middle - half, middle + half], axis=1))
            scores.append(score[chosen])
            shifts = outputs[self._index["kps", stride]][row, chosen].reshape(-1, 5, 2)
            points.append((shifts + corner[:, None]) * stride)
        return Candidates(
            np.concatenate(boxes).astype(np.float32, copy=False),
            np.concatenate(scores).astype(np.float32, copy=False),
            np.concatenate(points).astype(np.float32, copy=False),
        )


def make_yunet(name: str, session: Session, buckets: tuple[Bucket, ...], min_score: float) -> LetterboxDetector:
    """YuNet over a loaded file.

    Raises:
        ModelError: the file has other outputs.
    """
    try:
        reader = YuNetReader(session.outputs)
    except ValueError as error:
        raise ModelError(f"model {name} is not a YuNet ({error}): choose another file") from None
    return LetterboxDetector(
        name, session, reader, buckets, min_score=min_score, nms_iou=_NMS_IOU, preparation=Preparation("NCHW")
    )


YUNET = DetectorFamily("yunet", lambda outputs: {"cls_8", "obj_8"} <= set(outputs), make_yunet)
