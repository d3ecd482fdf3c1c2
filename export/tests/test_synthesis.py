from __future__ import annotations

import numpy as np
import pytest
from maskbatch_export.classifier.batches import Batches, CropRecipe
from maskbatch_export.classifier.data import Patches
from maskbatch_export.classifier.synthesis import find_landmarks, slide_mask, slide_masks

from maskbatch.config import ModelSettings
from maskbatch.detect import make_detector
from maskbatch.runtime import resolve_device
from maskbatch.tasks.mask import LABELS

WITH, WITHOUT, WRONG = (LABELS.index(name) for name in ("with_mask", "without_mask", "mask_weared_incorrect"))
POINTS = np.array([[40, 40], [60, 40], [50, 52], [43, 62], [57, 62]], np.float32)


def flat(value: int) -> np.ndarray:
    return np.full((100, 100, 3), value, np.uint8)


def faces(labels: list[int]) -> Patches:
    images = [flat(60 if label == WITHOUT else 200) for label in labels]
    boxes = np.tile(np.array([[30, 25, 70, 75]], np.float32), (len(labels), 1))
    return Patches(images, boxes, np.array(labels, np.int64), np.full(len(labels), 50, np.float32))


def test_nose_and_eyes_stay_and_the_chin_is_covered() -> None:
    for seed in range(20):
        made = slide_mask(flat(60), POINTS, flat(200), POINTS, np.random.default_rng(seed))
        assert (made[:50] == 60).all()  # down to the tip of the nose
        assert (made[72:78, 48:52] > 70).all()  # below the mouth
        assert (made[:, :15] == 60).all()  # beside the face


def test_the_mask_comes_in_the_light_of_the_face() -> None:
    """The other picture is three times as bright around the eyes, so its mask is darkened."""
    bright = flat(180)
    made = slide_mask(flat(60), POINTS, bright, POINTS, np.random.default_rng(3))
    assert 60 < made[75, 50].mean() < 160


def test_a_turned_and_smaller_face_gives_its_mask_to_the_right_place() -> None:
    angle = np.deg2rad(12)
    turn = 0.6 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    small = ((POINTS - 50) @ turn.T + 50).astype(np.float32)
    masked = flat(60)
    masked[int(small[2, 1]) :] = (255, 0, 0)  # all below the nose
    made = slide_mask(flat(60), POINTS, masked, small, np.random.default_rng(1))
    assert made[75, 50, 0] > made[75, 50, 2] + 40
    assert (made[:45] == 60).all()


def test_only_faces_with_landmarks_are_used_and_the_seed_decides() -> None:
    patches = faces([WITHOUT, WITHOUT, WITH, WRONG])
    points = np.stack([POINTS, np.full((5, 2), np.nan, np.float32), POINTS, POINTS])
    made = slide_masks(patches, points, 6, np.random.default_rng(0))
    assert len(made) == 6
    assert (made.labels == WRONG).all()
    again = slide_masks(patches, points, 6, np.random.default_rng(0))
    assert all((a == b).all() for a, b in zip(made.images, again.images, strict=True))
    assert not len(slide_masks(faces([WITH, WRONG]), points[:2], 6, np.random.default_rng(0)))


def test_batches_draw_them_in_place_of_the_rare_class_alone() -> None:
    green = Patches([np.full((100, 100, 3), (0, 255, 0), np.uint8)], *_rest(faces([WRONG])))
    recipe = CropRecipe(size=16, balance=1.0, cctv=0.0, smoothing=0.0, synthesis=1.0)
    images, targets = Batches(faces([WITH, WITHOUT, WRONG]), recipe, 32, 0, synthetic=green)(0, 0)
    is_green = images[..., 1].mean(axis=(1, 2)) > images[..., 2].mean(axis=(1, 2)) + 1
    assert (is_green == (targets.argmax(1) == WRONG)).all()
    assert is_green.any()


def _rest(patches: Patches) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return patches.boxes, patches.labels, patches.sides


def test_landmarks_of_a_real_face() -> None:
    photo = np.ascontiguousarray(pytest.importorskip("skimage.data").astronaut()[:, :, ::-1])
    box = np.array([[170, 60, 280, 200]], np.float32)
    labels, sides = np.array([WITHOUT], np.int64), np.array([140], np.float32)
    patches = Patches([photo[0:300, 60:400]], box - np.array([60, 0, 60, 0], np.float32), labels, sides)
    detector = make_detector(ModelSettings(det_size=320, min_score=0.2), resolve_device("cpu"))
    (points,) = find_landmarks(patches, detector)
    assert points[0, 0] < points[2, 0] < points[1, 0]
    assert points[:2, 1].max() < points[2, 1] < points[3:, 1].min()
    empty = Patches([flat(60)], patches.boxes[:1] * 0.3, labels, sides)
    assert np.isnan(find_landmarks(empty, detector)).all()
