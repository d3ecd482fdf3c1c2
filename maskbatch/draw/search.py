"""The second look at a video that is to be redacted: a detector at every frame, surer to find than the scan, whose rows stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from maskbatch.config import Limits, Sampling
from maskbatch.draw.cover import HOLD_S, Cover, Looks
from maskbatch.draw.images import by_frame
from maskbatch.sources.videos.reader import VideoReader
from maskbatch.types import Detections, Floats, Frame, Image, Piece, Source

if TYPE_CHECKING:
    from maskbatch.detect.base import Detector

MIN_SCORE = 0.2
"""Detector score from which something is hidden; the scan asks for more before it counts a face."""


def search_faces(
    source: Source,
    detector: Detector,
    rows: pa.Table,
    sampling: Sampling,
    limits: Limits,
    every_s: float = 0.0,
    tick: Callable[[], None] = lambda: None,
    *,
    landmarks: bool = False,
) -> Cover:
    """Look for faces in a whole video and say what is to be hidden in it, when.

    Args:
        source: a video.
        detector: with a low threshold (`MIN_SCORE`).
        rows: the video's rows of the results; their faces are hidden too.
        sampling: of the scan; only ``start_s`` and ``end_s`` count.
        limits: as in the scan.
        every_s: look at a frame in this many seconds; 0 is every frame.
        tick: called for every frame.
        landmarks: whether the areas have landmarks.

    Raises:
        InputError: the video cannot be read.
    """
    # Somebody seen just before or after the part that is written is held into it.
    looked = Sampling(
        mode="every" if every_s else "all",
        every_s=every_s or 1.0,
        start_s=max(0.0, sampling.start_s - HOLD_S),
        end_s=None if sampling.end_s is None else sampling.end_s + HOLD_S,
    )
    looks = Looks()
    pending = _Rows(rows)
    with VideoReader(Piece(source, 0, 1), looked, limits, detector.det_size, tick) as reader:
        for batch in _batches(reader, detector.batch_size):
            found = detector.detect([frame.image for frame in batch])
            for frame, detections in zip(batch, found, strict=True):
                at, ordinal = frame.time_s or 0.0, frame.ordinal or 0
                pending.add_before(ordinal, looks)
                known = pending.of(ordinal)
                parts = [_parts(detections.scaled(1 / frame.scale) if frame.scale != 1 else detections)]
                parts += [known] if known is not None else []
                boxes, scores, points = (np.concatenate(values) for values in zip(*parts, strict=True))
                looks.add(at, boxes, scores, points)
    pending.add_before(None, looks)
    return looks.cover(every_s, landmarks=landmarks)


def cover_of_rows(rows: pa.Table, step_s: float, *, landmarks: bool = False) -> Cover:
    """The same from the rows of the scan alone, with nothing known of what happens between its samples.

    `step_s`: time between two samples.
    """
    looks = Looks()
    _Rows(rows).add_before(None, looks)
    return looks.cover(step_s, landmarks=landmarks)


class TwoScales:
    """A detector made of the scan's own and of one that sees more pixels and so smaller faces.

    In many pixels a smooth, dark wall is easily taken for a large face: large ones need a better score there.

    Args:
        small: at the size of the scan.
        large: the same model at a larger size.
    """

    def __init__(self, small: Detector, large: Detector) -> None:
        self._small = small
        self._large = large

    @property
    def name(self) -> str:
        """Of the model."""
        return self._large.name

    @property
    def has_landmarks(self) -> bool:
        """See `Detector.has_landmarks`."""
        return self._large.has_landmarks

    @property
    def det_size(self) -> int:
        """The larger one."""
        return self._large.det_size

    @property
    def batch_size(self) -> int:
        """See `Detector.batch_size`."""
        return self._large.batch_size

    def warm_up(self) -> None:
        """See `Detector.warm_up`."""
        self._small.warm_up()
        self._large.warm_up()

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """See `Detector.detect`; what both find is there once."""
        found = []
        for image, small, large in zip(images, self._small.detect(images), self._large.detect(images), strict=True):
            kept = [
                _plausible(detections, detector.det_size / max(image.shape[:2]), least)
                for detections, detector, least in ((small, self._small, 0.35), (large, self._large, 0.6))
            ]
            found.append(_together(*kept))
        return found


_LARGE = 224
"""Pixels of the detector's input from which a face is large."""


def _plausible(found: Detections, scale: float, least: float) -> Detections:
    sides = (found.boxes[:, 2:] - found.boxes[:, :2]).max(axis=1, initial=0) * scale
    return found.select((found.scores >= least) | ((sides < _LARGE) & (found.scores >= MIN_SCORE)))


def _together(small: Detections, large: Detections) -> Detections:
    """Both, but of faces that both found the one with the better score."""
    from maskbatch.detect.nms import nms  # with it comes ONNX Runtime, which other drawing need not load

    boxes, scores, points = (np.concatenate(pair) for pair in zip(_parts(small), _parts(large), strict=True))
    order = np.argsort(-scores, kind="stable")
    order = order[nms(boxes[order], 0.5)]
    return Detections(boxes[order], scores[order], points[order])


_Parts = tuple[Floats, Floats, Floats]


def _parts(found: Detections) -> _Parts:
    points = np.full((len(found), 5, 2), np.nan, np.float32) if found.landmarks is None else found.landmarks
    return found.boxes, found.scores, points


def _batches(frames: VideoReader, size: int) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    for frame in frames:
        if frame.image.size:
            batch.append(frame)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


class _Rows:
    """Faces of the results, by frame, to be taken in order."""

    def __init__(self, rows: pa.Table) -> None:
        self._frames = by_frame(rows)
        self._order = sorted(self._frames, reverse=True)

    def add_before(self, ordinal: int | None, looks: Looks) -> None:
        """Add those of earlier frames that were not taken, as looks of their own; of all frames for None."""
        while self._order and (ordinal is None or self._order[-1] < ordinal):
            frame = self._order.pop()
            looks.add(float(self._frames[frame][0]["time_s"] or 0.0), *self._parts(frame))

    def of(self, ordinal: int) -> _Parts | None:
        """Those of one frame, taken."""
        if self._order and self._order[-1] == ordinal:
            return self._parts(self._order.pop())
        return None

    def _parts(self, frame: int) -> _Parts:
        rows = self._frames[frame]
        boxes = np.array([[row[name] for name in ("x1", "y1", "x2", "y2")] for row in rows], np.float32)
        points = np.full((len(rows), 5, 2), np.nan, np.float32)
        for point, row in zip(points, rows, strict=True):
            if row.get("landmarks") is not None:
                point[:] = np.array(row["landmarks"], np.float32).reshape(5, 2)
        return boxes, np.ones(len(rows), np.float32), points
