"""Running detectors and the classifier over annotated images: everything that is measured, nothing that is concluded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from maskbatch.classify.classifier import FaceClassifier
from maskbatch.classify.crops import crop_faces
from maskbatch.config import Limits
from maskbatch.detect import LetterboxDetector
from maskbatch.errors import InputError, UsageError
from maskbatch.evaluate.truth import Truth
from maskbatch.sources.images.decode import decode_image
from maskbatch.storage.opener import read_bytes
from maskbatch.types import Detections, Floats, Image

FLOOR = 0.02
"""Least score at which detections are collected: the precision-recall curve needs the weak ones too."""

MOST = 750
"""Detections of one image that are judged at most, best first; as many as WIDER FACE's own evaluation sees."""

CLASSIFY_FROM = 0.1
"""Least score of the detections that are classified: weaker ones would cost hours and move the end-to-end figures by nothing."""

TIMED = 200
"""Images on which our own detectors are timed."""


class PictureDetector(Protocol):
    """What is evaluated: a `maskbatch.detect.Detector`, or anything that looks like one (MTCNN in the training package)."""

    @property
    def name(self) -> str: ...

    def detect(self, images: Sequence[Image]) -> list[Detections]: ...


@dataclass(slots=True)
class Run:
    """What one detector found.

    Attributes:
        name: of the detector.
        found: per image, in the order of the truth.
        probabilities: per image m×k float32 from the classifier, for the m best detections, those of at least
            `CLASSIFY_FROM`; the list is empty without a classifier.
        ms: milliseconds per image spent in `detect`, for the images that were timed.
        classify_ms: milliseconds per image spent cutting and classifying those.
    """

    name: str
    found: list[Detections] = field(default_factory=list)
    probabilities: list[Floats] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    classify_ms: list[float] = field(default_factory=list)


def run_detectors(
    truths: Sequence[Truth],
    detectors: Sequence[PictureDetector],
    classifier: FaceClassifier | None = None,
    progress: Callable[[int, int], None] | None = None,
    batch_size: int = 1,
    timed_score: float | None = None,
) -> tuple[list[Run], list[tuple[int, int]]]:
    """Show every image to every detector.

    The detectors take turns on each batch, so that a busy moment of the machine slows all of them alike.

    Args:
        truths: the annotated images.
        detectors: made with a `min_score` of `FLOOR`.
        classifier: classifies what each detector found; None leaves that out.
        progress: told images done and images in all.
        batch_size: images per `detect` call.
        timed_score: our own detectors are timed apart, at this threshold, on the first `TIMED` images: a scan does not pay
            for reading thousands of weak candidates. None times the collecting itself.

    Returns:
        What each detector found, and height and width of every image.

    Raises:
        UsageError: an image cannot be read.
    """
    sizes: list[tuple[int, int]] = []
    runs = [Run(detector.name) for detector in detectors]
    timed = [_as_in_a_scan(detector, timed_score) for detector in detectors]
    _warm_up(truths[0], timed)
    for start in range(0, len(truths), batch_size):
        images = [load(truth) for truth in truths[start : start + batch_size]]
        sizes += [image.shape[:2] for image in images]
        for run, detector, quick in zip(runs, detectors, timed, strict=True):
            began = time.perf_counter()
            found = quick.detect(images) if quick is detector or start < TIMED else []
            spent = (time.perf_counter() - began) * 1000 / len(images)
            if quick is not detector:
                found = detector.detect(images)
            run.found += [faces.select(np.arange(min(len(faces), MOST))) for faces in found]
            if quick is detector or start < TIMED:
                run.ms += [spent] * len(images)
            if classifier is not None:
                for image, faces in zip(images, run.found[start:], strict=True):
                    began = time.perf_counter()
                    run.probabilities.append(classify(image, faces.select(faces.scores >= CLASSIFY_FROM), classifier))
                    run.classify_ms.append((time.perf_counter() - began) * 1000)
        if progress:
            progress(min(start + batch_size, len(truths)), len(truths))
    return runs, sizes


def load(truth: Truth) -> Image:
    """The image at full size, H×W×3 uint8 BGR.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return decode_image(read_bytes(str(truth.path)), cover=0, max_pixels=Limits().max_pixels).image
    except InputError as error:
        raise UsageError(f"{truth.path} cannot be read: {error.message}") from None


def classify(image: Image, faces: Detections, classifier: FaceClassifier) -> Floats:
    """Probabilities n×k of the faces of one image."""
    if not len(faces):
        return np.zeros((0, len(classifier.labels)), np.float32)
    return classifier.classify(crop_faces(image, faces.boxes, classifier.size, classifier.context))


def _as_in_a_scan(detector: PictureDetector, score: float | None) -> PictureDetector:
    return detector.with_min_score(score) if score is not None and isinstance(detector, LetterboxDetector) else detector


def _warm_up(truth: Truth, detectors: Sequence[PictureDetector]) -> None:
    """The first call allocates and compiles; it is not part of the milliseconds."""
    image = load(truth)
    for detector in detectors:
        detector.detect([image])
