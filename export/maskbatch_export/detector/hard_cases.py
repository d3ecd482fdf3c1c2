"""Two cases that average precision on annotated images does not see: rooms without people, and images that one face fills."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from maskbatch_export.detector.data import Picture
from maskbatch_export.detector.evaluate import Detect

FILLS = (0.5, 0.75, 1.0, 1.3)
"""Height of the face over that of the image."""
LEAST_SIDE = 80.0
"""Pixels that a face must have to be shown as a close-up."""


def false_alarms(detect: Detect, rooms: Sequence[Picture], score: float) -> tuple[int, int]:
    """In how many images without people something is found at `score`, and how many detections that are.

    Boxes that an image has (faces on posters) count neither way.
    """
    images = detections = 0
    for picture in rooms:
        found = detect(picture.image)
        boxes = found.boxes[found.scores >= score]
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        known = picture.boxes
        real = ((centre[:, None] > known[None, :, :2]) & (centre[:, None] < known[None, :, 2:])).all(-1).any(1)
        images += bool((~real).any())
        detections += int((~real).sum())
    return images, detections


def close_ups(pictures: Sequence[Picture]) -> Iterator[Picture]:
    """Square cut-outs that one face fills, for every face that is large enough and stands alone in them."""
    for picture in pictures:
        tall, wide = picture.image.shape[:2]
        centres = (picture.boxes[:, :2] + picture.boxes[:, 2:]) / 2
        for number, (box, ignored) in enumerate(zip(picture.boxes, picture.ignored, strict=True)):
            height = box[3] - box[1]
            if ignored or min(box[2] - box[0], height) < LEAST_SIDE:
                continue
            for fill in FILLS:
                side = round(height / fill)
                if side > min(tall, wide):
                    continue
                left, top = (
                    int(np.clip(round(c - side / 2), 0, limit - side))
                    for c, limit in zip(centres[number], (wide, tall), strict=True)
                )
                inside = ((centres > (left, top)) & (centres < (left + side, top + side))).all(1)
                if inside.sum() > 1:
                    continue
                cut = picture.image[top : top + side, left : left + side]
                yield replace(picture, name=f"{picture.name}#{number}@{fill:g}", image=np.ascontiguousarray(cut))


def one_box_each(detect: Detect, pictures: Sequence[Picture], score: float) -> dict[str, float]:
    """Close-ups, and the shares of them with one, no and several detections at `score`."""
    counts = [int((detect(picture.image).scores >= score).sum()) for picture in close_ups(pictures)]
    total = max(1, len(counts))
    return {
        "close_ups": len(counts),
        "one": counts.count(1) / total,
        "none": counts.count(0) / total,
        "several": sum(count > 1 for count in counts) / total,
    }
