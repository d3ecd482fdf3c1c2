"""The classifier gives each crop probabilities that depend on that crop alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_maker as make
import pytest

from maskbatch.classify.classifier import FaceClassifier, make_classifier
from maskbatch.classify.crops import crop_faces
from maskbatch.config import ModelSettings
from maskbatch.errors import ModelError
from maskbatch.models import ModelFile
from maskbatch.runtime import open_session, resolve_device
from maskbatch.tasks.mask import LABELS
from maskbatch.types import Image

CPU = resolve_device("cpu")
FACE = np.array([[180, 56, 272, 178]], np.float32)


@pytest.fixture(scope="module")
def classifier() -> FaceClassifier:
    return make_classifier(ModelSettings(), CPU)


def loaded(folder: Path, data: bytes, batch_size: int = 8) -> FaceClassifier:
    path = folder / "own.onnx"
    path.write_bytes(data)
    return FaceClassifier(open_session(ModelFile("own", path, "", "classifier"), CPU, batch_size=batch_size))


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 17])
def test_any_number_of_crops_gives_as_many_rows(classifier: FaceClassifier, count: int) -> None:
    crops = np.random.default_rng(count).integers(0, 256, (count, 128, 128, 3), dtype=np.uint8)
    found = classifier.classify(crops)
    assert found.shape == (count, len(LABELS))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert (found >= 0).all()


def test_bare_face_is_without_mask(classifier: FaceClassifier, face_photo: Image) -> None:
    crops = crop_faces(face_photo, FACE, classifier.size, classifier.context)
    assert LABELS[int(classifier.classify(crops)[0].argmax())] == "without_mask"


def test_a_crop_gives_the_same_bytes_at_every_place_of_a_batch(classifier: FaceClassifier, face_photo: Image) -> None:
    crop = crop_faces(face_photo, FACE, classifier.size, classifier.context)[0]
    others = np.random.default_rng(1).integers(0, 256, (9, 128, 128, 3), dtype=np.uint8)
    alone = classifier.classify(crop[None])[0].tobytes()
    for place in range(10):
        among = classifier.classify(np.insert(others, place, crop, axis=0))
        assert among[place].tobytes() == alone


def test_rows_left_over_are_the_right_ones(tmp_path: Path) -> None:
    classifier = loaded(tmp_path, make.colour_classifier(16), batch_size=4)
    assert (classifier.size, classifier.batch_size) == (16, 4)
    crops = np.zeros((11, 16, 16, 3), np.uint8)
    winners = np.arange(11) * 7 % 3
    crops[np.arange(11), :, :, winners] = 200
    assert classifier.classify(crops).argmax(axis=1).tolist() == winners.tolist()
    assert classifier.classify(crops[:1]).argmax(axis=1).tolist() == [0]


def test_other_crops_are_refused(classifier: FaceClassifier) -> None:
    for crops in (
        np.zeros((1, 64, 64, 3), np.uint8),
        np.zeros((1, 128, 128, 3), np.float32),
        np.zeros((128, 128, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match="expected uint8 crops"):
            classifier.classify(crops)  # type: ignore[arg-type]


def test_model_that_is_no_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a face classifier"):
        loaded(tmp_path, make.doubling_model())
    x = make.value_info("images", make.UINT8, ["N", 16, 16, 3])
    y = make.value_info("y", make.UINT8, ["N", 16, 16, 3])
    same = make.model(make.graph([make.node("Identity", ["images"], ["y"])], [x], [y]))
    with pytest.raises(
        ModelError, match=r"gives \[8, 16, 16, 3\] for 8 faces, not a probability for each of the labels"
    ):
        loaded(tmp_path, same).classify(np.zeros((1, 16, 16, 3), np.uint8))
