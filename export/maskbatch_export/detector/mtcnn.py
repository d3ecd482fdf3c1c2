"""MTCNN beside OpenCV's YuNet and our own detector: ``maskbatch export detector compare``.

Mask projects before this one detected with MTCNN or with OpenCV and left open which is better. MTCNN (Zhang et al., 2016;
package `mtcnn`, which runs on TensorFlow) sees each image scaled as the others see it: with its thresholds lowered so that
the precision-recall curve has a tail, and with those that the package has.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from maskbatch.detect.letterbox import scaled_size
from maskbatch.errors import MissingExtraError
from maskbatch.evaluate.main import EvaluationRequest, evaluate_models
from maskbatch.evaluate.report import Evaluation, Rules
from maskbatch.evaluate.truth import PartName
from maskbatch.types import Detections, Image

POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
LOWERED = {"threshold_pnet": 0.5, "threshold_rnet": 0.5, "threshold_onet": 0.1}


class Mtcnn:
    """The package's detector in the shape that ``maskbatch evaluate`` takes.

    Args:
        det_size: images are scaled until their long side is this, as for the other detectors.
        min_face: smallest face looked for, in pixels of the scaled image; the network's own least is 12.
        default_thresholds: keep the package's thresholds.
    """

    def __init__(self, det_size: int = 640, min_face: int = 12, default_thresholds: bool = False) -> None:
        try:
            from mtcnn import MTCNN
        except ImportError:
            raise MissingExtraError(
                "the comparison needs the package mtcnn: install it with `uv pip install mtcnn`"
            ) from None
        self.name = "mtcnn, own thresholds" if default_thresholds else "mtcnn"
        self._det_size = det_size
        self._options: dict[str, float] = {"min_face_size": min_face, **({} if default_thresholds else LOWERED)}
        self._network = MTCNN(device="CPU:0")

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Faces of each image, H×W×3 uint8 BGR, in its own pixels."""
        return [self._detect(image) for image in images]

    def _detect(self, image: Image) -> Detections:
        height, width = scaled_size(image.shape[0], image.shape[1], self._det_size)
        scaled = cv2.cvtColor(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), cv2.COLOR_BGR2RGB)
        try:
            rows = self._network.detect_faces(scaled, **self._options)
        except ValueError:
            # The package fails where its first stage proposes nothing.
            return Detections.empty()
        if not rows:
            return Detections.empty()
        boxes = np.array([row["box"] for row in rows], np.float32)
        boxes[:, 2:] += boxes[:, :2]
        marks = np.array([[row["keypoints"][point] for point in POINTS] for row in rows], np.float32)
        scores = np.array([row["confidence"] for row in rows], np.float32)
        found = Detections(boxes, scores, marks).scaled(image.shape[1] / width)
        found.boxes = np.clip(found.boxes, 0, np.array([image.shape[1], image.shape[0]] * 2, np.float32))
        solid = np.all(found.boxes[:, 2:] > found.boxes[:, :2], axis=1)
        return found.select(solid).select(np.argsort(-scores[solid], kind="stable"))


def compare(
    data: Path, detectors: Sequence[str], part: PartName, det_size: int, limit: int | None = None
) -> Evaluation:
    """MTCNN, with lowered thresholds and with its own, and maskbatch's detectors on the same annotated images.

    Args:
        data: annotated images, as for `maskbatch evaluate`.
        detectors: names as for a scan.
        part: of the data, by near-duplicate group.
        det_size: long side in pixels at which all of them look.
        limit: at most this many images.

    Raises:
        MissingExtraError: the package `mtcnn` is not installed.
        UsageError, ModelError: as `evaluate_models`.
    """
    request = EvaluationRequest(
        data=data,
        detectors=tuple(detectors),
        classifier=None,
        part=part,
        limit=limit,
        rules=Rules(det_size=det_size),
    )
    return evaluate_models(request, others=[Mtcnn(det_size), Mtcnn(det_size, default_thresholds=True)])
