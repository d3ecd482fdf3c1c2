"""A bar over the eyes, which leaves nose and mouth to be judged. It is mitigation, not anonymity: hair, ears, skin and place remain."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from maskbatch.types import Floats, Image


def cover_eyes(
    image: Image, box: Sequence[float], landmarks: Floats | Sequence[float] | None, margin: float = 0.0
) -> None:
    """Paint a bar over the eyes, in place; over the upper half of the face where the landmarks do not tell.

    Args:
        image: H×W×3 uint8, writable.
        box: x1, y1, x2, y2 of the face, in pixels.
        landmarks: 5×2 (or ten numbers), as in `Detections`, or None.
        margin: pixels by which the face may be off; the bar grows with it, downward at most to the tip of the nose.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    width, height = x2 - x1, y2 - y1
    points = None if landmarks is None else np.asarray(landmarks, float).reshape(5, 2)
    inside = points is not None and bool(np.all((points[:2] >= [x1, y1]) & (points[:2] <= [x2, y2])))
    apart = 0.0 if points is None else float(np.hypot(*(points[1] - points[0])))
    if points is None or not inside or apart < 0.15 * width:
        # Whole pixels, rounded away from the middle.
        left, top, right = int(np.floor(x1 - margin)), int(np.floor(y1 - margin)), int(np.ceil(x2 + margin))
        bottom = round(y1 + 0.5 * height + min(margin, 0.1 * height))
        cv2.rectangle(image, (left, top), (right, bottom), (0, 0, 0), -1)
        return
    along = (points[1] - points[0]) / apart
    across = np.array([-along[1], along[0]])
    half = max(0.4 * apart, 0.12 * height)
    to_nose = float(across @ (points[2] - (points[0] + points[1]) / 2))
    below = max(half, min(half + margin, 0.8 * to_nose))
    reach = along * (max(0.7 * apart, 0.15 * width) + margin)
    ends = points[0] - reach, points[1] + reach
    up, down = across * (half + margin), across * below
    corners = np.array([ends[0] - up, ends[1] - up, ends[1] + down, ends[0] + down])
    cv2.fillPoly(image, [corners.round().astype(np.int32)], (0, 0, 0))
