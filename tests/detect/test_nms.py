"""Suppression keeps what the plain definition keeps, by either of its two ways."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskbatch.detect import nms as module
from maskbatch.detect.nms import iou_matrix, nms, vote
from maskbatch.types import Floats

corners = arrays(np.float32, st.tuples(st.integers(0, 40), st.just(4)), elements=st.integers(0, 50).map(float))


def as_boxes(values: Floats) -> Floats:
    return np.concatenate([values[:, :2], values[:, :2] + values[:, 2:]], axis=1)


def by_definition(boxes: Floats, max_iou: float) -> list[int]:
    kept: list[int] = []
    for index in range(len(boxes)):
        if all(iou(boxes[index], boxes[k]) <= max_iou for k in kept):
            kept.append(index)
    return kept


def iou(a: Floats, b: Floats) -> float:
    wide = max(0.0, float(min(a[2], b[2]) - max(a[0], b[0])))
    tall = max(0.0, float(min(a[3], b[3]) - max(a[1], b[1])))
    union = float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])) - wide * tall
    return wide * tall / union if union > 0 else 0.0


@given(corners, st.sampled_from([0.3, 0.4, 0.45]))
def test_both_ways_keep_what_the_definition_keeps(values: Floats, max_iou: float) -> None:
    boxes = as_boxes(values)
    expected = by_definition(boxes, max_iou)
    assert nms(boxes, max_iou).tolist() == expected
    assert module._by_rows(boxes, max_iou).tolist() == expected


def test_many_boxes_need_little_memory_and_keep_the_best() -> None:
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 600, (2500, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + 20], axis=1)
    kept = nms(boxes, 0.4)
    assert kept[0] == 0
    overlaps = iou_matrix(boxes[kept], boxes[kept])
    np.fill_diagonal(overlaps, 0)
    assert overlaps.max() <= 0.4


def test_empty_boxes_overlap_nothing() -> None:
    boxes = np.array([[5, 5, 5, 5], [0, 0, 10, 10], [5, 5, 5, 5]], np.float32)
    assert nms(boxes, 0.4).tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_and_one_pass(count: int) -> None:
    assert nms(np.zeros((count, 4), np.float32), 0.4).tolist() == list(range(count))


def test_agreeing_boxes_are_averaged_by_score_times_overlap() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60]], np.float32)
    voted = vote(boxes[[0, 2]], boxes, np.array([0.6, 0.5, 0.4], np.float32), 0.5)
    # Weights 0.6 × 1 and 0.5 × 0.8: the lower side is at (6 + 3.2) / 1.
    np.testing.assert_allclose(voted, [[0, 0, 10, 9.2], [50, 50, 60, 60]], rtol=1e-6)


@given(corners.filter(len), st.sampled_from([0.3, 0.5]))
def test_voted_boxes_stay_among_the_voters(values: Floats, min_iou: float) -> None:
    boxes = as_boxes(values)
    kept = boxes[nms(boxes, 0.45)]
    voted = vote(kept, boxes, np.linspace(1, 0.1, len(boxes), dtype=np.float32), min_iou)
    assert voted.shape == kept.shape
    assert (voted >= boxes.min(axis=0) - 1e-3).all()
    assert (voted <= boxes.max(axis=0) + 1e-3).all()
