"""The scan cuts faces as the classifier that runs was trained to see them, not as some default has it."""

from __future__ import annotations

import numpy as np
import pytest

from maskbatch.classify.classifier import make_classifier
from maskbatch.classify.crops import crop_faces
from maskbatch.config import ModelSettings
from maskbatch.pipeline.worker import cut_faces
from maskbatch.runtime import resolve_device
from maskbatch.types import Detections, Frame


@pytest.mark.parametrize("context", [1.2, 1.7])
def test_crops_have_the_context_of_the_classifier(face_photo: np.ndarray, context: float) -> None:
    classifier = make_classifier(ModelSettings(), resolve_device("cpu"))
    classifier.context = context
    box = np.array([[170, 60, 270, 180]], np.float32)
    frame = Frame(face_photo, 512, 512, lambda: face_photo)
    boxes, crops, problem = cut_faces(frame, Detections(box, np.ones(1, np.float32)), 0, classifier)
    np.testing.assert_array_equal(crops, crop_faces(face_photo, box, classifier.size, context))
    np.testing.assert_array_equal(boxes.boxes, box)
    assert problem is None
