"""CenterFace (Xu et al., 2019): a heat map of face centres at stride 4, with log sizes, offsets and five landmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskbatch.detect.base import Array, Candidates, DetectorFamily, LetterboxDetector, Preparation
from maskbatch.detect.letterbox import Bucket
from maskbatch.errors import ModelError
from maskbatch.types import Session

STRIDE = 4
_NMS_IOU = 0.3  # as in the authors' code


def read_centerface(outputs: Sequence[Array], row: int, bucket: Bucket, min_score: float) -> Candidates:
    """Candidates of one row; see `maskbatch.detect.base.Reader`. Maps are N×C×H/4×W/4; height comes before width in them."""
    heat, sizes, offsets, points = (output[row] for output in outputs)
    rows, columns = np.nonzero(heat[0] >= min_score)
    size = np.exp(np.minimum(sizes[:, rows, columns], np.float32(10))) * STRIDE
    middle_y = (rows + offsets[0, rows, columns] + 0.5) * STRIDE
    middle_x = (columns + offsets[1, rows, columns] + 0.5) * STRIDE
    x1, y1 = middle_x - size[1] / 2, middle_y - size[0] / 2
    shifts = points[:, rows, columns].reshape(5, 2, -1)
    landmarks = np.stack([shifts[:, 1] * size[1] + x1, shifts[:, 0] * size[0] + y1], axis=-1)
    return Candidates(
        np.stack([x1, y1, x1 + size[1], y1 + size[0]], axis=1).astype(np.float32),
        heat[0, rows, columns].astype(np.float32),
        landmarks.transpose(1, 0, 2).astype(np.float32),
    )


def make_centerface(name: str, session: Session, buckets: tuple[Bucket, ...], min_score: float) -> LetterboxDetector:
    """CenterFace over a loaded file.

    Raises:
        ModelError: the file has another number of outputs.
    """
    if len(session.outputs) != 4:
        raise ModelError(
            f"model {name} is not a CenterFace: it has {len(session.outputs)} outputs, not 4; choose another file"
        )
    return LetterboxDetector(
        name,
        session,
        read_centerface,
        buckets,
        min_score=min_score,
        nms_iou=_NMS_IOU,
        preparation=Preparation("NCHW", rgb=True),
    )


CENTERFACE = DetectorFamily("centerface", lambda outputs: len(outputs) == 4, make_centerface, free_shapes=True)
