"""A face that fills the image is one face, and what stands beside it stays."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from maskbatch.config import ModelSettings
from maskbatch.detect import make_detector
from maskbatch.detect.close import LARGE, close_bucket, join_close_look, needs_close_look
from maskbatch.runtime import resolve_device
from maskbatch.types import Detections

FACE = (180, 56, 272, 178)
"""The face of the photograph."""


def faces(*rows: tuple[float, float, float, float, float]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(table[:, :4], table[:, 4], np.zeros((len(table), 5, 2), np.float32))


def close_up(photo: npt.NDArray[np.uint8], fill: float) -> npt.NDArray[np.uint8]:
    """A square around the face, whose height is `fill` of it, as 640×640 pixels."""
    x1, y1, x2, y2 = FACE
    side = round((y2 - y1) / fill)
    left, top = max(0, (x1 + x2 - side) // 2), max(0, (y1 + y2 - side) // 2)
    return np.asarray(cv2.resize(photo[top : top + side, left : left + side], (640, 640)), np.uint8)


@pytest.mark.parametrize("fill", [0.6, 0.75, 0.9, 1.0, 1.2])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_face_that_fills_the_image_gives_one_box(
    face_photo: npt.NDArray[np.uint8], fill: float, batch_size: int
) -> None:
    detector = make_detector(ModelSettings(), resolve_device("cpu"), batch_size)
    image = close_up(face_photo, fill)
    first, other, again = detector.detect([image, face_photo, image])
    assert len(first) == 1
    x1, y1, x2, y2 = first.boxes[0]
    assert y2 - y1 > 0.45 * 640, "a part of the face"
    assert x1 < 320 < x2
    assert y1 < 320 < y2
    assert first.landmarks is not None
    assert first.landmarks.shape == (1, 5, 2)
    # A row depends on its own image alone, whatever was looked at beside it.
    assert np.array_equal(first.boxes, again.boxes)
    assert np.array_equal(other.boxes, detector.detect([face_photo])[0].boxes)


def test_one_look_keeps_what_it_finds(face_photo: npt.NDArray[np.uint8]) -> None:
    # Redaction blurs rather once too often.
    detector = make_detector(ModelSettings(), resolve_device("cpu"), 1)
    image = close_up(face_photo, 0.6)
    assert len(detector.with_one_look().detect([image])[0]) > 1 == len(detector.detect([image])[0])


def test_the_second_look_follows_the_size_of_the_first() -> None:
    assert [close_bucket(size).width for size in (320, 640, 1280)] == [96, 192, 384]


def test_only_a_large_and_certain_face_asks_for_a_second_look() -> None:
    assert needs_close_look(faces((0, 0, 100, LARGE, 0.9)), 1.0)
    assert needs_close_look(faces((0, 0, 100, 2 * LARGE, 0.9)), 0.5)
    assert not needs_close_look(faces((0, 0, 100, LARGE - 1, 0.9)), 1.0)
    assert not needs_close_look(faces((0, 0, 100, LARGE, 0.3)), 1.0)
    assert not needs_close_look(Detections.empty(), 1.0)


def test_parts_become_the_face_and_neighbours_stay() -> None:
    first = faces((120, 300, 420, 600, 0.8), (100, 100, 300, 360, 0.7), (560, 40, 630, 120, 0.6))
    second = faces((90, 90, 440, 610, 0.5), (10, 10, 60, 60, 0.9))
    both = join_close_look(first, second, 1.0)
    assert both.boxes.tolist() == [[90, 90, 440, 610], [560, 40, 630, 120]]
    assert both.scores.tolist() == pytest.approx([0.8, 0.6])
    assert both.landmarks is not None
    assert len(both.landmarks) == 2


def test_a_doubtful_large_face_needs_the_second_look() -> None:
    wall, face, small = (100, 100, 420, 400, 0.58), (100, 100, 420, 400, 0.8), (10, 10, 60, 70, 0.5)
    assert join_close_look(faces(wall, small), Detections.empty(), 1.0).boxes.tolist() == [list(small[:4])]
    assert len(join_close_look(faces(face, small), Detections.empty(), 1.0)) == 2
    confirmed = join_close_look(faces(wall, small), faces((110, 90, 400, 390, 0.3)), 1.0)
    assert confirmed.boxes.tolist() == [list(wall[:4]), list(small[:4])]


def test_a_small_face_of_the_second_look_changes_nothing() -> None:
    first = faces((120, 300, 420, 600, 0.8), (100, 100, 300, 360, 0.7))
    for second in (Detections.empty(), faces((0, 0, 500, 500, 0.3)), faces((0, 0, 60, 60, 0.9))):
        assert join_close_look(first, second, 1.0).boxes.tolist() == first.boxes.tolist()
