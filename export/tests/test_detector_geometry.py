"""Anchors, letterbox, suppression, crops: what must hold without any network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from maskbatch_export.detector.anchors import decode_boxes, decode_landmarks, make_anchors
from maskbatch_export.detector.augment import Sampler, SceneRecipe, damage, mosaic, relight, window
from maskbatch_export.detector.data import Picture
from maskbatch_export.detector.evaluate import Found, evaluate, letterbox, suppress
from maskbatch_export.detector.unlabelled import ignore_unlabelled


def white_square(box: tuple[int, int, int, int] = (120, 80, 180, 150), size: tuple[int, int] = (240, 320)) -> Picture:
    image = np.full((*size, 3), 20, np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    marks = np.array([[[130, 90], [170, 90], [150, 110], [135, 130], [165, 130]]], np.float32)
    return Picture("square.png", "face_mask_detection", image, np.array([box], np.float32), np.zeros(1, bool), marks)


def test_anchors_follow_stride_row_column_side() -> None:
    anchors = make_anchors(640, 640)
    assert anchors.shape == (16800, 4)
    np.testing.assert_array_equal(anchors[:4], [[4, 4, 10, 10], [4, 4, 20, 20], [12, 4, 10, 10], [12, 4, 20, 20]])
    np.testing.assert_array_equal(anchors[12800], [8, 8, 32, 32])
    np.testing.assert_array_equal(anchors[-1], [624, 624, 256, 256])
    assert len(make_anchors(384, 640)) == 16800 * 384 // 640


def test_zero_deltas_give_the_anchor() -> None:
    anchors = make_anchors(64, 96)
    boxes = decode_boxes(np.zeros((len(anchors), 4), np.float32), anchors)
    np.testing.assert_allclose((boxes[:, :2] + boxes[:, 2:]) / 2, anchors[:, :2])
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], anchors[:, 2:])
    points = decode_landmarks(np.zeros((len(anchors), 10), np.float32), anchors)
    np.testing.assert_allclose(points, np.repeat(anchors[:, None, :2], 5, 1))


def test_deltas_move_and_stretch_by_their_variances() -> None:
    anchor = np.array([[100, 50, 20, 20]], np.float32)
    box = decode_boxes(np.array([[10, 0, 5 * np.log(2), 0]], np.float32), anchor)
    np.testing.assert_allclose(box, [[100, 40, 140, 60]], rtol=1e-6)
    np.testing.assert_allclose(decode_landmarks(np.full((1, 10), 5, np.float32), anchor)[0, 0], [110, 60])


@pytest.mark.parametrize("shape", [(240, 320), (900, 300), (31, 33)])
def test_letterbox_keeps_the_aspect_and_the_top_left(shape: tuple[int, int]) -> None:
    canvas, scale = letterbox(np.full((*shape, 3), 255, np.uint8), 640)
    assert canvas.shape == (640, 640, 3)
    tall, wide = round(shape[0] * scale), round(shape[1] * scale)
    assert max(tall, wide) == 640
    assert canvas[:tall, :wide].min() == 255
    assert canvas.sum() == tall * wide * 3 * 255
    tight, same = letterbox(np.full((*shape, 3), 255, np.uint8), 640, tight=True)
    assert same == scale
    assert tight.shape[0] % 32 == 0
    assert tight.shape[1] % 32 == 0


def test_suppression_keeps_the_best_of_each_heap() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 0, 10, 10]], float)
    assert suppress(boxes, np.array([0.5, 0.9, 0.3, 0.2]), 0.45).tolist() == [1, 2]


def test_chain_of_overlaps_keeps_both_ends() -> None:
    # The middle box is removed by the first and must not remove the last.
    boxes = np.array([[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]], float)
    assert suppress(boxes, np.array([0.9, 0.8, 0.7]), 0.45).tolist() == [0, 2]


@pytest.mark.parametrize("seed", range(12))
def test_boxes_and_landmarks_follow_the_pixels_of_a_window(seed: int) -> None:
    crop = window(white_square(), 448, 448, np.random.default_rng(seed), SceneRecipe())
    bright = crop.image[..., 0] > 137
    if not len(crop.boxes):
        assert not bright.any()
        return
    ys, xs = np.nonzero(bright)
    pixels = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    np.testing.assert_allclose(crop.boxes[0], pixels, atol=1.01)
    eyes = crop.landmarks[0, :2, 0]
    assert eyes[0] < eyes[1], "the first eye stays left in the picture, mirrored or not"


@pytest.mark.parametrize("seed", range(6))
def test_mosaic_boxes_hold_bright_pixels_only(seed: int) -> None:
    crop = mosaic([white_square()] * 4, np.random.default_rng(seed), SceneRecipe())
    bright = np.zeros(crop.image.shape[:2], bool)
    for x1, y1, x2, y2 in crop.boxes.round().astype(int):
        bright[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = True
        assert crop.image[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].min(initial=255) > 200
    assert crop.image[~bright].max(initial=0) < 200


def test_face_cut_to_a_sliver_is_ignored() -> None:
    picture = white_square(box=(0, 0, 320, 240))
    crops = [window(picture, 64, 64, np.random.default_rng(seed), SceneRecipe()) for seed in range(8)]
    assert all(crop.ignored.all() for crop in crops)


def test_light_and_damage_keep_shape_and_type_and_change_something() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    rng = np.random.default_rng(1)
    for changed in (relight(image, rng), damage(image, rng, 1.0)):
        assert changed.shape == image.shape
        assert changed.dtype == np.uint8
        assert (changed != image).mean() > 0.5
    np.testing.assert_array_equal(damage(image, rng, 0.0), image)


def test_crops_of_a_step_depend_on_seed_and_step_alone() -> None:
    shares = {"face_mask_detection": 1.0}
    first, second = (Sampler([white_square()], shares, SceneRecipe(size=128), seed=3) for _ in range(2))
    first.batch(0, 2)
    for a, b in zip(first.batch(7, 3), second.batch(7, 3), strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.boxes, b.boxes)
    assert any((a.image != b.image).any() for a, b in zip(first.batch(7, 3), second.batch(8, 3), strict=True))


def test_perfect_detector_has_perfect_figures() -> None:
    picture = white_square()
    result = evaluate(lambda _: Found(picture.boxes, np.ones(1), None), [picture])
    assert result["ap50"] == result["ap35"] == result["ap"] == 1.0
    # 60 x 70 pixels at a scale of 2.
    assert result["recall"]["n_80-10000"] == 1
    assert result["recall"]["80-10000"] == 1.0


def test_blind_detector_finds_nothing() -> None:
    result = evaluate(lambda _: Found(np.zeros((0, 4)), np.zeros(0), None), [white_square()])
    assert result["ap50"] == 0.0
    assert result["recall"]["80-10000"] == 0.0


def test_a_crop_says_which_set_it_is_from_and_a_mosaic_of_several_does_not() -> None:
    rng, recipe = np.random.default_rng(0), SceneRecipe(size=128)
    mask, wide = white_square(), replace(white_square(), origin="wider_face")
    assert window(wide, 128, 128, rng, recipe).origin == "wider_face"
    assert mosaic([wide] * 4, rng, recipe).origin == "wider_face"
    assert mosaic([mask, wide, mask, mask], rng, recipe).origin == ""
    sampler = Sampler(
        [mask, wide], {"face_mask_detection": 0.5, "wider_face": 0.5}, SceneRecipe(size=128, mosaic=0.5), 0
    )
    origins = [crop.origin for step in range(10) for crop in sampler.batch(step, 4)]
    assert set(origins) == {"face_mask_detection", "wider_face", ""}
    assert all(crop.origin for step in range(10) for crop in sampler.batch(step, 4, plain=True))


def seen(*rows: tuple[float, float, float, float, float]) -> Callable[[np.ndarray], Found]:
    """A detector that finds these boxes (x1 y1 x2 y2 score) in every picture."""
    table = np.array(rows, np.float64).reshape(-1, 5)
    return lambda image: Found(table[:, :4], table[:, 4], None)


def test_confident_finds_that_no_label_explains_are_ignored_and_labels_stay() -> None:
    picture = white_square()  # one face at 120 80 180 150
    teacher = seen(
        (121, 82, 178, 149, 0.99),  # the labelled face
        (140, 100, 160, 120, 0.9),  # a part of it
        (10, 10, 40, 50, 0.8),  # nobody labelled this one
        (200, 20, 230, 50, 0.3),  # not sure
    )
    (done,), added = ignore_unlabelled([picture], [teacher], ["face_mask_detection"])
    assert added == 1
    np.testing.assert_array_equal(done.boxes, [[120, 80, 180, 150], [10, 10, 40, 50]])
    assert done.boxes.dtype == np.float32
    assert done.ignored.tolist() == [False, True]
    assert done.landmarks.shape == (2, 5, 2)
    np.testing.assert_array_equal(done.landmarks[0], picture.landmarks[0])
    assert np.isnan(done.landmarks[1]).all()
    assert len(picture.boxes) == 1
    (_,), more = ignore_unlabelled([picture], [teacher], ["face_mask_detection"], score=0.2)
    assert more == 2


def test_a_second_teacher_adds_only_what_the_first_did_not_find() -> None:
    teachers = [seen((10, 10, 40, 50, 0.8)), seen((11, 9, 41, 50, 0.9), (250, 100, 280, 140, 0.7))]
    (done,), added = ignore_unlabelled([white_square()], teachers, ["face_mask_detection"])
    assert added == 2
    np.testing.assert_array_equal(done.boxes[1:], [[10, 10, 40, 50], [250, 100, 280, 140]])


def test_sets_with_all_their_labels_and_pictures_without_any() -> None:
    teacher = seen((10, 10, 40, 50, 0.8))
    wide = replace(white_square(), origin="wider_face")
    empty = replace(
        white_square(),
        boxes=np.zeros((0, 4), np.float32),
        ignored=np.zeros(0, bool),
        landmarks=np.zeros((0, 5, 2), np.float32),
    )
    done, added = ignore_unlabelled([wide, empty], [teacher], ["face_mask_detection"])
    assert done[0] is wide
    assert added == 1
    assert done[1].ignored.tolist() == [True]
    (same,), none = ignore_unlabelled([white_square()], [seen()], ["face_mask_detection"])
    assert none == 0
    np.testing.assert_array_equal(same.boxes, white_square().boxes)
