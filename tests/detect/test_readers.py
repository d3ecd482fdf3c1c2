"""Outputs are read as their authors defined them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from maskbatch.config import ModelSettings
from maskbatch.detect import make_detector
from maskbatch.detect.letterbox import Bucket
from maskbatch.detect.nms import iou_matrix
from maskbatch.detect.retinaface import Anchors, RetinaFaceReader, make_retinaface
from maskbatch.detect.scrfd import read_scrfd
from maskbatch.errors import ModelError
from maskbatch.models import find_model
from maskbatch.runtime import open_session, resolve_device
from maskbatch.types import Detections, Image

CPU = resolve_device("cpu")
ANCHORS = Anchors((8, 16, 32), ((10.0, 20.0), (32.0, 64.0), (128.0, 256.0)), (0.1, 0.2), 0.5)
OUTPUTS = ("scores", "deltas", "landmark_deltas")


def test_grid_has_as_many_anchors_as_the_file_has_outputs() -> None:
    assert len(ANCHORS.grid(Bucket(640, 640))) == 16800
    session = open_session(find_model("retinaface", "detector"), CPU)
    anchors = Anchors.parse(session.metadata["anchors"])
    for bucket in (Bucket(96, 64), Bucket(64, 128)):
        scores = session.run(np.zeros((1, bucket.height, bucket.width, 3), np.uint8))[0]
        assert len(anchors.grid(bucket)) == scores.shape[1]


def test_grid_goes_stride_row_column_side() -> None:
    grid = ANCHORS.grid(Bucket(64, 96))
    assert grid[:3].tolist() == [[4, 4, 10], [4, 4, 20], [12, 4, 10]]
    assert grid[12 * 2].tolist() == [4, 12, 10]  # the second row of stride 8 is 12 cells wide
    assert grid[-1].tolist() == [80, 48, 256]


def test_deltas_are_decoded_in_units_of_the_anchor() -> None:
    bucket = Bucket(64, 96)
    count = len(ANCHORS.grid(bucket))
    scores, deltas, points = np.zeros((2, count)), np.zeros((2, count, 4)), np.zeros((2, count, 10))
    scores[1, 24] = 0.9
    deltas[1, 24] = (2, -1, np.log(2) / 0.2, 0)
    points[1, 24] = [1, 2] * 5
    reader = RetinaFaceReader(ANCHORS, OUTPUTS)
    arrays = [a.astype(np.float32) for a in (scores, deltas, points)]
    assert len(reader(arrays, 0, bucket, 0.5).scores) == 0
    found = reader(arrays, 1, bucket, 0.5)
    # Anchor at (4, 12) with side 10: centre moves by 0.1·10·(2, −1), the width doubles.
    np.testing.assert_allclose(found.boxes, [[6 - 10, 11 - 5, 6 + 10, 11 + 5]], rtol=1e-6)
    assert found.landmarks is not None
    np.testing.assert_allclose(found.landmarks[0], [[5, 14]] * 5, rtol=1e-6)


def test_wild_deltas_give_finite_boxes() -> None:
    bucket = Bucket(32, 32)
    count = len(ANCHORS.grid(bucket))
    arrays = [
        np.ones((1, count), np.float32),
        np.full((1, count, 4), 1e4, np.float32),
        np.zeros((1, count, 10), np.float32),
    ]
    assert np.isfinite(RetinaFaceReader(ANCHORS, OUTPUTS)(arrays, 0, bucket, 0.5).boxes).all()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"order": "row"}'])
def test_file_without_anchors_is_no_retinaface(text: str) -> None:
    class Session:
        metadata = {"anchors": text}  # noqa: RUF012
        outputs = OUTPUTS
        batch_size = 1

    with pytest.raises(ModelError, match="not a RetinaFace of this project"):
        make_retinaface("mine", Session(), (Bucket(32, 32),), 0.5)  # type: ignore[arg-type]


def test_scrfd_distances_are_measured_from_the_cell() -> None:
    bucket = Bucket(64, 96)
    cells = [(64 // s) * (96 // s) * 2 for s in (8, 16, 32)]
    scores = [np.zeros((n, 1), np.float32) for n in cells]
    boxes = [np.zeros((n, 4), np.float32) for n in cells]
    points = [np.zeros((n, 10), np.float32) for n in cells]
    scores[1][2 * (6 + 2) + 1] = 0.8  # stride 16: row 1, column 2, second anchor
    boxes[1][2 * (6 + 2) + 1] = (1, 0.5, 2, 1)
    found = read_scrfd([*scores, *boxes, *points], 0, bucket, 0.5)
    assert found.boxes.tolist() == [[32 - 16, 16 - 8, 32 + 32, 16 + 16]]
    assert found.landmarks is not None
    assert found.landmarks[0].tolist() == [[32, 16]] * 5
    assert read_scrfd([*scores, *boxes], 0, bucket, 0.5).landmarks is None


@pytest.mark.shared
def test_yunet_finds_what_opencv_finds(shared_dir: Path) -> None:
    weights = shared_dir / "weights" / "yunet_n.onnx"
    pictures = sorted((shared_dir / "data" / "face_mask_detection" / "images").glob("*.jpg"))[:24]
    ours = make_detector(ModelSettings(detector=f"yunet:{weights}", min_score=0.6), CPU)
    faces = 0
    for path in pictures:
        image = cv2.imread(str(path))
        square = np.zeros((640, 640, 3), np.uint8)
        scale = 640 / max(image.shape[:2])
        small = cv2.resize(image, (round(image.shape[1] * scale), round(image.shape[0] * scale)))
        square[: small.shape[0], : small.shape[1]] = small
        expected = opencv_faces(weights, square)
        found = ours.detect([square])[0]
        # OpenCV suppresses boxes rounded to whole pixels, so a face at the edge of the threshold may differ.
        matched = (iou_matrix(expected.boxes, found.boxes) > 0.98).any(axis=1)
        assert abs(len(found) - len(expected)) <= 1
        assert matched.sum() >= len(expected) - 1
        faces += int(matched.sum())
        for index in np.flatnonzero(matched):
            same = iou_matrix(expected.boxes[index : index + 1], found.boxes)[0].argmax()
            assert abs(float(expected.scores[index] - found.scores[same])) < 1e-3
            assert found.landmarks is not None
            assert expected.landmarks is not None
            assert np.abs(found.landmarks[same] - expected.landmarks[index]).max() < 0.5
    assert faces > 50


def opencv_faces(weights: Path, image: Image) -> Detections:
    detector = cv2.FaceDetectorYN.create(str(weights), "", (image.shape[1], image.shape[0]), 0.6, 0.3, 5000)
    _, rows = detector.detect(image)
    if rows is None:
        return Detections.empty()
    boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
    edge = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
    return Detections(np.clip(boxes, 0, edge), rows[:, 14], rows[:, 4:14].reshape(-1, 5, 2))
