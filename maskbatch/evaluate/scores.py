"""From detections and truth to figures: average precision, recall by size and class, mAP over the classes, confusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from maskbatch.evaluate.metrics import Curve, Match, average_precision, match, precision_recall
from maskbatch.evaluate.run import FLOOR, Run
from maskbatch.evaluate.truth import UNKNOWN, Truth
from maskbatch.tasks.mask import LABELS

SIZE_BINS = (0, 10, 20, 40, 80, math.inf)
"""Edges of the size classes: square root of a face's area, in pixels of the detector's input (long side `det_size`)."""

_STRICT = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
_OTHERS = ("missed", "no face")


@dataclass(frozen=True, slots=True)
class Share:
    """Hits out of a total."""

    hits: int
    total: int

    @property
    def rate(self) -> float:
        return self.hits / self.total if self.total else math.nan

    def as_dict(self) -> dict[str, float | int | None]:
        return {"hits": self.hits, "total": self.total, "rate": None if not self.total else self.rate}


@dataclass(frozen=True, slots=True)
class Scores:
    """How one detector did.

    Attributes:
        name: of the detector.
        ap: average precision by IoU: ``0.35``, ``0.5`` and ``0.5:0.95`` (mean over ten).
        ms: median milliseconds per image.
        operating_score: least score with which it gives at most the allowed false detections per image.
        recall: faces found at `operating_score`, IoU .5.
        recall_by_size: the same by size class.
        recall_by_class: the same by class.
        scan: recall and precision at the score that a scan uses.
        class_ap: end to end, AP@.5 of each class; empty without a classifier.
        confusion: rows: the true class, then ``no face``; columns: the class given, then ``missed``; at the score
            that a scan uses.
        curve: precision and recall at IoU .5.
        matches: per image, at IoU .5.
        labels: of the classifier.
    """

    name: str
    ap: dict[str, float]
    ms: float
    operating_score: float
    recall: Share
    recall_by_size: dict[str, Share]
    recall_by_class: dict[str, Share]
    scan: dict[str, float]
    curve: Curve
    matches: list[Match]
    class_ap: dict[str, float] = field(default_factory=dict)
    confusion: npt.NDArray[np.int64] | None = None
    labels: tuple[str, ...] = LABELS

    @property
    def mean_ap(self) -> float:
        """Mean over the classes of AP@.5; NaN without a classifier or where a class has no faces."""
        return float(np.mean(list(self.class_ap.values()))) if self.class_ap else math.nan

    def as_dict(self) -> dict[str, object]:
        """For JSON; NaN becomes null."""
        return {
            "detector": self.name,
            "ap": {key: _finite(value) for key, value in self.ap.items()},
            "ms_per_picture_median": self.ms,
            "operating_score": self.operating_score,
            "recall": self.recall.as_dict(),
            "recall_by_size": {key: share.as_dict() for key, share in self.recall_by_size.items()},
            "recall_by_class": {key: share.as_dict() for key, share in self.recall_by_class.items()},
            "scan": {key: _finite(value) for key, value in self.scan.items()},
            "class_ap50": {key: _finite(value) for key, value in self.class_ap.items()},
            "map50": _finite(self.mean_ap),
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "confusion_rows": [*self.labels, _OTHERS[1]],
            "confusion_columns": [*self.labels, _OTHERS[0]],
        }


def score_run(
    run: Run,
    truths: Sequence[Truth],
    scales: Sequence[float],
    min_score: float,
    false_per_picture: float,
    labels: tuple[str, ...] = LABELS,
) -> Scores:
    """All figures of one detector.

    Args:
        run: what it found.
        truths: what there was.
        scales: pixels of the detector's input per pixel of each image.
        min_score: least score that a scan keeps.
        false_per_picture: false detections per image at which recall is compared, so that detectors whose scores mean
            different things are held to the same number of false alarms.
        labels: into which the truth's and the classifier's indices point.
    """
    by_iou = {iou: _matches(run, truths, iou) for iou in (0.35, *_STRICT)}
    matches = by_iou[0.5]
    curve = precision_recall(matches)
    least = operating_score(curve, false_per_picture * len(truths))
    hit = np.concatenate([m.found >= least for m in matches])
    counts = ~np.concatenate([truth.ignored for truth in truths])
    size = np.concatenate([_sides(truth) * scale for truth, scale in zip(truths, scales, strict=True)])
    label = np.concatenate([truth.labels for truth in truths])
    ap = {iou: average_precision(found) for iou, found in by_iou.items()}
    class_ap, confusion = ({}, None) if not run.probabilities else end_to_end(run, truths, min_score, labels)
    return Scores(
        name=run.name,
        ap={"0.35": ap[0.35], "0.5": ap[0.5], "0.5:0.95": float(np.mean([ap[iou] for iou in _STRICT]))},
        ms=float(np.median(run.ms)) if run.ms else math.nan,
        operating_score=least,
        recall=_share(hit, counts),
        recall_by_size={
            size_name(low, high): _share(hit, counts & (size >= low) & (size < high))
            for low, high in pairwise(SIZE_BINS)
        },
        recall_by_class={
            name: _share(hit, counts & (label == index))
            for index, name in enumerate(labels)
            if (counts & (label == index)).any()
        },
        scan=_at_score(matches, min_score),
        curve=curve,
        matches=matches,
        class_ap=class_ap,
        confusion=confusion,
        labels=labels,
    )


def operating_score(curve: Curve, false_allowed: float) -> float:
    """Least score at which there are no more false detections than allowed; the floor where even all are not too many."""
    if not len(curve.scores):
        return FLOOR
    false = np.arange(1, len(curve.scores) + 1) * (1 - curve.precision)
    usable = np.flatnonzero(false <= false_allowed + 1e-9)
    return float(curve.scores[usable[-1]]) if len(usable) else float(np.nextafter(curve.scores[0], np.inf))


def end_to_end(
    run: Run, truths: Sequence[Truth], min_score: float, names: tuple[str, ...] = LABELS
) -> tuple[dict[str, float], npt.NDArray[np.int64] | None]:
    """AP@.5 of each class, and the confusion matrix.

    A detection has one class, the likeliest, as in a scan's table; it is ranked by detector score times that class's
    probability. Faces of unknown class are left out of both. Without one face of known class there is neither.
    """
    labels = [p.argmax(axis=1) for p in run.probabilities]
    classified = [faces.select(np.arange(len(given))) for faces, given in zip(run.found, labels, strict=True)]
    known = [truth.ignored | (truth.labels == UNKNOWN) for truth in truths]
    if all(skip.all() for skip in known):
        return {}, None
    class_ap: dict[str, float] = {}
    for index, name in enumerate(names):
        matches = []
        for truth, skip, faces, given, p in zip(truths, known, classified, labels, run.probabilities, strict=True):
            mine = given == index
            wanted = (truth.labels == index) | skip
            ranked = faces.scores[mine] * p[mine, index]
            matches.append(match(faces.boxes[mine], ranked, truth.boxes[wanted], skip[wanted], 0.5))
        if sum(m.faces for m in matches):
            class_ap[name] = average_precision(matches)
    confusion = np.zeros((len(names) + 1, len(names) + 1), np.int64)
    for truth, skip, faces, given in zip(truths, known, classified, labels, strict=True):
        kept = np.flatnonzero(faces.scores >= min_score)  # already best first
        found = match(faces.boxes[kept], faces.scores[kept], truth.boxes, skip, 0.5)
        ours = given[kept][found.kept]
        for label, which in zip(ours, found.truth, strict=True):
            confusion[truth.labels[which] if which >= 0 else len(names), label] += 1
        missed = np.setdiff1d(np.flatnonzero(~skip), found.truth)
        confusion[:, len(names)] += np.bincount(truth.labels[missed], minlength=len(names) + 1)
    return class_ap, confusion


def size_name(low: float, high: float) -> str:
    """``10–20 px``, ``80+ px``."""
    return f"{low:g}+ px" if math.isinf(high) else f"{low:g}–{high:g} px"


def _matches(run: Run, truths: Sequence[Truth], iou: float) -> list[Match]:
    return [
        match(faces.boxes, faces.scores, truth.boxes, truth.ignored, iou)
        for faces, truth in zip(run.found, truths, strict=True)
    ]


def _sides(truth: Truth) -> npt.NDArray[np.float64]:
    widths = np.clip(truth.boxes[:, 2:] - truth.boxes[:, :2], 0, None).astype(np.float64)
    sides: npt.NDArray[np.float64] = np.sqrt(widths.prod(axis=1))
    return sides


def _share(hit: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> Share:
    return Share(int((hit & among).sum()), int(among.sum()))


def _at_score(matches: Sequence[Match], min_score: float) -> dict[str, float]:
    correct = sum(int((m.correct & (m.scores >= min_score)).sum()) for m in matches)
    given = sum(int((m.scores >= min_score).sum()) for m in matches)
    faces = sum(m.faces for m in matches)
    return {
        "min_score": min_score,
        "recall": correct / faces if faces else math.nan,
        "precision": correct / given if given else math.nan,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
