"""The whole evaluation, and how it is shown: a dictionary for JSON, Markdown tables for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from maskbatch.classify.classifier import FaceClassifier
from maskbatch.config import DET_SIZE, MIN_SCORE
from maskbatch.evaluate.compare import DetectorComparison, Interval, Resampling, compare, interval
from maskbatch.evaluate.run import PictureDetector, Run, run_detectors
from maskbatch.evaluate.scores import Scores, Share, score_run
from maskbatch.evaluate.truth import Truth
from maskbatch.tasks.mask import LABELS
from maskbatch.web.tables import markdown_table


@dataclass(frozen=True, slots=True)
class Rules:
    """What an evaluation is told.

    Attributes:
        det_size: long side of the detectors' input; face sizes are given at that scale.
        min_score: least score that a scan keeps: for the confusion matrix, and recall and precision "as in a scan".
        false_per_picture: false alarms at which recall is compared.
        draws: of the bootstrap.
        seed: of the bootstrap.
        batch_size: images per detector call.
    """

    det_size: int = DET_SIZE
    min_score: float = MIN_SCORE
    false_per_picture: float = 1.0
    draws: int = 1000
    seed: int = 0
    batch_size: int = 1


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The outcome.

    Attributes:
        setting: what was asked, machine and models, as it goes into the JSON.
        rules: as given.
        truths: the images.
        runs: what each detector found.
        scores: one per detector.
        intervals: 95 % interval of AP@.5 per detector.
        comparisons: every pair of detectors.
    """

    setting: dict[str, object]
    rules: Rules
    truths: list[Truth]
    runs: list[Run]
    scores: list[Scores]
    intervals: list[Interval]
    comparisons: list[DetectorComparison]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "setting": self.setting,
            "pictures": len(self.truths),
            "faces": self.faces,
            "detectors": [
                {**scores.as_dict(), "ap50_95": [around.low, around.high]}
                for scores, around in zip(self.scores, self.intervals, strict=True)
            ],
            "comparisons": [comparison.as_dict() for comparison in self.comparisons],
        }

    @property
    def faces(self) -> int:
        """Faces that count."""
        return sum(int((~truth.ignored).sum()) for truth in self.truths)


def evaluate(
    truths: list[Truth],
    detectors: Sequence[PictureDetector],
    classifier: FaceClassifier | None,
    rules: Rules,
    setting: dict[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run, score and compare detectors on annotated images.

    Raises:
        UsageError: an image cannot be read.
    """
    runs, sizes = run_detectors(truths, detectors, classifier, progress, rules.batch_size, rules.min_score)
    scales = [rules.det_size / max(size) for size in sizes]
    labels = LABELS if classifier is None else classifier.labels
    scores = [score_run(run, truths, scales, rules.min_score, rules.false_per_picture, labels) for run in runs]
    resampling = Resampling(len(truths), rules.draws, rules.seed)
    draws = [resampling.average_precision(one.matches) for one in scores]
    counted = ~np.concatenate([truth.ignored for truth in truths])
    comparisons = [
        compare(scores[i], scores[j], draws[i], draws[j], counted) for i, j in combinations(range(len(scores)), 2)
    ]
    intervals = [interval(one.ap["0.5"], drawn) for one, drawn in zip(scores, draws, strict=True)]
    return Evaluation(setting or {}, rules, truths, runs, scores, intervals, comparisons)


def markdown(found: Evaluation) -> str:
    """All tables."""
    rules = found.rules
    parts = [
        f"{len(found.truths)} images, {found.faces} faces; detector input {rules.det_size} px (long side); "
        f"AP with its 95 % bootstrap interval; recall at {rules.false_per_picture:g} false per image, IoU .5; "
        "face size is the square root of its area at the detector's scale; ms: median per image, detectors taking turns.",
        _detection_table(found),
        _size_table(found),
    ]
    if any(scores.recall_by_class for scores in found.scores):
        parts.append(_class_table(found))
    parts += [_confusion_table(scores, rules.min_score) for scores in found.scores if scores.confusion is not None]
    if found.comparisons:
        parts.append("\n".join(f"- {comparison.sentence()}" for comparison in found.comparisons))
    return "\n\n".join(parts) + "\n"


def _detection_table(found: Evaluation) -> str:
    head = ("detector", "AP@.35", "AP@.5", "95 %", "AP@[.5:.95]", "recall", "mAP@.5 over classes", "ms")
    rows = [
        (
            scores.name,
            _number(scores.ap["0.35"]),
            _number(scores.ap["0.5"]),
            f"{_number(around.low)}–{_number(around.high)}",
            _number(scores.ap["0.5:0.95"]),
            _number(scores.recall.rate),
            _number(scores.mean_ap),
            f"{scores.ms:.1f}",
        )
        for scores, around in zip(found.scores, found.intervals, strict=True)
    ]
    return markdown_table(head, rows)


def _size_table(found: Evaluation) -> str:
    names = list(found.scores[0].recall_by_size)
    head = ("recall by face size", *(f"{name} ({found.scores[0].recall_by_size[name].total})" for name in names))
    return markdown_table(head, [(s.name, *(_rate(s.recall_by_size[name]) for name in names)) for s in found.scores])


def _class_table(found: Evaluation) -> str:
    names = list(found.scores[0].recall_by_class)
    head = ("recall and AP@.5 by class", *(f"{name} ({found.scores[0].recall_by_class[name].total})" for name in names))
    rows = []
    for scores in found.scores:
        cells = [
            f"{_rate(scores.recall_by_class[name])} / {_number(scores.class_ap.get(name, math.nan))}" for name in names
        ]
        rows.append((scores.name, *cells))
    return markdown_table(head, rows)


def _confusion_table(scores: Scores, min_score: float) -> str:
    assert scores.confusion is not None
    head = (f"{scores.name}, score ≥ {min_score:g}: true ↓ predicted →", *scores.labels, "missed")
    names = (*scores.labels, "no face")
    rows = [(name, *map(str, row.tolist())) for name, row in zip(names, scores.confusion, strict=True)]
    return markdown_table(head, rows)


def _rate(share: Share) -> str:
    return _number(share.rate)


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"
