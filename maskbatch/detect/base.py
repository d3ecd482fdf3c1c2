"""What every detector is, and the way all of them go: letterbox into a bucket, one forward pass, read the outputs, NMS.

A family differs in two things only: how pixels are put to the network (`Preparation`) and how its outputs are read
(`Reader`). Both are plain functions of one file each; the rest is `LetterboxDetector`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from maskbatch.detect.close import CONFIRMS, close_bucket, join_close_look, needs_close_look
from maskbatch.detect.letterbox import Bucket, fit, paste
from maskbatch.detect.nms import nms, vote
from maskbatch.types import Detections, Floats, Image, Session

Array = npt.NDArray[Any]

MAX_CANDIDATES = 3000
"""Boxes of one image that enter NMS at most, best first: bounds time and memory on hostile images."""


class Detector(Protocol):
    """Finds faces in images, many at a time."""

    @property
    def name(self) -> str:
        """Of the model, as in the registry."""

    @property
    def has_landmarks(self) -> bool:
        """Whether `detect` gives five points per face."""

    @property
    def det_size(self) -> int:
        """Long side of the network's input in pixels."""

    @property
    def batch_size(self) -> int:
        """Images per forward pass; lists that are a multiple of it waste nothing."""

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Faces of each image.

        Args:
            images: H×W×3 uint8, BGR, of any sizes.

        Returns:
            One `Detections` per image: boxes in pixels of that image and inside it, best score first,
            overlaps removed. What is found in an image does not depend on the other images of the call.
        """

    def warm_up(self) -> None:
        """Run every shape that `detect` can meet once, so that none is compiled or allocated in mid-run."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a network proposes for one image, before NMS, in pixels of the network's input.

    Attributes:
        boxes: n×4 float32.
        scores: n float32.
        landmarks: n×5×2 float32, or None.
    """

    boxes: Floats
    scores: Floats
    landmarks: Floats | None


class Reader(Protocol):
    """Reads a network's outputs: thresholds first, and decodes only what is left."""

    def __call__(self, outputs: Sequence[Array], row: int, bucket: Bucket, min_score: float) -> Candidates:
        """Candidates of the image in row `row` of a batch of images of `bucket`."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """How pixels are put to a network.

    Attributes:
        layout: ``NHWC`` takes the uint8 BGR image as it is; ``NCHW`` takes float32 planes, `scale` × (pixel − `mean`).
        rgb: planes are red, green, blue.
    """

    layout: Literal["NHWC", "NCHW"] = "NHWC"
    mean: float = 0.0
    scale: float = 1.0
    rgb: bool = False

    def __call__(self, canvas: Image) -> Array:
        """The network's input for n×H×W×3 uint8 images."""
        if self.layout == "NHWC":
            return canvas
        blob: Array = cv2.dnn.blobFromImages(list(canvas), self.scale, mean=(self.mean,) * 3, swapRB=self.rgb)
        return blob


@dataclass(frozen=True, slots=True)
class DetectorFamily:
    """How the ONNX files of one family are used: what a new file in this folder, or another package, defines.

    Attributes:
        name: in ``FAMILY:PATH.onnx`` and in the registry.
        recognises: whether a file with these outputs is of the family.
        make: the detector over an open session: name, session, buckets, least score. Raises ModelError for other outputs.
        layout: of the input, by which a file's fixed shape is read.
        free_shapes: the files declare a toy shape although they take any.
    """

    name: str
    recognises: Callable[[tuple[str, ...]], bool]
    make: Callable[[str, Session, tuple[Bucket, ...], float], LetterboxDetector]
    layout: Literal["NHWC", "NCHW"] = "NCHW"
    free_shapes: bool = False


class LetterboxDetector:
    """A detector made of a session, a preparation and a reader.

    Not for several threads at once: the canvases are reused from call to call.
    """

    def __init__(
        self,
        name: str,
        session: Session,
        reader: Reader,
        buckets: tuple[Bucket, ...],
        *,
        min_score: float,
        nms_iou: float = 0.4,
        vote_iou: float | None = None,
        has_landmarks: bool = True,
        close_look: bool = False,
        preparation: Preparation = Preparation(),
    ) -> None:
        self._name = name
        self._session = session
        self._reader = reader
        self._buckets = buckets
        self._min_score = min_score
        self._nms_iou = nms_iou
        self._vote_iou = vote_iou
        self._has_landmarks = has_landmarks
        self._close_look = close_look
        self._prepare = preparation
        self._canvases: dict[Bucket, Image] = {}

    @property
    def name(self) -> str:
        return self._name

    @property
    def has_landmarks(self) -> bool:
        return self._has_landmarks

    @property
    def det_size(self) -> int:
        return max(max(bucket.height, bucket.width) for bucket in self._buckets)

    @property
    def batch_size(self) -> int:
        return self._session.batch_size

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """The fixed shapes of the network's input."""
        return (*self._buckets, close_bucket(self.det_size)) if self._close_look else self._buckets

    def with_min_score(self, min_score: float) -> LetterboxDetector:
        """The same detector over the same session with another threshold."""
        return LetterboxDetector(
            self._name,
            self._session,
            self._reader,
            self._buckets,
            min_score=min_score,
            nms_iou=self._nms_iou,
            vote_iou=self._vote_iou,
            has_landmarks=self._has_landmarks,
            close_look=self._close_look,
            preparation=self._prepare,
        )

    def with_one_look(self) -> LetterboxDetector:
        """The same detector without a second look at close-ups: what the first look finds stays, parts and doubtful ones too."""
        other = self.with_min_score(self._min_score)
        other._close_look = False
        return other

    def with_reader(self, wrap: Callable[[Reader], Reader]) -> LetterboxDetector:
        """The same detector with its reader wrapped by another, for families that read as one of ours does and then differ."""
        other = self.with_min_score(self._min_score)
        other._reader = wrap(self._reader)
        return other

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """See `Detector.detect`."""
        found: list[Detections | None] = [None] * len(images)
        by_bucket: dict[Bucket, list[int]] = {}
        for index, image in enumerate(images):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
                raise ValueError(f"expected an image of H×W×3 uint8, got {image.dtype} {image.shape}")
            by_bucket.setdefault(fit(image.shape[0], image.shape[1], self._buckets), []).append(index)
        size = self._session.batch_size
        for bucket, indices in by_bucket.items():
            for start in range(0, len(indices), size):
                batch = indices[start : start + size]
                for index, detections in zip(
                    batch, self._run(bucket, [images[i] for i in batch], self._min_score), strict=True
                ):
                    found[index] = detections
        whole = [detections for detections in found if detections is not None]
        return self._look_closer(images, whole) if self._close_look else whole

    def _look_closer(self, images: Sequence[Image], found: list[Detections]) -> list[Detections]:
        """The same, with a second look at the images that a face fills."""
        scales = [self.det_size / max(image.shape[:2]) for image in images]
        close = [
            i for i, (faces, scale) in enumerate(zip(found, scales, strict=True)) if needs_close_look(faces, scale)
        ]
        for start in range(0, len(close), self._session.batch_size):
            batch = close[start : start + self._session.batch_size]
            looks = self._run(close_bucket(self.det_size), [images[i] for i in batch], min(self._min_score, CONFIRMS))
            for i, detections in zip(batch, looks, strict=True):
                found[i] = join_close_look(found[i], detections, scales[i])
        return found

    def warm_up(self) -> None:
        """See `Detector.warm_up`."""
        for bucket in self.buckets:
            self._session.run(self._prepare(self._canvas(bucket)))

    def _canvas(self, bucket: Bucket) -> Image:
        canvas = self._canvases.get(bucket)
        if canvas is None:
            canvas = np.zeros((self._session.batch_size, bucket.height, bucket.width, 3), np.uint8)
            self._canvases[bucket] = canvas
        return canvas

    def _run(self, bucket: Bucket, images: list[Image], min_score: float) -> list[Detections]:
        canvas = self._canvas(bucket)
        scales = [paste(image, canvas[row]) for row, image in enumerate(images)]
        # Rows left over keep older images; the network treats rows apart, and they are not read.
        outputs = self._session.run(self._prepare(canvas))
        return [
            self._finish(self._reader(outputs, row, bucket, min_score), image, scales[row])
            for row, image in enumerate(images)
        ]

    def _finish(self, candidates: Candidates, image: Image, scales: tuple[float, float]) -> Detections:
        order = np.argsort(-candidates.scores, kind="stable")[:MAX_CANDIDATES]
        boxes = candidates.boxes[order]
        keep = nms(boxes, self._nms_iou)
        kept = boxes[keep]
        if self._vote_iou is not None:
            kept = vote(kept, boxes, candidates.scores[order], self._vote_iou)
            apart = nms(kept, self._nms_iou)  # two boxes may have been voted onto the same face
            kept, keep = kept[apart], keep[apart]
        order = order[keep]
        height, width = image.shape[:2]
        to_image = np.array([1 / scales[0], 1 / scales[1]] * 2, np.float32)
        boxes = kept * to_image
        np.clip(boxes, 0, np.array([width, height, width, height], np.float32), out=boxes)
        landmarks = None
        if candidates.landmarks is not None:
            landmarks = candidates.landmarks[order] * to_image[:2]
        # A proposal wholly outside the image is nothing that a crop could be cut from.
        solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        found = Detections(boxes, candidates.scores[order], landmarks)
        return found if solid.all() else found.select(solid)
