"""Fitting images of any size into a handful of fixed input shapes.

A new shape in mid-run costs a compilation (TensorRT), an algorithm search (CUDA) or memory that is never given back (CPU),
so there are five shapes per detector size. The image is scaled, up or down, until its long side is the detector's size:
accuracy is quoted at that scale, and small faces gain from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2

from maskbatch.config import STRIDE
from maskbatch.errors import UsageError
from maskbatch.types import Image

_SHORT_SIDES = ((1, 1), (3, 4), (9, 16))


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """One fixed input shape, in pixels."""

    height: int
    width: int


def make_buckets(det_size: int) -> tuple[Bucket, ...]:
    """Square, 4:3 and 16:9, lying and standing; for 640: 640×640, 640×480, 640×384 and the latter two turned.

    Raises:
        UsageError: `det_size` is not a positive multiple of 32.
    """
    if det_size < STRIDE or det_size % STRIDE:
        raise UsageError(f"--det-size must be a multiple of {STRIDE}, at least {STRIDE}; it is {det_size}")
    shapes = set()
    for part, whole in _SHORT_SIDES:
        short = -(-det_size * part // (whole * STRIDE)) * STRIDE
        shapes |= {Bucket(short, det_size), Bucket(det_size, short)}
    return tuple(sorted(shapes))


def fit(height: int, width: int, buckets: tuple[Bucket, ...]) -> Bucket:
    """The smallest bucket that covers an image of this size scaled to the buckets' long side."""
    det_size = max(max(bucket.height, bucket.width) for bucket in buckets)
    scaled_height, scaled_width = scaled_size(height, width, det_size)
    fitting = [b for b in buckets if b.height >= scaled_height and b.width >= scaled_width]
    # A file with one fixed, oblong shape covers nothing of the other orientation: paste() then shrinks further.
    return min(fitting or buckets, key=lambda bucket: (bucket.height * bucket.width, bucket))


def scaled_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Height and width with the long side as given, rounded to whole pixels, at least one."""
    scale = long_side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def paste(image: Image, canvas: Image) -> tuple[float, float]:
    """Scale an image into the top left of a canvas; what it does not cover becomes black.

    Args:
        image: H×W×3 uint8.
        canvas: the bucket's height×width×3 uint8, written in place.

    Returns:
        Pixels of the canvas per pixel of the image, horizontally and vertically.
    """
    height, width = image.shape[:2]
    room_height, room_width = canvas.shape[:2]
    scale = min(room_height / height, room_width / width)
    new_height = min(room_height, max(1, round(height * scale)))
    new_width = min(room_width, max(1, round(width * scale)))
    target = canvas[:new_height, :new_width]
    if (new_height, new_width) == (height, width):
        target[...] = image
    else:
        # Bilinear: the decoder has already brought the image near to this size, and area averaging costs six times as much.
        cv2.resize(image, (new_width, new_height), dst=target, interpolation=cv2.INTER_LINEAR)
    if new_width < room_width:
        canvas[:new_height, new_width:] = 0
    if new_height < room_height:
        canvas[new_height:] = 0
    return new_width / width, new_height / height
