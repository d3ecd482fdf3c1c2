"""A second, smaller look at images that a face fills: one face there gives one box, and walls and furniture none.

A detector has no anchor for a face of half its input and more, and sees its parts as faces. The same image at a third of the size
shows it as an ordinary face; what is large and no face shows nothing there. The look costs a tenth of the first and is taken only
where that found something large.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from maskbatch.config import MIN_SCORE, STRIDE
from maskbatch.detect.letterbox import Bucket
from maskbatch.types import Detections, Floats

LARGE = 256
"""Pixels of the first look: a box whose longer side has as many asks for a second look; the largest anchor is that large."""
_TRUSTED = 192
"""Pixels of the first look from which a box of the second look counts; the first look sees smaller ones better."""
_SHARED = 0.3
"""A box of the first look that shares this much with one of the second, of the smaller of the two, is that face or a part of it."""
_DOUBTFUL = 0.7
"""A large box of the first look with a lower score needs to be confirmed by the second; false ones, in rooms without people, had .40 to .61."""
CONFIRMS = 0.1
"""Least score of a box of the second look that confirms."""


def close_bucket(det_size: int) -> Bucket:
    """Input of the second look: three tenths of the first's long side, 192×192 pixels for 640."""
    side = STRIDE * max(1, round(0.3 * det_size / STRIDE))
    return Bucket(side, side)


def needs_close_look(found: Detections, scale: float) -> bool:
    """Whether a face found at a scan's default score is too large for this scale (pixels of the input per pixel of the boxes)."""
    return bool((_longer_sides(found)[found.scores >= MIN_SCORE] * scale >= LARGE).any())


def join_close_look(found: Detections, close: Detections, scale: float) -> Detections:
    """The faces of two looks at one image, each once.

    Args:
        found: the first look, in pixels of the image.
        close: the second look, in the same pixels, from scores of `CONFIRMS` on.
        scale: pixels of the first look's input per pixel of the image.

    Returns:
        Best score first. A large face of the second look takes the place of what the first look saw of it, with the best score of
        both. A large and doubtful one of the first look that the second does not show goes.
    """
    seen = _same(close, found) & (close.scores >= CONFIRMS)[:, None]
    doubtful = (_longer_sides(found) * scale >= LARGE) & (found.scores < _DOUBTFUL)
    stays = ~doubtful | seen.any(axis=0)
    trusted = (close.scores >= MIN_SCORE) & (_longer_sides(close) * scale >= _TRUSTED)
    large, same = close.select(trusted), seen[trusted]
    scores = np.maximum(large.scores, np.where(same, found.scores[None, :], 0).max(axis=1, initial=0))
    others = found.select(stays & ~same.any(axis=0))
    landmarks = None
    if large.landmarks is not None and others.landmarks is not None:
        landmarks = np.concatenate([large.landmarks, others.landmarks])
    both = Detections(
        np.concatenate([large.boxes, others.boxes]),
        np.concatenate([scores, others.scores]).astype(np.float32, copy=False),
        landmarks,
    )
    return both.select(np.argsort(-both.scores, kind="stable"))


def _same(first: Detections, second: Detections) -> npt.NDArray[np.bool_]:
    """n×m: whether two boxes are one face, or a part of it."""
    low = np.maximum(first.boxes[:, None, :2], second.boxes[None, :, :2])
    high = np.minimum(first.boxes[:, None, 2:], second.boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first.boxes, second.boxes)]
    same: npt.NDArray[np.bool_] = shared > _SHARED * np.minimum(areas[0][:, None], areas[1][None, :])
    return same


def _longer_sides(found: Detections) -> Floats:
    sides: Floats = (found.boxes[:, 2:] - found.boxes[:, :2]).max(axis=1, initial=0)
    return sides
