"""Average precision and matching, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskbatch.evaluate.metrics import average_precision, box_overlaps, match, precision_recall

FACE = np.array([[10, 10, 30, 30]], float)


def test_overlap_of_half_shifted_boxes_is_a_third() -> None:
    assert box_overlaps(FACE, np.add(FACE, [10, 0, 10, 0]))[0, 0] == pytest.approx(1 / 3)


def test_overlap_over_first_is_the_share_that_lies_inside() -> None:
    assert box_overlaps(FACE, np.array([[0, 0, 20, 100]]), over_first=True)[0, 0] == pytest.approx(0.5)


def test_empty_box_overlaps_nothing() -> None:
    assert box_overlaps(np.array([[5, 5, 5, 9]]), np.array([[5, 5, 5, 9]]))[0, 0] == 0.0


@given(st.lists(st.tuples(*[st.floats(0, 100)] * 4), min_size=1, max_size=6))
def test_overlap_is_symmetric_and_at_most_one(corners: list[tuple[float, ...]]) -> None:
    boxes = np.sort(np.array(corners).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    table = box_overlaps(boxes, boxes)
    np.testing.assert_allclose(table, table.T)
    assert table.max() <= 1 + 1e-9


def test_second_detection_of_a_face_is_false() -> None:
    found = match(np.concatenate([FACE, FACE]), np.array([0.4, 0.9]), FACE)
    assert found.scores.tolist() == [0.9, 0.4]
    assert found.correct.tolist() == [True, False]
    assert found.found.tolist() == [0.9]


def test_detection_takes_the_face_it_overlaps_most() -> None:
    faces = np.array([[0, 0, 20, 20], [4, 0, 24, 20]], float)
    found = match(np.array([[4, 0, 24, 20], [0, 0, 20, 20]], float), np.array([0.9, 0.8]), faces)
    assert found.truth.tolist() == [1, 0]


def test_ignored_face_is_neither_missed_nor_falsely_found() -> None:
    faces = np.concatenate([FACE, FACE + 100])
    found = match(
        np.concatenate([FACE + 100, np.add(FACE, [105, 105, 100, 100])]),
        np.array([0.9, 0.8]),
        faces,
        np.array([False, True]),
    )
    assert found.faces == 1
    assert len(found.scores) == 0


def test_threshold_decides() -> None:
    shifted = np.add(FACE, [10, 0, 10, 0])
    assert not match(shifted, np.ones(1), FACE, iou=0.5).correct.any()
    assert match(shifted, np.ones(1), FACE, iou=0.3).correct.all()


def test_average_precision_by_hand() -> None:
    # Scores .9 hit, .8 false, .7 hit; three faces: precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3 -> 1/3 * 1 + 1/3 * 2/3.
    faces = np.concatenate([FACE, FACE + 100, FACE + 200])
    boxes = np.concatenate([FACE, FACE + 50, FACE + 100])
    assert average_precision([match(boxes, np.array([0.9, 0.8, 0.7]), faces)]) == pytest.approx(1 / 3 + 2 / 9)


def test_precision_is_made_falling_before_the_area() -> None:
    # False first, then hit: precision 0, 1/2; the area uses 1/2 for the whole recall.
    boxes = np.concatenate([FACE + 50, FACE])
    assert average_precision([match(boxes, np.array([0.9, 0.8]), FACE)]) == pytest.approx(0.5)


def test_pictures_are_ranked_together() -> None:
    sure = match(FACE + 50, np.array([0.9]), FACE)
    unsure = match(FACE, np.array([0.5]), FACE)
    curve = precision_recall([unsure, sure])
    assert curve.scores.tolist() == [0.9, 0.5]
    assert curve.recall.tolist() == [0.0, 0.5]


def test_perfect_detections_give_one_and_none_give_zero() -> None:
    assert average_precision([match(FACE, np.ones(1), FACE)]) == 1.0
    assert average_precision([match(np.zeros((0, 4)), np.zeros(0), FACE)]) == 0.0


def test_without_faces_there_is_no_average_precision() -> None:
    assert math.isnan(average_precision([match(FACE, np.ones(1), np.zeros((0, 4)))]))
    assert math.isnan(average_precision([]))
