"""MTCNN beside OpenCV's YuNet and our own detector: ``python -m maskbatch_export.detector.mtcnn_comparison DATA --part test``.

Mask projects before this one detected with MTCNN or with OpenCV and left open which is better. MTCNN (Zhang et al., 2016;
package `mtcnn`, which runs on TensorFlow) sees each image scaled as the others see it, and with its thresholds lowered so that
the precision-recall curve has a tail; `--default-thresholds` leaves them as the package has them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from maskbatch.detect.letterbox import scaled_size
from maskbatch.errors import MaskbatchError, MissingExtraError
from maskbatch.evaluate.main import EvaluationRequest, evaluate_models
from maskbatch.evaluate.report import Rules, markdown
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

    name = "mtcnn"

    def __init__(self, det_size: int = 640, min_face: int = 12, default_thresholds: bool = False) -> None:
        try:
            from mtcnn import MTCNN
        except ImportError:
            raise MissingExtraError(
                "the comparison needs the package mtcnn: install it with `uv pip install mtcnn`"
            ) from None
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and print its tables; the exit code."""
    parser = argparse.ArgumentParser(
        prog="maskbatch_export.detector.mtcnn_comparison", description=str(__doc__).partition("\n\n")[0]
    )
    parser.add_argument("data", type=Path, help="annotated images, as for `maskbatch evaluate`")
    parser.add_argument("--detector", action="append", help="others to compare with [default: yunet, retinaface]")
    parser.add_argument("--part", choices=("all", "train", "val", "test"), default="all")
    parser.add_argument("--det-size", type=int, default=640)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--default-thresholds", action="store_true", help="MTCNN with its own thresholds")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args(arguments)
    try:
        request = EvaluationRequest(
            data=given.data,
            detectors=tuple(given.detector or ("yunet", "retinaface")),
            classifier=None,
            part=given.part,
            limit=given.limit,
            rules=Rules(det_size=given.det_size),
        )
        found = evaluate_models(request, others=[Mtcnn(given.det_size, default_thresholds=given.default_thresholds)])
    except MaskbatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(markdown(found))
    if given.json is not None:
        given.json.write_text(json.dumps(found.as_dict(), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
