from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskbatch.classify.crops import CROP_SIZE, crop_faces, crops_need_full, face_squares


def gradient(width: int, height: int) -> np.ndarray:
    """Blue grows to the right, green downwards; the colours tell where a pixel came from."""
    x = np.linspace(0, 250, width)[None, :].repeat(height, 0)
    y = np.linspace(0, 250, height)[:, None].repeat(width, 1)
    return np.stack([x, y, np.full_like(x, 40)], axis=-1).round().astype(np.uint8)


def test_no_boxes_give_an_empty_batch() -> None:
    crops = crop_faces(gradient(40, 30), np.zeros((0, 4), np.float32))
    assert crops.shape == (0, CROP_SIZE, CROP_SIZE, 3)
    assert crops.dtype == np.uint8


@pytest.mark.parametrize("side", [12.0, 60.0, 97.0, 300.0, 700.0])
def test_crop_is_centred_and_scaled_whether_it_grows_or_shrinks(side: float) -> None:
    image = gradient(1000, 1000)
    box = np.array([[500 - side / 2, 400 - side / 4, 500 + side / 2, 400 + side / 4]], np.float32)
    crop = crop_faces(image, box, context=1.4)[0].astype(float)
    assert crop[63:65, 63:65, 0].mean() == pytest.approx(125, abs=1)
    assert crop[63:65, 63:65, 1].mean() == pytest.approx(100, abs=1)
    spread = crop[:, -1, 0].mean() - crop[:, 0, 0].mean()
    assert spread == pytest.approx(side * 1.4 * (127 / 128) / 4, abs=2)


def test_colour_order_is_kept() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    image[:] = (10, 20, 30)
    for box in ([10, 10, 20, 20], [0, 0, 50, 50]):
        crop = crop_faces(image, np.array([box], np.float32), size=32)[0]
        assert (crop == (10, 20, 30)).all()


def test_outside_of_the_picture_repeats_the_edge() -> None:
    image = np.full((300, 300, 3), 200, np.uint8)
    image[:, :3] = 50
    for box in ([-20.0, 10.0, 20.0, 50.0], [-200.0, 10.0, 200.0, 280.0]):
        crop = crop_faces(image, np.array([box], np.float32))[0]
        assert (crop[:, :20] == 50).all()
        assert (crop[:, -20:] == 200).all()


def test_a_box_far_outside_still_gives_a_crop() -> None:
    image = gradient(64, 48)
    boxes = np.array([[-500, -500, -400, -400], [900, 900, 1400, 1400], [10, 10, 10, 10]], np.float32)
    crops = crop_faces(image, boxes)
    assert crops.shape == (3, 128, 128, 3)
    assert (crops[0] == image[0, 0]).all()
    assert (crops[1] == image[-1, -1]).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-3000, 3000)] * 4), max_size=4),
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([16, 128]),
)
def test_any_finite_boxes_give_crops_from_the_pictures_own_range(
    boxes: list[tuple[float, float, float, float]], width: int, height: int, size: int
) -> None:
    image = np.full((height, width, 3), 77, np.uint8)
    crops = crop_faces(image, np.array(boxes, np.float32).reshape(-1, 4), size=size)
    assert crops.shape == (len(boxes), size, size, 3)
    assert (crops == 77).all()


def test_crop_from_a_half_scale_picture_is_about_the_same() -> None:
    rng = np.random.default_rng(0)
    full = cv2.GaussianBlur(rng.integers(0, 256, (1200, 1600, 3), dtype=np.uint8), (0, 0), 6)
    half = cv2.resize(full, (800, 600), interpolation=cv2.INTER_AREA)
    boxes = np.array([[200, 300, 500, 640], [1300, 900, 1590, 1190]], np.float32)
    assert not crops_need_full(boxes / 2, 0.5).any()
    difference = np.abs(crop_faces(full, boxes).astype(int) - crop_faces(half, boxes / 2))
    assert difference.mean() < 1.0


def test_small_faces_ask_for_the_full_picture_and_only_when_it_is_larger() -> None:
    boxes = np.array([[0, 0, 20, 30], [0, 0, 120, 110]], np.float32)
    assert crops_need_full(boxes, 0.25).tolist() == [True, False]
    assert crops_need_full(boxes, 1.0).tolist() == [False, False]
    assert crops_need_full(np.zeros((0, 4), np.float32), 0.5).shape == (0,)


def test_squares_follow_the_longer_side() -> None:
    left, top, side = face_squares(np.array([[10, 20, 30, 60]], np.float32), 1.5)[0]
    assert (left, top, side) == (-10.0, 10.0, 60.0)


@pytest.mark.parametrize(
    ("image", "boxes"),
    [
        (np.zeros((4, 4), np.uint8), np.zeros((1, 4), np.float32)),
        (np.zeros((4, 4, 3), np.float32), np.zeros((1, 4), np.float32)),
        (np.zeros((0, 4, 3), np.uint8), np.zeros((1, 4), np.float32)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((1, 5), np.float32)),
        (np.zeros((4, 4, 3), np.uint8), np.full((1, 4), np.nan, np.float32)),
    ],
)
def test_wrong_input_is_refused(image: np.ndarray, boxes: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        crop_faces(image, boxes)


def test_a_crop_does_not_read_the_whole_picture() -> None:
    """A 60-pixel face of a 108-megapixel picture must cost like one of a small picture (generous bound for busy CI)."""
    image = np.zeros((9000, 12000, 3), np.uint8)
    boxes = np.tile(np.array([[5000, 5000, 5060, 5060]], np.float32), (200, 1))
    crop_faces(image, boxes)
    start = time.perf_counter()
    crop_faces(image, boxes)
    assert (time.perf_counter() - start) / 200 < 0.005
