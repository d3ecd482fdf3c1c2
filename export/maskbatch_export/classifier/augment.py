"""What happens to a training crop: a detector's box, a camera's image, and geometry.

Three steps. Boxes are moved as a detector would place them (`data.jitter_boxes`) before the crop is cut; then the crop
is degraded as CCTV spoils faces (`degrade`, NumPy and OpenCV, at the resolution the face really had); then Keras layers
turn, shift, zoom, shear, mirror and light it (`geometry_layers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from maskbatch.classify.crops import crop_faces

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST_SIDE = 10.0


def degrade(
    crop: NDArray[np.uint8], pixels: float, rng: np.random.Generator, strength: float = 1.0
) -> NDArray[np.uint8]:
    """Spoil one crop like a surveillance camera: fewer pixels, blur, noise, JPEG blocks, infra-red grey.

    Args:
        crop: size×size×3 uint8 BGR.
        pixels: how many pixels of the image the side of the crop had; blocks and noise are made at that scale.
        rng: source of randomness.
        strength: factor on the probability of every effect; 0 returns the crop as it is.

    Returns:
        size×size×3 uint8 BGR, a new array.
    """
    size = crop.shape[0]
    side = float(min(max(pixels, SMALLEST_SIDE), size))
    if rng.random() < 0.35 * strength and side > SMALLEST_SIDE + 4:
        side = float(np.exp(rng.uniform(np.log(SMALLEST_SIDE + 4), np.log(side))))
    small: NDArray[Any] = crop
    if round(side) < size:
        small = cv2.resize(crop, (round(side), round(side)), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.15 * strength:
        sigma = rng.uniform(0.4, 1.0 + 1.5 * side / size)
        small = cv2.GaussianBlur(small, (0, 0), sigma)
    if rng.random() < 0.08 * strength:
        small = cv2.filter2D(small, -1, _motion_kernel(rng, max(3, round(side / 12) | 1)))
    if rng.random() < 0.20 * strength:
        noise = rng.normal(0, rng.uniform(2, 14), small.shape[:2] + ((3,) if rng.random() < 0.5 else (1,)))
        small = np.clip(small + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.10 * strength:
        small = _infrared(small, rng)
    if rng.random() < 0.15 * strength:
        small = _tint(small, rng)
    if rng.random() < 0.30 * strength:
        done, code = cv2.imencode(".jpg", small, (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 85))))
        if done:
            small = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
    if small.shape[0] != size:
        small = cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.array(small, np.uint8)


def _motion_kernel(rng: np.random.Generator, length: int) -> NDArray[np.float32]:
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = (length - 1) / 2
    end = (round(reach + reach * np.cos(angle)), round(reach + reach * np.sin(angle)))
    start = (round(reach - reach * np.cos(angle)), round(reach - reach * np.sin(angle)))
    cv2.line(kernel, start, end, 1.0)
    return np.asarray(kernel / kernel.sum(), np.float32)


def _infrared(picture: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Grey as a night camera gives it: any mix of the channels, raised gamma, never colour."""
    weights = rng.dirichlet((1.5, 2.0, 2.5))
    grey = (picture.astype(np.float32) @ weights.astype(np.float32)) / 255
    grey = np.clip(grey, 0, 1) ** rng.uniform(0.6, 1.3)
    return np.repeat((grey * 255).astype(np.uint8)[..., None], 3, axis=2)


def _tint(picture: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint8]:
    """White balance and contrast of another camera."""
    gains = rng.uniform(0.85, 1.15, 3) * rng.uniform(0.75, 1.2)
    return np.clip((picture.astype(np.float32) - 127) * gains + 127, 0, 255).astype(np.uint8)


def mixup(
    images: NDArray[np.float32], targets: NDArray[np.float32], rng: np.random.Generator, alpha: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Blend each crop with another of its batch (Zhang et al. 2018, "mixup", equation 1), one weight per pair.

    Args:
        images: n×size×size×3 float32.
        targets: n×classes float32.
        rng: source of randomness.
        alpha: of the Beta distribution; 0 blends nothing.
    """
    if alpha <= 0:
        return images, targets
    weight = rng.beta(alpha, alpha, len(images)).astype(np.float32)
    weight = np.maximum(weight, 1 - weight)
    other = rng.permutation(len(images))
    wide = weight[:, None, None, None]
    return (
        images * wide + images[other] * (1 - wide),
        targets * weight[:, None] + targets[other] * (1 - weight[:, None]),
    )


def warp_crop(
    image: NDArray[np.uint8],
    box: NDArray[np.float32],
    size: int,
    context: float,
    rng: np.random.Generator,
    strength: float = 1.0,
) -> NDArray[np.uint8]:
    """`crop_faces` with a random turn, shift, zoom, shear and mirror in the same single resampling.

    The ranges are those of `geometry_layers`, which resample four times and cost 14 ms a crop on a CPU core; this
    costs 0.1 ms.

    Args:
        image: H×W×3 uint8 BGR patch around one face.
        box: ``x1 y1 x2 y2`` in pixels of the patch.
        size: side of the crop.
        context: as in `crop_faces`.
        rng: source of randomness.
        strength: factor on the ranges.
    """
    # Cut larger than needed, so that what is turned in from outside is real image and not a repeated edge.
    wide_size = round(size * 1.25)
    wide = crop_faces(image, box[None], wide_size, context * 1.25)[0]
    angle = rng.uniform(-0.03, 0.03) * 2 * np.pi * strength
    zoom = np.exp(rng.uniform(-0.08, 0.08) * strength)
    shear_x, shear_y = rng.uniform(-0.08, 0.08) * strength, rng.uniform(-0.04, 0.04) * strength
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = zoom * turn @ np.array([[1, shear_x], [shear_y, 1]])
    if rng.random() < 0.5:
        matrix = matrix @ np.array([[-1, 0], [0, 1]])
    shift = rng.uniform(-0.04, 0.04, 2) * strength * size
    middle = (size - 1) / 2
    offset = np.array([(wide_size - 1) / 2] * 2) + shift - matrix @ np.array([middle, middle])
    warped = cv2.warpAffine(
        wide,
        np.column_stack([matrix, offset]),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(warped, np.uint8)


def geometry_layers(seed: int, strength: float = 1.0) -> list[Any]:
    """Keras layers for n×size×size×3 float32 crops of 0…255: mirror, turn, shift, zoom, shear, brightness.

    The same `seed` gives the same sequence of random numbers.
    """
    import keras

    layers = keras.layers
    return [
        layers.RandomFlip("horizontal", seed=seed),
        layers.RandomRotation(0.03 * strength, fill_mode="nearest", seed=seed + 1),
        layers.RandomTranslation(0.04 * strength, 0.04 * strength, fill_mode="nearest", seed=seed + 2),
        layers.RandomZoom(0.08 * strength, fill_mode="nearest", seed=seed + 3),
        layers.RandomShear(0.08 * strength, 0.04 * strength, fill_mode="nearest", seed=seed + 4),
        layers.RandomBrightness(0.15 * strength, value_range=(0, 255), seed=seed + 5),
    ]
