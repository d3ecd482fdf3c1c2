"""RetinaFace (Deng et al., 2020): anchors at three strides, boxes and five landmarks relative to them.

The file takes uint8 images and gives probabilities and raw deltas; its anchors stand in its metadata. Decoding follows
SSD (Liu et al., 2016, section 2.2): centre offsets in units of ``variance × side``, sizes as ``exp(variance × delta)``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskbatch.detect.base import Array, Candidates, DetectorFamily, LetterboxDetector
from maskbatch.detect.close import LARGE
from maskbatch.detect.letterbox import Bucket
from maskbatch.errors import ModelError
from maskbatch.types import Floats, Session

_ORDER = "stride,row,column,side"
_NMS_IOU = 0.45


@dataclass(frozen=True, slots=True)
class Anchors:
    """The anchor grid of a model, from its metadata key ``anchors``."""

    strides: tuple[int, ...]
    sides: tuple[tuple[float, ...], ...]
    variances: tuple[float, float]
    centre: float

    @classmethod
    def parse(cls, text: str) -> Anchors:
        """Raises ValueError, KeyError or TypeError where the text is not what the exporter writes."""
        values = json.loads(text)
        if values["order"] != _ORDER:
            raise ValueError(f"anchors in the order {values['order']!r}")
        strides = tuple(int(stride) for stride in values["strides"])
        sides = tuple(tuple(float(side) for side in group) for group in values["sides"])
        first, second = values["variances"]
        if len(strides) != len(sides):
            raise ValueError("not as many groups of sides as strides")
        return cls(strides, sides, (float(first), float(second)), float(values["centre"]))

    def grid(self, bucket: Bucket) -> Floats:
        """A×3 float32: centre x, centre y and side of every anchor, in the order of the outputs."""
        parts = []
        for stride, sides in zip(self.strides, self.sides, strict=True):
            rows = (np.arange(bucket.height // stride) + self.centre) * stride
            columns = (np.arange(bucket.width // stride) + self.centre) * stride
            y, x, side = np.meshgrid(rows, columns, np.array(sides), indexing="ij")
            parts.append(np.stack([x, y, side], axis=-1).reshape(-1, 3))
        return np.concatenate(parts).astype(np.float32)


class RetinaFaceReader:
    """Reads ``scores`` N×A, ``deltas`` N×A×4 and ``landmark_deltas`` N×A×10."""

    def __init__(self, anchors: Anchors, outputs: tuple[str, ...]) -> None:
        self._anchors = anchors
        self._grids: dict[Bucket, Floats] = {}
        self._scores, self._deltas, self._points = (
            outputs.index(name) for name in ("scores", "deltas", "landmark_deltas")
        )

    def __call__(self, outputs: Sequence[Array], row: int, bucket: Bucket, min_score: float) -> Candidates:
        scores = outputs[self._scores][row]
        chosen = np.flatnonzero(scores >= min_score)
        grid = self._grids.get(bucket)
        if grid is None:
            grid = self._grids[bucket] = self._anchors.grid(bucket)
        anchors = grid[chosen]
        centres, sides = anchors[:, :2], anchors[:, 2:]
        offset, growth = np.float32(self._anchors.variances[0]), np.float32(self._anchors.variances[1])
        deltas = outputs[self._deltas][row, chosen].astype(np.float32, copy=False)
        middle = centres + deltas[:, :2] * (offset * sides)
        # exp of a wild delta would overflow; no face is e^10 times its anchor.
        half = sides * np.exp(np.minimum(growth * deltas[:, 2:], np.float32(10))) / 2
        points = outputs[self._points][row, chosen].astype(np.float32, copy=False).reshape(-1, 5, 2)
        landmarks = centres[:, None] + points * (offset * sides)[:, None]
        return Candidates(
            np.concatenate([middle - half, middle + half], axis=1),
            scores[chosen].astype(np.float32, copy=False),
            landmarks,
        )


def make_retinaface(name: str, session: Session, buckets: tuple[Bucket, ...], min_score: float) -> LetterboxDetector:
    """The project's own detector over a loaded file.

    Raises:
        ModelError: the file has no anchors in its metadata, or other outputs.
    """
    try:
        anchors = Anchors.parse(session.metadata["anchors"])
        reader = RetinaFaceReader(anchors, session.outputs)
        nms_iou = float(session.metadata.get("nms_iou", _NMS_IOU))
        vote_iou = float(session.metadata["vote_iou"]) if "vote_iou" in session.metadata else None
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"model {name} is not a RetinaFace of this project ({error}): choose another file") from None
    return LetterboxDetector(
        name,
        session,
        reader,
        buckets,
        min_score=min_score,
        nms_iou=nms_iou,
        vote_iou=vote_iou,
        # A file of one fixed shape takes no other, and a small input shows large faces as it is.
        close_look=len(buckets) > 1 and max(bucket.width for bucket in buckets) > LARGE,
    )


RETINAFACE = DetectorFamily(
    "retinaface",
    lambda outputs: {"scores", "deltas", "landmark_deltas"} <= set(outputs),
    make_retinaface,
    layout="NHWC",
)
