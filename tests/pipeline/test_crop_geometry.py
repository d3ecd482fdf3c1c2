"""The scan cuts faces as the classifier that runs was trained to see them, not as some default has it."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from maskbatch.classify.classifier import MaskClassifier
from maskbatch.classify.crops import crop_faces
from maskbatch.pipeline.worker import cut_faces
from maskbatch.types import Detections, Frame, Session


class SessionOf:
    """As much of a session as a classifier reads when it is made."""

    name, outputs, batch_size, provider = "tried", ("probabilities",), 8, "CPUExecutionProvider"

    def __init__(self, context: str) -> None:
        self.metadata = {"context": context}

    def run(self, batch: np.ndarray) -> list[np.ndarray]:
        return [np.zeros((len(batch), 3), np.float32)]


@pytest.mark.parametrize("context", ["1.2", "1.7"])
def test_crops_have_the_context_in_the_classifiers_metadata(face_photo: np.ndarray, context: str) -> None:
    classifier = MaskClassifier(cast(Session, SessionOf(context)))
    box = np.array([[170, 60, 270, 180]], np.float32)
    frame = Frame(face_photo, 512, 512, lambda: face_photo)
    boxes, crops, problem = cut_faces(frame, Detections(box, np.ones(1, np.float32)), 0, classifier)
    np.testing.assert_array_equal(crops, crop_faces(face_photo, box, classifier.size, float(context)))
    np.testing.assert_array_equal(boxes.boxes, box)
    assert problem is None
