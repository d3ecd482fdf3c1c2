"""Faces that a data set does not label: neither learned as faces nor as background.

The mask sets label the people in front and leave out most small or blurred faces behind them. Another detector's confident detections that
no label explains can be ignored. In training that did not pay; in evaluation it tells what a set's gaps cost a detector
(export/reports/detector.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from maskbatch.evaluate.metrics import box_overlaps
from maskbatch_export.detector.data import Picture
from maskbatch_export.detector.evaluate import Detect


def ignore_unlabelled(
    pictures: Sequence[Picture], teachers: Sequence[Detect], origins: Sequence[str], score: float = 0.5
) -> tuple[list[Picture], int]:
    """The images with unlabelled faces added as ignored boxes, and how many were added.

    Args:
        images: of any data set.
        teachers: detectors, for instance one network at several input sizes.
        origins: data sets that are known to lack labels; images of others stay as they are.
        score: least score of a detection.
    """
    done, added = [], 0
    for picture in pictures:
        if picture.origin not in origins:
            done.append(picture)
            continue
        known = picture.boxes
        for detect in teachers:
            found = detect(picture.image)
            news = _unexplained(found.boxes[found.scores >= score].astype(np.float32), known)
            known = np.concatenate([known, news])
        new = len(known) - len(picture.boxes)
        added += new
        blank = np.full((new, 5, 2), np.nan, np.float32)
        done.append(
            replace(
                picture,
                boxes=known,
                ignored=np.concatenate([picture.ignored, np.ones(new, bool)]),
                landmarks=np.concatenate([picture.landmarks, blank]),
            )
        )
    return done, added


def _unexplained(found: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Detections ``(n, 4)`` that overlap no known box by a fifth and whose centre lies in none."""
    if not len(found) or not len(known):
        return found
    centre = (found[:, :2] + found[:, 2:]) / 2
    inside = ((centre[:, None] > known[None, :, :2]) & (centre[:, None] < known[None, :, 2:])).all(-1)
    kept: np.ndarray = found[(box_overlaps(found, known).max(1) < 0.2) & ~inside.any(1)]
    return kept
