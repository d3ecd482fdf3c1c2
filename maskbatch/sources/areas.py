"""Blacking out the parts of a view that must not be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from maskbatch.config import Polygon
from maskbatch.types import Frame, Image


def black_out(image: Image, polygons: Sequence[Polygon]) -> Image:
    """A copy of an image with the polygons filled with black; the image itself where there are none.

    Args:
        image: H×W×3 uint8.
        polygons: in shares of width and height. Every pixel that one touches is blacked out.
    """
    if not polygons:
        return image
    copy = np.ascontiguousarray(image).copy()
    height, width = copy.shape[:2]
    for polygon in polygons:
        corners = np.array([(round(x * width * 256), round(y * height * 256)) for x, y in polygon], np.int32)
        # The outline is drawn too, so that an edge that lies between two pixels hides both.
        cv2.fillPoly(copy, [corners - 128], (0, 0, 0), shift=8)
        cv2.polylines(copy, [corners - 128], True, (0, 0, 0), 2, shift=8)
    return copy


def hidden(frame: Frame, polygons: Sequence[Polygon]) -> Frame:
    """The frame with the polygons blacked out, in the image that is searched and in the one that faces are cut from."""
    if not polygons or frame.image.size == 0:
        return frame
    load = frame.load_full
    return replace(frame, image=black_out(frame.image, polygons), load_full=lambda: black_out(load(), polygons))
