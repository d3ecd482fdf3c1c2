"""Large images in overlapping tiles, besides the look at the whole: small faces stay large enough, and no seam cuts one in two.

The whole image, made small, shows large faces; a tile shows at its own size what the whole shows at a tenth. Tiles overlap by a
quarter, so that a face of up to a quarter of a tile is whole in one of them, and what touches a seam of a tile is left to that one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from maskbatch.detect.base import Detector
from maskbatch.types import Detections, Floats, Image

TILE_FROM = 3.0
"""Images that the detector would see more than this many times smaller are looked at in tiles too; 1920 pixels at 640 are not."""
TILE_SHRINK = 1.0
"""How many times smaller a tile is seen. In mosaics of 6000×4000 pixels 8 of 426 faces are found without tiles, 225 at 2, 289 at 1.5, and
343 at 1, where an image takes 2.4 s of CPU in place of .2 (`benchmarks/mosaic.py`)."""
OVERLAP = 0.25
_SAME_IOU = 0.4
_INSIDE = 0.7
"""A box of which this share lies in a better one is the same face, seen in part."""
_SEAM = 0.01


def needs_tiles(height: int, width: int, det_size: int) -> bool:
    """Whether an image of this size (pixels of the original) is looked at in tiles."""
    return max(height, width) > TILE_FROM * det_size


def tile_boxes(height: int, width: int, det_size: int) -> list[tuple[int, int, int, int]]:
    """Left, top, right, bottom of the tiles of an image in its pixels, row by row: all of one size, evenly spread, covering it."""
    side = round(TILE_SHRINK * det_size)
    rows, columns = (_starts(length, side) for length in (height, width))
    return [(x, y, min(x + side, width), min(y + side, height)) for y in rows for x in columns]


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    count = -(-(length - round(side * OVERLAP)) // round(side * (1 - OVERLAP)))
    return [round(step * (length - side) / (count - 1)) for step in range(count)]


def detect_in_tiles(image: Image, whole: Detections, detector: Detector) -> Detections:
    """The faces of an image: those found in the whole of it and those found in its tiles, each once.

    Args:
        image: H×W×3 uint8 BGR at full size.
        whole: what the detector found in the whole, in pixels of `image`.
        detector: which looks at the tiles.

    Returns:
        Boxes in pixels of `image`, best score first.
    """
    height, width = image.shape[:2]
    tiles = tile_boxes(height, width, detector.det_size)
    seen = [whole]
    # A few at a time: a detector holds copies of what it is given.
    step = max(1, detector.batch_size)
    for start in range(0, len(tiles), step):
        part = tiles[start : start + step]
        found = detector.detect([image[y1:y2, x1:x2] for x1, y1, x2, y2 in part])
        seen += [_whole_faces(faces, tile, (height, width)) for faces, tile in zip(found, part, strict=True)]
    return merge(seen)


def _whole_faces(found: Detections, tile: tuple[int, int, int, int], size: tuple[int, int]) -> Detections:
    """Faces of a tile in pixels of the image, without those that touch a seam."""
    left, top, right, bottom = tile
    height, width = size
    x1, y1, x2, y2 = found.boxes.T
    reach = _SEAM * max(right - left, bottom - top)
    cut = ((x1 < reach) & (left > 0)) | ((y1 < reach) & (top > 0))
    cut |= ((x2 > right - left - reach) & (right < width)) | ((y2 > bottom - top - reach) & (bottom < height))
    kept = found.select(~cut)
    moved = np.array([left, top], np.float32)
    landmarks = None if kept.landmarks is None else kept.landmarks + moved
    return Detections(kept.boxes + np.tile(moved, 2), kept.scores, landmarks)


def merge(parts: Sequence[Detections]) -> Detections:
    """All faces of several looks at one image, each once: of boxes that are the same face, or a part of it, the best score stays."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return Detections.empty()
    boxes, scores = np.concatenate([p.boxes for p in parts]), np.concatenate([p.scores for p in parts])
    landmarks = None
    if all(part.landmarks is not None for part in parts):
        landmarks = np.concatenate([part.landmarks for part in parts if part.landmarks is not None])
    found = Detections(boxes, scores, landmarks).select(np.argsort(-scores, kind="stable"))
    left, kept = np.arange(len(found)), []
    while len(left):
        best = left[0]
        kept.append(best)
        left = left[1:]
        left = left[~_same_face(found.boxes[best], found.boxes[left])]
    return found.select(np.array(kept, np.intp))


def _same_face(box: Floats, others: Floats) -> npt.NDArray[np.bool_]:
    inner = np.clip(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0, None).prod(1)
    area, areas = float((box[2:] - box[:2]).prod()), (others[:, 2:] - others[:, :2]).prod(1)
    same: npt.NDArray[np.bool_] = (inner > _SAME_IOU * (area + areas - inner)) | (
        inner > _INSIDE * np.minimum(area, areas)
    )
    return same
