"""Cutting faces out of images: the one function that training, evaluation and scanning share.

The crop is a square about the centre of the box, with its side `context` times the longer side of the box, so that a
forehead, a chin and the edge of a mask are always in view. Colour stays BGR, the order in which the decoders deliver:
the classifier's first convolution was turned round to take BGR, so nobody has to swap channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CROP_SIZE = 128
CROP_CONTEXT = 1.4

# Above this many times the crop size, pairs of pixels are averaged first: exact halving is vectorised in OpenCV,
# general area resampling of a face that fills a 12-megapixel image is not.
_HALVE_ABOVE = 2.0


def crop_faces(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    size: int = CROP_SIZE,
    context: float = CROP_CONTEXT,
) -> NDArray[np.uint8]:
    """Cut square face crops out of one image.

    Args:
        image: H×W×3 uint8, BGR. Only the neighbourhood of each box is read.
        boxes: n×4 float, ``x1 y1 x2 y2`` in pixels of `image` (pixel edges, so a whole image is ``0 0 W H``); they
            may reach out of the image or be empty.
        size: side of a crop in pixels.
        context: side of the square that is cut, as a multiple of the longer side of the box.

    Returns:
        n×size×size×3 uint8, BGR (the order of `image`). Outside the image the edge pixels are repeated. Shrinking
        averages over the area, growing is bilinear, so a face from an image decoded at half scale looks the same
        as long as the half-scale square has at least `size` pixels (see `crops_need_full`).

    Raises:
        ValueError: `image` is not H×W×3 uint8 or has no pixels, or `boxes` is not n×4 and finite.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"expected an image of H×W×3 uint8, got {image.dtype} {image.shape}")
    squares = face_squares(boxes, context)
    crops = np.empty((len(squares), size, size, 3), np.uint8)
    for crop, (left, top, side) in zip(crops, squares.tolist(), strict=True):
        if side > size:
            _shrink(image, left, top, side, crop)
        else:
            _grow(image, left, top, side, crop)
    return crops


def face_squares(boxes: NDArray[np.float32], context: float = CROP_CONTEXT) -> NDArray[np.float64]:
    """The squares that `crop_faces` cuts: n×3 float64, left, top and side in pixels; a side is at least one pixel.

    Raises:
        ValueError: `boxes` is not n×4 and finite.
    """
    coords = np.asarray(boxes, np.float64)
    if coords.size == 0:
        return np.zeros((0, 3))
    if coords.ndim != 2 or coords.shape[1] != 4 or not np.isfinite(coords).all():
        raise ValueError(f"expected finite boxes of n×4, got {coords.shape}")
    centre = (coords[:, :2] + coords[:, 2:]) / 2
    side = np.maximum((coords[:, 2:] - coords[:, :2]).max(axis=1) * context, 1.0)
    return np.column_stack([centre - side[:, None] / 2, side])


def crops_need_full(
    boxes_px_reduced: NDArray[np.float32],
    scale: float,
    size: int = CROP_SIZE,
    context: float = CROP_CONTEXT,
    sharpness: float = 0.75,
) -> NDArray[np.bool_]:
    """Which faces deserve a crop from the full image when only a reduced one was decoded.

    Args:
        boxes_px_reduced: n×4 float, ``x1 y1 x2 y2`` in pixels of the reduced image.
        scale: width of the reduced image divided by the width of the full one; from 1 on nothing is gained.
        size: side of a crop in pixels.
        context: as in `crop_faces`.
        sharpness: a square of at least this fraction of `size` pixels in the reduced image is sharp enough.

    Returns:
        n bool; true where the reduced image would give the classifier a blurred crop and the full one a sharper.
    """
    sides = face_squares(boxes_px_reduced, context)[:, 2]
    if scale >= 1.0:
        return np.zeros(len(sides), np.bool_)
    return np.asarray(sides < sharpness * size, np.bool_)


def _grow(image: NDArray[np.uint8], left: float, top: float, side: float, out: NDArray[np.uint8]) -> None:
    """Bilinear, at sub-pixel position: for a face of 15 pixels half a pixel is a large shift."""
    height, width = image.shape[:2]
    size = out.shape[0]
    # A window with a margin keeps OpenCV's limit of 32,767 pixels a side away from panoramas.
    x0, x1 = _window(left, side, width)
    y0, y1 = _window(top, side, height)
    step = side / size
    inverse = np.array([[step, 0, left - x0 + step / 2 - 0.5], [0, step, top - y0 + step / 2 - 0.5]])
    cv2.warpAffine(
        image[y0:y1, x0:x1],
        inverse,
        (size, size),
        dst=out,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _window(start: float, side: float, limit: int) -> tuple[int, int]:
    """The pixels of one axis that bilinear sampling can touch: at least one, inside the image."""
    low = int(np.clip(np.floor(start) - 2, 0, limit - 1))
    high = int(np.clip(np.ceil(start + side) + 2, low + 1, limit))
    return low, high


def _shrink(image: NDArray[np.uint8], left: float, top: float, side: float, out: NDArray[np.uint8]) -> None:
    """Area average of the square, rounded to whole pixels; repeated edge pixels are added only where it sticks out."""
    height, width = image.shape[:2]
    size = out.shape[0]
    pixels = round(side)
    x0, y0 = round(left), round(top)
    x1, y1 = x0 + pixels, y0 + pixels
    inner_x0, inner_x1 = _inside(x0, x1, width)
    inner_y0, inner_y1 = _inside(y0, y1, height)
    region: NDArray[Any] = image[inner_y0:inner_y1, inner_x0:inner_x1]
    margins = (
        min(max(0, -y0), pixels - 1),
        min(max(0, y1 - height), pixels - 1),
        min(max(0, -x0), pixels - 1),
        min(max(0, x1 - width), pixels - 1),
    )
    if any(margins):
        region = cv2.copyMakeBorder(region, *margins, borderType=cv2.BORDER_REPLICATE)
    while min(region.shape[:2]) >= _HALVE_ABOVE * size:
        half = (region.shape[1] // 2, region.shape[0] // 2)
        region = cv2.resize(region[: half[1] * 2, : half[0] * 2], half, interpolation=cv2.INTER_AREA)
    cv2.resize(region, (size, size), dst=out, interpolation=cv2.INTER_AREA)


def _inside(start: int, stop: int, limit: int) -> tuple[int, int]:
    low = min(max(start, 0), limit - 1)
    return low, max(min(stop, limit), low + 1)
