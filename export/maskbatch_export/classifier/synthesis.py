"""Incorrectly worn masks made of two faces: the mask of one, slid down over the mouth or the chin of another.

The rare class has a few hundred real faces. What tells it from a worn mask is a nose (and perhaps a mouth) above the mask's upper
edge, so that is what is put together here: a bare face, and below its nose the lower part of a masked face that was
aligned with it by five landmarks, cut out along the mask's bow, faded at the edge and brought to the same light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from maskbatch.evaluate.metrics import box_overlaps
from maskbatch.tasks.mask import LABELS
from maskbatch_export.classifier.data import Patches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from maskbatch.detect import Detector

_LEAST_SIDE = 14.0
_DETECT_SIDE = 320
_CANDIDATES = 12
"""Masked faces nearest in size and pose, of which one is drawn."""


def find_landmarks(patches: Patches, detector: Detector) -> NDArray[np.float32]:
    """n×5×2 float32 landmarks (eyes, nose, corners of the mouth; the viewer's left first) in pixels of each patch.

    Args:
        patches: neighbourhoods of faces.
        detector: one with landmarks.

    Returns:
        NaN where the detector finds no face that overlaps the annotated box by .4.
    """
    result = np.full((len(patches), 5, 2), np.nan, np.float32)
    for index, (patch, box) in enumerate(zip(patches.images, patches.boxes, strict=True)):
        scale = _DETECT_SIDE / max(patch.shape[:2])
        large = cv2.resize(patch, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        found = detector.detect([np.asarray(large, np.uint8)])[0]
        if found.landmarks is None or not len(found.boxes):
            continue
        overlap = box_overlaps(found.boxes, box[None] * scale)[:, 0]
        best = int(overlap.argmax())
        if overlap[best] >= 0.4:
            result[index] = found.landmarks[best] / scale
    return result


def slide_masks(patches: Patches, landmarks: NDArray[np.float32], count: int, rng: np.random.Generator) -> Patches:
    """Patches of `count` bare faces that got the lower part of a masked face.

    Args:
        patches: faces to take from, of all classes.
        landmarks: n×5×2, as from `find_landmarks`.
        count: how many to make.
        rng: source of randomness.

    Returns:
        Patches of the class ``mask_weared_incorrect``; fewer than `count` only if there is nothing to take from.
    """
    seen = np.isfinite(landmarks).all(axis=(1, 2)) & (patches.sides >= _LEAST_SIDE)
    pose = np.array([_pose(points) for points in landmarks])
    seen &= np.isfinite(pose).all(axis=1) & (np.abs(pose[:, 0]) < 0.45) & (np.abs(pose[:, 1]) < 0.5)
    bare = np.flatnonzero(seen & (patches.labels == LABELS.index("without_mask")))
    masked = np.flatnonzero(seen & (patches.labels == LABELS.index("with_mask")))
    if not len(bare) or not len(masked):
        return Patches([], np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    features = np.column_stack([np.log(patches.sides), 3 * pose])
    images, chosen = [], rng.choice(bare, count, replace=count > len(bare))
    for index in chosen:
        distance = np.abs(features[masked] - features[index]).sum(axis=1)
        other = int(rng.choice(masked[np.argsort(distance)[:_CANDIDATES]]))
        images.append(slide_mask(patches.images[index], landmarks[index], patches.images[other], landmarks[other], rng))
    labels = np.full(count, LABELS.index("mask_weared_incorrect"), np.int64)
    return Patches(images, patches.boxes[chosen], labels, patches.sides[chosen])


def _pose(points: NDArray[np.float32]) -> tuple[float, float]:
    """Yaw, as the nose's offset from the middle of the eyes, and roll in radians; NaN for points that are not face."""
    left, right, nose = points[0], points[1], points[2]
    across = right - left
    distance = float(np.hypot(*across))
    if not distance > 2 or across[0] <= 0:
        return float("nan"), float("nan")
    return float((nose - (left + right) / 2) @ across / distance**2), float(np.arctan2(across[1], across[0]))


def slide_mask(
    bare: NDArray[np.uint8],
    bare_points: NDArray[np.float32],
    masked: NDArray[np.uint8],
    masked_points: NDArray[np.float32],
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """The bare face with the mask of the other one below its nose.

    Args:
        bare: H×W×3 uint8 BGR patch of a face without mask.
        bare_points: its 5×2 landmarks.
        masked: H×W×3 uint8 BGR patch of a correctly masked face.
        masked_points: its 5×2 landmarks.
        rng: source of randomness.

    Returns:
        H×W×3 uint8 BGR, of the size of `bare`.
    """
    eyes, mouth = bare_points[:2].mean(axis=0), bare_points[3:].mean(axis=0)
    down = mouth - eyes
    # Where the mask's upper edge goes, from the eyes (0) to the mouth (1): under the nose's tip, or under the lips.
    edge = rng.uniform(0.70, 0.88) if rng.random() < 0.75 else rng.uniform(1.05, 1.25)
    # A worn mask's upper edge lies a third of the way from the eyes to the mouth.
    slide = edge - rng.uniform(0.30, 0.42)
    matrix = _similarity(masked_points, bare_points)
    matrix[:, 2] += down * slide
    height, width = bare.shape[:2]
    warped = cv2.warpAffine(masked, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = _mask_shape(bare.shape[:2], bare_points, edge, rng)
    upper = _upper_face(masked_points, masked.shape[:2])
    light = np.array(cv2.mean(bare, _upper_face(bare_points, bare.shape[:2]))[:3])
    gain = np.clip((light + 8) / (np.array(cv2.mean(masked, upper)[:3]) + 8), 0.6, 1.5)
    lit = np.clip(warped * (0.4 + 0.6 * gain), 0, 255)
    return np.asarray(bare * (1 - alpha) + lit * alpha, np.uint8)


def _similarity(source: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float64]:
    """2×3 turn, scale and shift that brings `source` nearest to `target` (Umeyama 1991, without reflection)."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    spread = (a**2).sum()
    cosine, sine = (a * b).sum() / spread, (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / spread
    turn = np.array([[cosine, -sine], [sine, cosine]], np.float64)
    return np.column_stack([turn, target.mean(axis=0) - turn @ source.mean(axis=0)])


def _mask_shape(
    shape: tuple[int, ...], points: NDArray[np.float32], edge: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """H×W×1 opacity: from the bow of the upper edge down to the chin, as wide as the face, soft at the border."""
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    down, across = mouth - eyes, (points[1] - points[0])
    half, bow, tilt = rng.uniform(1.0, 1.3), rng.uniform(-0.05, 0.16), rng.normal(0, 0.04)
    side = np.linspace(-1, 1, 13)
    bottom = max(rng.uniform(1.85, 2.2), edge + rng.uniform(0.6, 0.9))
    top = edge + bow * side**2 + tilt * side
    low = edge + 0.25 + (bottom - edge - 0.25) * np.sqrt(1 - np.abs(side) ** 2.5)
    outline = np.concatenate([np.stack([side, top], 1), np.stack([side, low], 1)[::-1]])
    outline = eyes + outline[:, :1] * half * across + outline[:, 1:] * down
    canvas = np.zeros(shape[:2], np.float32)
    cv2.fillPoly(canvas, [np.round(outline * 16).astype(np.int32)], 1.0, lineType=cv2.LINE_AA, shift=4)
    sigma = max(0.6, float(np.hypot(*across)) * rng.uniform(0.02, 0.05))
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), sigma)[..., None], np.float32)


def _upper_face(points: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """H×W uint8, 255 where skin is expected in masked and bare faces alike: around the eyes and the brow."""
    eyes, across = points[:2].mean(axis=0), points[1] - points[0]
    canvas = np.zeros(shape[:2], np.uint8)
    radius = max(2, round(float(np.hypot(*across)) * 0.6))
    centre = eyes - (points[3:].mean(axis=0) - eyes) * 0.2
    cv2.circle(canvas, (round(float(centre[0])), round(float(centre[1]))), radius, 255, -1)
    return canvas
