"""Average precision and the matching behind it, in NumPy; used by ``maskbatch evaluate`` and by the training package in ``export/``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def box_overlaps(first: Floats, second: Floats, over_first: bool = False) -> NDArray[np.float64]:
    """Intersection over union of every pair of boxes.

    Args:
        first: ``(n, 4)`` boxes x1 y1 x2 y2.
        second: ``(m, 4)`` boxes.
        over_first: divide by the area of ``first`` alone, for regions in which detections do not count.

    Returns:
        ``(n, m)`` float64; 0 where a box is empty.
    """
    a = np.asarray(first, np.float64).reshape(-1, 4)
    b = np.asarray(second, np.float64).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), -1)
    areas_a = np.prod(np.clip(a[:, 2:] - a[:, :2], 0, None), -1)
    areas_b = np.prod(np.clip(b[:, 2:] - b[:, :2], 0, None), -1)
    whole = areas_a[:, None] + (0.0 if over_first else areas_b[None, :] - common)
    overlaps: NDArray[np.float64] = np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
    return overlaps


@dataclass(frozen=True)
class Match:
    """What became of the detections of one image at one IoU threshold.

    Attributes:
        scores: ``(n,)`` scores of the detections that count, highest first.
        correct: ``(n,)`` whether each found a face.
        truth: ``(n,)`` index of the face it found, -1 if none.
        found: ``(m,)`` score with which each face was found, 0 where it was missed.
        faces: number of faces that count.
        kept: ``(n,)`` index of each detection that counts among those that were given.
    """

    scores: NDArray[np.float64]
    correct: NDArray[np.bool_]
    truth: NDArray[np.int64]
    found: NDArray[np.float64]
    faces: int
    kept: NDArray[np.int64]


def match(
    boxes: Floats,
    scores: Floats,
    truth: Floats,
    ignored: NDArray[np.bool_] | None = None,
    iou: float = 0.5,
) -> Match:
    """Match the detections of one image to its faces: by falling score, each to the free face it overlaps most.

    Faces marked ``ignored`` need not be found, and a detection that finds one, or lies at least half inside one, does not count.

    Args:
        boxes: ``(n, 4)`` detections x1 y1 x2 y2.
        scores: ``(n,)``.
        truth: ``(m, 4)`` faces.
        ignored: ``(m,)`` faces that do not count; none if missing.
        iou: least overlap of a detection with the face it finds.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    scores = np.asarray(scores, np.float64).reshape(-1)
    truth = np.asarray(truth, np.float64).reshape(-1, 4)
    skip = np.zeros(len(truth), bool) if ignored is None else np.asarray(ignored, bool)
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    overlaps = box_overlaps(boxes, truth)
    inside = box_overlaps(boxes, truth[skip], over_first=True).max(1, initial=0.0) >= 0.5
    free = np.ones(len(truth), bool)
    found = np.zeros(len(truth), np.float64)
    counts = np.ones(len(boxes), bool)
    which = np.full(len(boxes), -1, np.int64)
    for i, row in enumerate(overlaps):
        for candidates in (free & ~skip, free & skip):
            usable = np.where(candidates, row, -1.0)
            best = int(usable.argmax()) if len(usable) else -1
            if best >= 0 and usable[best] >= iou:
                free[best] = False
                if skip[best]:
                    counts[i] = False
                else:
                    which[i], found[best] = best, scores[i]
                break
        else:
            counts[i] = not inside[i]
    return Match(scores[counts], which[counts] >= 0, which[counts], found, int((~skip).sum()), order[counts])


@dataclass(frozen=True)
class Curve:
    """Precision and recall at every detection, by falling score: ``(n,)`` each."""

    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def precision_recall(matches: Sequence[Match]) -> Curve:
    """The curve over all images; detections of equal score keep the order of the images."""
    scores = np.concatenate([m.scores for m in matches] or [np.zeros(0)])
    correct = np.concatenate([m.correct for m in matches] or [np.zeros(0, bool)])
    faces = sum(m.faces for m in matches)
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(correct[order])
    return Curve(
        scores=scores[order],
        precision=hits / np.arange(1, len(hits) + 1),
        recall=hits / faces if faces else np.full(len(hits), np.nan),
    )


def average_precision(matches: Sequence[Match]) -> float:
    """Area under the precision-recall curve, all points, precision made falling (Pascal VOC 2010 and later). NaN without faces."""
    if not sum(m.faces for m in matches):
        return float("nan")
    curve = precision_recall(matches)
    precision = np.maximum.accumulate(curve.precision[::-1])[::-1]
    return float(np.sum(np.diff(curve.recall, prepend=0.0) * precision))
