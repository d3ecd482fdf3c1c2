"""What every detector must do, whatever its family."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from maskbatch.config import ModelSettings
from maskbatch.detect import Detector, make_detector
from maskbatch.detect.nms import iou_matrix
from maskbatch.errors import ModelError
from maskbatch.runtime import resolve_device
from maskbatch.types import Detections, Image

CPU = resolve_device("cpu")
FAMILIES = ("retinaface", "yunet", "scrfd", "centerface")
IN_SHARED = {"yunet": "yunet_n.onnx", "scrfd": "scrfd_500m_kps.onnx"}
FACE = np.array([[180, 56, 272, 178]], np.float32)
"""The one face of the portrait."""


def make(family: str, batch_size: int = 0, min_score: float = 0.5) -> Detector:
    """The packaged or pulled model, else the one beside the repository; retinaface must always be there."""
    from shared_data import shared_folder

    try:
        return make_detector(ModelSettings(detector=family, min_score=min_score), CPU, batch_size)
    except ModelError as error:
        path = shared_folder() / "weights" / IN_SHARED.get(family, "none")
        if family == "retinaface":
            raise
        if not path.is_file():
            pytest.skip(f"{error}; nor is it at {path}")
        return make_detector(ModelSettings(detector=f"{family}:{path}", min_score=min_score), CPU, batch_size)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def detector(family: str) -> Detector:
    return make(family)


def same(first: Detections, second: Detections) -> bool:
    """Equal to the last bit."""
    pairs = [(first.boxes, second.boxes), (first.scores, second.scores), (first.landmarks, second.landmarks)]
    return all(
        (a is None and b is None) or (a is not None and b is not None and a.tobytes() == b.tobytes()) for a, b in pairs
    )


def pictures(photo: Image) -> list[Image]:
    """The portrait large and small, wide and tall, twice in one picture, and no face at all."""
    small = cv2.resize(photo, (160, 160), interpolation=cv2.INTER_AREA)
    wide = np.zeros((360, 640, 3), np.uint8)
    wide[100:260, 50:210] = wide[150:310, 400:560] = small
    return [photo, small, wide, np.ascontiguousarray(wide.transpose(1, 0, 2)), np.full((300, 400, 3), 128, np.uint8)]


def test_finds_the_face_of_the_portrait(detector: Detector, face_photo: Image) -> None:
    (found,) = detector.detect([face_photo])
    assert len(found) == 1
    assert iou_matrix(FACE, found.boxes)[0, 0] > 0.7
    assert found.boxes.dtype == found.scores.dtype == np.float32


def test_landmarks_are_in_the_order_eyes_nose_mouth_as_seen(detector: Detector, face_photo: Image) -> None:
    (found,) = detector.detect([face_photo])
    assert detector.has_landmarks == (found.landmarks is not None)
    if found.landmarks is not None:
        assert found.landmarks.shape == (1, 5, 2)
        left_eye, right_eye, nose, left_mouth, right_mouth = found.landmarks[0]
        assert left_eye[0] < nose[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
        assert (found.landmarks[0] > FACE[0, :2]).all()
        assert (found.landmarks[0] < FACE[0, 2:]).all()


def test_two_faces_are_two_boxes_in_pixels_of_their_picture(detector: Detector, face_photo: Image) -> None:
    wide = pictures(face_photo)[2]
    (found,) = detector.detect([wide])
    scale = 160 / 512
    expected = np.concatenate([FACE * scale + [50, 100] * 2, FACE * scale + [400, 150] * 2])
    assert len(found) == 2
    assert (iou_matrix(expected, found.boxes) > 0.6).any(axis=1).all()


def test_boxes_are_inside_and_sorted_and_apart(family: str, face_photo: Image) -> None:
    for image, found in zip(
        pictures(face_photo), make(family, min_score=0.05).detect(pictures(face_photo)), strict=True
    ):
        height, width = image.shape[:2]
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [width, height] * 2).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert (np.diff(found.scores) <= 0).all()
        assert (found.scores >= 0.05).all()
        assert (found.scores <= 1).all()
        overlaps = iou_matrix(found.boxes, found.boxes)
        assert not (np.triu(overlaps, 1) > 0.6).any()


def test_a_picture_alone_gives_what_it_gives_among_others(detector: Detector, face_photo: Image) -> None:
    images = pictures(face_photo)
    together = detector.detect(images)
    assert all(same(detector.detect([image])[0], found) for image, found in zip(images, together, strict=True))
    backwards = detector.detect(images[::-1])[::-1]
    assert all(same(a, b) for a, b in zip(together, backwards, strict=True))


def test_a_row_does_not_depend_on_its_place_in_a_padded_batch(family: str, face_photo: Image) -> None:
    detector = make(family, batch_size=3)
    other = cv2.flip(face_photo, 1)
    alone = detector.detect([face_photo])[0]
    for batch in ([face_photo, other, other], [other, face_photo, other], [other, other, face_photo, other]):
        found = detector.detect(batch)
        place = next(i for i, image in enumerate(batch) if image is face_photo)
        assert same(found[place], alone)


def test_nothing_to_find_is_an_empty_table(detector: Detector) -> None:
    (found,) = detector.detect([np.full((300, 400, 3), 128, np.uint8)])
    assert found.boxes.shape == (0, 4)
    assert len(found) == 0
    assert detector.detect([]) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (33, 47), (640, 640), (31, 640)])
def test_any_size_is_taken(detector: Detector, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (found,) = detector.detect([image])
    assert found.boxes.shape[1] == 4
    assert np.isfinite(found.boxes).all()


def test_views_of_larger_arrays_are_read_right(detector: Detector, face_photo: Image) -> None:
    frame = np.zeros((600, 700, 3), np.uint8)
    frame[40:552, 60:572] = face_photo
    assert same(detector.detect([frame[40:552, 60:572]])[0], detector.detect([face_photo])[0])


@pytest.mark.parametrize(
    "image",
    [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8)],
)
def test_what_is_no_picture_is_refused(detector: Detector, image: Image) -> None:
    with pytest.raises(ValueError, match="expected an image"):
        detector.detect([image])


def test_warming_up_changes_nothing(family: str, face_photo: Image) -> None:
    detector = make(family)
    detector.warm_up()
    assert same(detector.detect([face_photo])[0], make(family).detect([face_photo])[0])


@pytest.mark.shared
def test_finds_most_faces_of_real_pictures(detector: Detector, shared_dir: Path) -> None:
    from maskbatch.evaluate.run import run_detectors
    from maskbatch.evaluate.scores import score_run
    from maskbatch.evaluate.truth import read_truth

    truths = read_truth(shared_dir / "data" / "face_mask_detection", "test", limit=12)
    (run,), _ = run_detectors(truths, [detector])
    scores = score_run(run, truths, [1.0] * len(truths), 0.5, 1.0)
    assert scores.recall.rate > 0.6
