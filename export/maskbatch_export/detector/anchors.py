"""Anchors of the detector and what their deltas mean. NumPy only."""

from __future__ import annotations

import numpy as np

STRIDES = (8, 16, 32)
ANCHOR_SIDES = ((10.0, 20.0), (32.0, 64.0), (128.0, 256.0))
VARIANCES = (0.1, 0.2)
ANCHORS_PER_CELL = 2


def make_anchors(height: int, width: int) -> np.ndarray:
    """Anchors of an input of ``height`` x ``width`` pixels: ``(A, 4)`` float32 centre x, centre y, width, height in pixels.

    Order: stride, row, column, side, which is the order of the exported outputs.
    """
    parts = []
    for stride, sides in zip(STRIDES, ANCHOR_SIDES, strict=True):
        ys, xs = np.mgrid[: height // stride, : width // stride].astype(np.float32)
        for side in sides:
            cell = np.stack([(xs + 0.5) * stride, (ys + 0.5) * stride], -1).reshape(-1, 1, 2)
            parts.append(np.concatenate([cell, np.full_like(cell, side)], -1))
    grouped = [np.concatenate(parts[i : i + ANCHORS_PER_CELL], 1) for i in range(0, len(parts), ANCHORS_PER_CELL)]
    return np.concatenate([g.reshape(-1, 4) for g in grouped]).astype(np.float32)


def decode_boxes(deltas: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Boxes ``(..., 4)`` x1 y1 x2 y2 from deltas ``(..., 4)`` and their anchors ``(..., 4)`` (SSD, Liu et al. 2016, eq. 2)."""
    centre = anchors[..., :2] + deltas[..., :2] * VARIANCES[0] * anchors[..., 2:]
    half = anchors[..., 2:] * np.exp(np.minimum(deltas[..., 2:] * VARIANCES[1], 6.0)) / 2
    boxes: np.ndarray = np.concatenate([centre - half, centre + half], -1)
    return boxes


def decode_landmarks(deltas: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Landmarks ``(..., 5, 2)`` in pixels from deltas ``(..., 10)`` and their anchors ``(..., 4)``."""
    points = deltas.reshape(*deltas.shape[:-1], 5, 2)
    found: np.ndarray = anchors[..., None, :2] + points * VARIANCES[0] * anchors[..., None, 2:]
    return found
