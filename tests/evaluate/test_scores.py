"""Figures from detections: against cases that can be worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskbatch.config import ModelSettings
from maskbatch.detect import make_detector
from maskbatch.evaluate.compare import Resampling, compare, interval, mcnemar
from maskbatch.evaluate.metrics import average_precision
from maskbatch.evaluate.run import FLOOR, Run, run_detectors
from maskbatch.evaluate.scores import SIZE_BINS, Scores, operating_score, score_run, size_name
from maskbatch.evaluate.truth import UNKNOWN, Truth
from maskbatch.runtime import resolve_device
from maskbatch.types import Detections

BOXES = np.array([[0, 0, 12, 12], [100, 0, 130, 30], [200, 0, 300, 100]], np.float32)


def truth(labels: tuple[int, ...] = (0, 1, 2), ignored: tuple[bool, ...] = (False, False, False)) -> Truth:
    return Truth("a.jpg", Path("a.jpg"), BOXES, np.array(labels), np.array(ignored))


def run(
    boxes: np.ndarray, scores: list[float], labels: list[int] | None = None, pictures: int = 1, name: str = "d"
) -> Run:
    faces = Detections(np.asarray(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32))
    found = Run(name, [faces] * pictures, [], [5.0] * pictures)
    if labels is not None:
        found.probabilities = [np.eye(3, dtype=np.float32)[labels]] * pictures
    return found


def scored(found: Run, what: Truth | None = None, **kwargs: float) -> Scores:
    truths = [what or truth()] * len(found.found)
    return score_run(found, truths, [1.0] * len(truths), kwargs.get("min_score", 0.5), kwargs.get("false", 1.0))


def test_perfect_detector_is_perfect_everywhere() -> None:
    scores = scored(run(BOXES, [0.9, 0.8, 0.7], [0, 1, 2]))
    assert scores.ap == {"0.35": 1.0, "0.5": 1.0, "0.5:0.95": 1.0}
    assert scores.mean_ap == 1.0
    assert scores.confusion is not None
    assert scores.confusion.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert scores.recall.rate == 1.0
    assert scores.scan == {"min_score": 0.5, "recall": 1.0, "precision": 1.0}
    assert scores.ms == 5.0


def test_loose_boxes_count_only_at_loose_overlap() -> None:
    shifted = BOXES + np.array([0.3, 0, 0.3, 0]) * (BOXES[:, 2:3] - BOXES[:, :1])  # IoU 0.7 / 1.3 = .54
    scores = scored(run(shifted, [0.9, 0.8, 0.7]))
    assert scores.ap["0.5"] == 1.0
    assert scores.ap["0.5:0.95"] == pytest.approx(0.1)


def test_faces_are_sorted_by_size_and_class() -> None:
    scores = scored(run(BOXES[1:], [0.9, 0.8]))
    assert {name: (s.hits, s.total) for name, s in scores.recall_by_size.items()} == {
        "0–10 px": (0, 0),
        "10–20 px": (0, 1),
        "20–40 px": (1, 1),
        "40–80 px": (0, 0),
        "80+ px": (1, 1),
    }
    assert {name: s.rate for name, s in scores.recall_by_class.items()} == {
        "with_mask": 0.0,
        "without_mask": 1.0,
        "mask_weared_incorrect": 1.0,
    }


def test_size_is_measured_at_the_scale_of_the_detector() -> None:
    found = run(BOXES[:1], [0.9])
    only = Truth("a", Path("a"), BOXES[:1], np.array([0]), np.array([False]))
    assert score_run(found, [only], [0.5], 0.5, 1.0).recall_by_size["0–10 px"].total == 1


def test_size_classes_leave_no_gap() -> None:
    assert SIZE_BINS[0] == 0
    assert math.isinf(SIZE_BINS[-1])
    assert [size_name(low, high) for low, high in pairwise(SIZE_BINS)][-1] == "80+ px"


def test_confusion_has_wrong_classes_missed_faces_and_false_detections() -> None:
    boxes = np.array([BOXES[0], BOXES[1], [400, 400, 420, 420]])
    scores = scored(run(boxes, [0.9, 0.8, 0.7], [1, 1, 2]))
    assert scores.confusion is not None
    assert scores.confusion.tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    assert scores.class_ap["with_mask"] == 0.0
    # The detection of class 1 on the masked face is ranked first and is false: precision 1/2 at full recall.
    assert scores.class_ap["without_mask"] == 0.5


def test_weak_detections_are_no_part_of_the_confusion() -> None:
    scores = scored(run(BOXES, [0.9, 0.4, 0.3], [0, 1, 2]))
    assert scores.confusion is not None
    assert scores.confusion[:, 3].tolist() == [0, 1, 1, 0]


def test_ignored_faces_and_unknown_classes_count_neither_way() -> None:
    what = truth(labels=(0, UNKNOWN, 2), ignored=(False, False, True))
    scores = scored(run(BOXES, [0.9, 0.8, 0.7], [0, 1, 2]), what)
    assert scores.recall.total == 2  # the unknown one is a face all the same
    assert scores.confusion is not None
    assert scores.confusion.sum() == 1
    assert scores.class_ap == {"with_mask": 1.0}


def test_data_without_classes_has_no_end_to_end_figures() -> None:
    scores = scored(run(BOXES, [0.9, 0.8, 0.7], [0, 1, 2]), truth(labels=(UNKNOWN,) * 3))
    assert scores.class_ap == {}
    assert scores.confusion is None
    assert math.isnan(scores.mean_ap)
    assert scores.as_dict()["map50"] is None


def test_operating_score_allows_so_many_false_ones_and_no_more() -> None:
    boxes = np.array([BOXES[0], [400, 0, 410, 10], BOXES[1], [500, 0, 510, 10], BOXES[2]])
    found = run(boxes, [0.9, 0.8, 0.7, 0.6, 0.5])
    for false, least, hits in ((0, 0.9, 1), (1, 0.7, 2), (2, 0.5, 3)):
        scores = scored(found, false=float(false))
        assert scores.operating_score == pytest.approx(least)
        assert scores.recall.hits == hits


def test_detector_that_finds_nothing_scores_nothing() -> None:
    scores = scored(run(np.zeros((0, 4)), []))
    assert scores.ap["0.5"] == 0.0
    assert scores.recall.hits == 0
    assert scores.operating_score == FLOOR
    assert math.isnan(scores.scan["precision"])


def test_detector_that_begins_with_a_false_one_is_held_to_none() -> None:
    scores = scored(run(np.array([[400, 0, 410, 10], BOXES[0]]), [0.9, 0.8]), false=0.0)
    assert scores.recall.hits == 0
    assert operating_score(scores.curve, 0) > scores.curve.scores[0]


def test_unweighted_draw_is_the_average_precision() -> None:
    boxes = np.array([BOXES[0], [400, 0, 410, 10], BOXES[1], [500, 0, 510, 10]])
    scores = scored(run(boxes, [0.9, 0.8, 0.7, 0.6], pictures=5))
    # Every picture is the same, so every draw is the same data.
    draws = Resampling(5, 100).average_precision(scores.matches)
    np.testing.assert_allclose(draws, average_precision(scores.matches), rtol=0, atol=0.12)
    around = interval(scores.ap["0.5"], draws)
    assert around.low <= around.high


def test_draw_equals_average_precision_of_the_drawn_pictures() -> None:
    generator = np.random.default_rng(3)
    found, truths = Run("d"), []
    for _ in range(12):
        noise = generator.normal(0, 4, BOXES.shape).astype(np.float32)
        found.found.append(
            Detections(BOXES + noise, np.sort(generator.uniform(0.1, 1, 3).astype(np.float32))[::-1].copy())
        )
        truths.append(truth())
    scores = score_run(found, truths, [1.0] * 12, 0.5, 1.0)
    resampling = Resampling(12, 30, seed=1)
    drawn = resampling.average_precision(scores.matches)
    for weights, value in zip(resampling._weights, drawn, strict=True):
        repeated = [m for m, count in zip(scores.matches, weights, strict=True) for _ in range(count)]
        assert value == pytest.approx(average_precision(repeated))


def test_better_detector_is_told_from_luck() -> None:
    good, bad = scored(run(BOXES, [0.9, 0.8, 0.7], pictures=40)), scored(run(BOXES[:1], [0.9], pictures=40, name="e"))
    resampling = Resampling(40, 200)
    draws = [resampling.average_precision(s.matches) for s in (good, bad)]
    counted = np.ones(120, np.bool_)
    outcome = compare(good, bad, draws[0], draws[1], counted)
    assert (outcome.only_first, outcome.only_second) == (80, 0)
    assert outcome.found_p < 1e-9
    assert outcome.ap_p < 0.02
    assert outcome.ap_difference.low > 0
    assert "d finds more faces (p < .001)" in outcome.sentence()
    nothing = compare(good, good, draws[0], draws[0], counted)
    assert nothing.found_p == 1.0
    assert nothing.ap_p == 1.0
    assert "neither finds significantly more faces" in nothing.sentence()


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (0, 10, 2 / 1024), (8, 2, 2 * (1 + 10 + 45) / 1024), (7, 7, 1.0)],
)
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p)
    assert mcnemar(only_second, only_first) == pytest.approx(p)


def test_mcnemar_takes_many_faces_without_a_jump() -> None:
    assert mcnemar(520, 479) == pytest.approx(mcnemar(520, 480), rel=0.1)
    assert mcnemar(30_000, 30_000) == 1.0
    assert mcnemar(5000, 4000) < 1e-20


def test_time_is_that_of_a_scan_and_findings_are_those_of_the_whole_curve(
    face_photo: np.ndarray, tmp_path: Path
) -> None:
    detector = make_detector(ModelSettings(min_score=FLOOR), resolve_device("cpu"))
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), face_photo)
    face = Truth("face.png", path, np.array([[180, 56, 272, 178]], np.float32), np.array([1]), np.array([False]))
    (found,), sizes = run_detectors([face] * 3, [detector], batch_size=2, timed_score=0.5)
    assert len(found.found) == len(found.ms) == 3
    assert sizes == [(512, 512)] * 3
    assert found.found[0].scores.tolist() == detector.detect([face_photo])[0].scores.tolist()
    assert len(detector.with_min_score(0.5).detect([face_photo])[0]) == 1
