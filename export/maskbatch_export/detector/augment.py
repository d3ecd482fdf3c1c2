"""Training crops: zoomed windows, mosaics, light and the damage that CCTV does. All of it cheap, since training runs on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from maskbatch_export.detector.data import Picture

FLIPPED_LANDMARKS = [1, 0, 2, 4, 3]
SCALE_OF = 640.0


@dataclass(frozen=True)
class Crop:
    """A training image: ``image`` (S, S, 3) uint8 BGR, and its faces as in :class:`.data.Image`.

    ``origin`` is its data set, or empty for a mosaic of several.
    """

    image: np.ndarray
    boxes: np.ndarray
    ignored: np.ndarray
    landmarks: np.ndarray
    origin: str = ""


@dataclass(frozen=True)
class SceneRecipe:
    """How strongly crops are changed.

    Attributes:
        size: side of a crop in pixels.
        mosaic: share of crops made of four windows.
        close: share of crops in which one face fills half of the crop or more, up to one and a half times its height.
        damage: chance of each kind of CCTV damage.
        least_visible: a face cut by the window to less than this share of its area is ignored.
        least_side: a face with a shorter side below this many pixels is ignored.
    """

    size: int = 448
    mosaic: float = 0.2
    close: float = 0.0
    damage: float = 0.08
    least_visible: float = 0.35
    least_side: float = 3.0


Zoom = Literal["any", "small", "near", "close"]
LEAST_CLOSE_SIDE = 48.0
"""A face with fewer pixels is not made to fill a crop: nothing of it would be left."""


def _zoom(rng: np.random.Generator, kind_of_zoom: Zoom) -> float:
    """Scale relative to the evaluation's (long side to 640 pixels): anything, for a mosaic's parts, or near the evaluation's."""
    if kind_of_zoom != "any":
        low, high = (0.35, 1.1) if kind_of_zoom == "small" else (0.7, 1.35)
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))
    kind = rng.random()
    low, high = (0.6, 1.5) if kind < 0.75 else (0.25, 0.6) if kind < 0.9 else (1.5, 2.5)
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _subject(picture: Picture, rng: np.random.Generator, zoom: Zoom) -> np.ndarray | None:
    """The box of the face that the window is about, if it is about one."""
    boxes = picture.boxes
    if zoom == "close":
        boxes = boxes[~picture.ignored & ((boxes[:, 2:] - boxes[:, :2]).min(1, initial=1e9) >= LEAST_CLOSE_SIDE)]
    if not len(boxes) or (zoom != "close" and rng.random() >= 0.85):
        return None
    chosen: np.ndarray = boxes[rng.integers(len(boxes))]
    return chosen


def window(
    picture: Picture, width: int, height: int, rng: np.random.Generator, recipe: SceneRecipe, zoom: Zoom = "any"
) -> Crop:
    """A window of ``width`` x ``height`` from the zoomed, perhaps mirrored image; black where the image ends."""
    tall, wide = picture.image.shape[:2]
    subject = _subject(picture, rng, zoom)
    if zoom == "close" and subject is not None:
        scale = height * float(np.exp(rng.uniform(np.log(0.45), np.log(1.5)))) / float(subject[3] - subject[1])
    else:
        scale = SCALE_OF / max(tall, wide) * _zoom(rng, "any" if zoom == "close" else zoom)
    scale_x, scale_y = scale * np.exp(rng.uniform(-0.08, 0.08, 2))
    flip = rng.random() < 0.5
    anchor = rng.random(2)
    if subject is not None:
        # The chosen face lands anywhere in the window, unless the image's border is in the way.
        centre = (subject[:2] + subject[2:]) / 2 * (scale_x, scale_y)
        spread = (0.35, 0.65) if zoom == "close" else (0.1, 0.9)
        wish = centre - rng.uniform(*spread, 2) * (width, height)
    else:
        wish = anchor * (wide * scale_x - width, tall * scale_y - height)
    offset = []
    for start, length, room in ((wish[0], wide * scale_x, width), (wish[1], tall * scale_y, height)):
        offset.append(float(np.clip(start, min(0.0, length - room), max(0.0, length - room))))
    matrix = np.array([[scale_x, 0, -offset[0]], [0, scale_y, -offset[1]]], np.float64)
    if flip:
        matrix = np.array([[-1, 0, width], [0, 1, 0]], np.float64) @ np.vstack([matrix, [0, 0, 1]])
    # OpenCV places pixel centres at whole numbers, boxes count from the pixel's edge.
    shift = matrix.copy()
    shift[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    image = cv2.warpAffine(picture.image, shift, (width, height), flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0))
    corners = picture.boxes.reshape(-1, 2, 2) @ matrix[:, :2].T + matrix[:, 2]
    boxes = np.concatenate([corners.min(1), corners.max(1)], -1).astype(np.float32)
    landmarks = (picture.landmarks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    if flip:
        landmarks = landmarks[:, FLIPPED_LANDMARKS]
    clipped = boxes.clip(0, np.array((width, height, width, height), np.float32))
    sides = clipped[:, 2:] - clipped[:, :2]
    area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1e-6)
    kept = (sides > 1).all(1)
    visible = sides.prod(1) / area
    ignored = picture.ignored | (visible < recipe.least_visible) | (sides.min(1, initial=1e9) < recipe.least_side)
    return Crop(image, clipped[kept], ignored[kept], landmarks[kept], picture.origin)


def mosaic(pictures: Sequence[Picture], rng: np.random.Generator, recipe: SceneRecipe) -> Crop:
    """Four windows around a random point."""
    size = recipe.size
    x, y = (int(v) for v in rng.integers(int(size * 0.3), int(size * 0.7), 2))
    canvas = np.zeros((size, size, 3), np.uint8)
    parts = []
    places = ((0, 0, x, y), (x, 0, size - x, y), (0, y, x, size - y), (x, y, size - x, size - y))
    for picture, (left, top, width, height) in zip(pictures, places, strict=True):
        crop = window(picture, width, height, rng, recipe, zoom="small")
        canvas[top : top + height, left : left + width] = crop.image
        move = np.array([left, top], np.float32)
        parts.append((crop.boxes + np.tile(move, 2), crop.ignored, crop.landmarks + move))
    boxes, ignored, landmarks = (np.concatenate(p) for p in zip(*parts, strict=True))
    origins = {picture.origin for picture in pictures}
    return Crop(canvas, boxes, ignored, landmarks, origins.pop() if len(origins) == 1 else "")


def relight(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, gamma and colour cast through one look-up table per channel."""
    ramp = np.arange(256, dtype=np.float32) / 255
    table = np.empty((256, 1, 3), np.uint8)
    gain, lift, gamma = rng.uniform(0.65, 1.4), rng.uniform(-0.12, 0.12), np.exp(rng.uniform(-0.35, 0.35))
    for channel in range(3):
        values = ((ramp**gamma - 0.5) * gain + 0.5 + lift) * rng.uniform(0.88, 1.12)
        table[:, 0, channel] = np.clip(values * 255, 0, 255)
    changed: np.ndarray = cv2.LUT(image, table)
    return changed


def damage(image: np.ndarray, rng: np.random.Generator, chance: float) -> np.ndarray:
    """What cheap cameras do: grey, blur, low resolution, noise, compression; each with its own ``chance``."""
    size = image.shape[1], image.shape[0]
    if rng.random() < chance:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if rng.random() < chance:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 1.6)))
    if rng.random() < chance:
        factor = rng.uniform(0.45, 0.8)
        less = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        image = cv2.resize(less, size, interpolation=cv2.INTER_LINEAR)
    if rng.random() < chance:
        noise = np.empty((*image.shape[:2], 1), np.int16)
        cv2.setRNGSeed(int(rng.integers(2**31)))
        cv2.randn(noise, np.zeros(1), np.full(1, rng.uniform(3, 14)))
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < chance:
        quality = int(rng.integers(18, 70))
        image = np.asarray(
            cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
        )
    return image


class Sampler:
    """Draws training crops. The crops of a step depend on the seed and the step alone, so that a resumed run goes on alike."""

    def __init__(self, pictures: Sequence[Picture], shares: dict[str, float], recipe: SceneRecipe, seed: int) -> None:
        self.recipe = recipe
        self.seed = seed
        self.origins = [name for name in shares if any(p.origin == name for p in pictures)]
        self.pools = [[p for p in pictures if p.origin == name] for name in self.origins]
        chances = np.array([shares[name] for name in self.origins])
        self.chances = chances / chances.sum()

    def _draw(self, rng: np.random.Generator) -> Picture:
        pool = self.pools[int(rng.choice(len(self.pools), p=self.chances))]
        return pool[int(rng.integers(len(pool)))]

    def crop(self, rng: np.random.Generator, plain: bool = False) -> Crop:
        """One crop; ``plain`` leaves out mosaics and damage and stays near the evaluation's scale."""
        recipe = self.recipe
        if recipe.close and rng.random() < recipe.close:
            crop = window(self._draw(rng), recipe.size, recipe.size, rng, recipe, "close")
        elif not plain and rng.random() < recipe.mosaic:
            crop = mosaic([self._draw(rng) for _ in range(4)], rng, recipe)
        else:
            crop = window(self._draw(rng), recipe.size, recipe.size, rng, recipe, "near" if plain else "any")
        image = relight(crop.image, rng) if rng.random() < 0.7 else crop.image
        if not plain:
            image = damage(image, rng, recipe.damage)
        return replace(crop, image=image)

    def batch(self, step: int, count: int, plain: bool = False) -> list[Crop]:
        """The crops of a step."""
        rng = np.random.default_rng((self.seed, step))
        return [self.crop(rng, plain) for _ in range(count)]
