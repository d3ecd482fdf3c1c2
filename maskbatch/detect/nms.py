"""Non-maximum suppression: of boxes that overlap, the best score stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from maskbatch.types import Floats

_MATRIX_UP_TO = 600
"""Boxes for which all pairs are compared at once; above, one row at a time, so that memory stays small."""


def nms(boxes: Floats, max_iou: float) -> npt.NDArray[np.intp]:
    """Greedy suppression.

    Args:
        boxes: n×4 float32, best first.
        max_iou: a box that overlaps a better, kept one by more than this goes.

    Returns:
        Indices of the boxes that stay, ascending (so still best first).
    """
    count = len(boxes)
    if count <= 1:
        return np.arange(count)
    if count > _MATRIX_UP_TO:
        return _by_rows(boxes, max_iou)
    overlaps = np.triu(iou_matrix(boxes, boxes) > max_iou, 1)
    alive = np.ones(count, np.bool_)
    # Only rows that overlap something can suppress anything.
    for row in np.flatnonzero(overlaps.any(axis=1)).tolist():
        if alive[row]:
            alive &= ~overlaps[row]
    return np.flatnonzero(alive)


def _by_rows(boxes: Floats, max_iou: float) -> npt.NDArray[np.intp]:
    left = np.arange(len(boxes))
    kept = []
    while len(left):
        best = left[0]
        kept.append(best)
        left = left[1:][iou_matrix(boxes[best : best + 1], boxes[left[1:]])[0] <= max_iou]
    return np.array(kept, np.intp)


def vote(kept: Floats, boxes: Floats, scores: Floats, min_iou: float) -> Floats:
    """Boxes moved to the mean of all that agree with them, weighted by score × overlap (Gidaris and Komodakis, 2015, section 5).

    Args:
        kept: k×4 float32, boxes that suppression has left, which are among `boxes`.
        boxes: n×4 float32, all candidates.
        scores: n, theirs.
        min_iou: candidates that overlap a kept box by this much have a vote in it; above 0.

    Returns:
        k×4 float32.
    """
    voted = kept.copy()
    # In portions, so that memory stays small where there are thousands of both.
    for start in range(0, len(kept), _MATRIX_UP_TO):
        overlaps = iou_matrix(kept[start : start + _MATRIX_UP_TO], boxes)
        weights = np.where(overlaps >= min_iou, overlaps * scores, 0).astype(np.float32)
        total = weights.sum(axis=1, keepdims=True)
        some = total[:, 0] > 0
        voted[start : start + _MATRIX_UP_TO][some] = (weights[some] @ boxes) / total[some]
    return voted


def iou_matrix(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Intersection over union of every pair: n×4 and m×4 boxes give n×m. Empty boxes overlap nothing."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = np.maximum(high - low, 0)
    inner = sides[..., 0] * sides[..., 1]
    areas = [np.maximum(b[:, 2] - b[:, 0], 0) * np.maximum(b[:, 3] - b[:, 1], 0) for b in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - inner
    ratio: npt.NDArray[Any] = np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)
    return ratio
