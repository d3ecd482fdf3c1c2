"""Batches of training crops: balanced, augmented, and the same again for the same seed, epoch and step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskbatch.classify.crops import CROP_CONTEXT, CROP_SIZE, crop_faces
from maskbatch.tasks.mask import LABELS
from maskbatch_export.classifier.augment import degrade, geometry_layers, mixup, warp_crop
from maskbatch_export.classifier.data import Patches, jitter_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class CropRecipe:
    """How training crops are drawn and changed.

    Attributes:
        size: side of the crops in pixels.
        context: as in `crop_faces`.
        balance: 0 draws faces as often as they occur, 1 every class equally often, .5 by the root of its count.
        extra: share of the draws that come from the extra faces (WIDER), where there are some.
        jitter: as in `jitter_boxes`.
        geometry: strength of turn, shift, zoom, shear.
        keras_geometry: geometry by Keras layers in place of one OpenCV warp.
        cctv: strength of `degrade`.
        mixup: alpha of the Beta distribution; 0 is off.
        smoothing: label smoothing.
        synthesis: share of the draws of incorrectly worn masks that come from `slide_masks`.
    """

    size: int = CROP_SIZE
    context: float = CROP_CONTEXT
    balance: float = 0.5
    extra: float = 0.08
    jitter: float = 1.0
    geometry: float = 1.0
    keras_geometry: bool = False
    cctv: float = 1.0
    mixup: float = 0.0
    smoothing: float = 0.05
    synthesis: float = 0.0


class Batches:
    """Training batches of one epoch at a time: ``batches(epoch, step)`` depends on the seed and on nothing else."""

    def __init__(
        self,
        patches: Patches,
        recipe: CropRecipe,
        batch: int,
        seed: int,
        extra: Patches | None = None,
        synthetic: Patches | None = None,
    ) -> None:
        self.patches, self.recipe, self.batch, self.seed = patches, recipe, batch, seed
        self.extra, self.synthetic = extra, synthetic
        counts = np.bincount(patches.labels, minlength=len(LABELS)).astype(float)
        weight = np.where(counts > 0, np.maximum(counts, 1) ** (1 - recipe.balance), 0)
        self.class_share = weight / weight.sum()
        self.members = [np.flatnonzero(patches.labels == index) for index in range(len(LABELS))]
        self.steps = max(1, round(len(patches) / batch))

    def __call__(
        self, epoch: int, step: int, size: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """n×size×size×3 float32 BGR in -1…1 and n×3 float32 targets."""
        recipe, size = self.recipe, size or self.recipe.size
        rng = np.random.default_rng((self.seed, epoch, step))
        chosen = rng.choice(len(LABELS), self.batch, p=self.class_share)
        images = np.empty((self.batch, size, size, 3), np.uint8)
        for position in range(self.batch):
            images[position] = self._draw(int(chosen[position]), size, rng)
        if self.extra is not None and len(self.extra):
            for position in np.flatnonzero(rng.random(self.batch) < recipe.extra).tolist():
                images[position] = self._cut(self.extra, int(rng.integers(len(self.extra))), size, rng)
                chosen[position] = LABELS.index("without_mask")
        inputs = images.astype(np.float32)
        if recipe.keras_geometry:
            inputs = self._keras_geometry(inputs, epoch, step)
        targets = np.eye(len(LABELS), dtype=np.float32)[chosen]
        targets = targets * (1 - recipe.smoothing) + recipe.smoothing / len(LABELS)
        return mixup(inputs / np.float32(127.5) - 1, targets, rng, recipe.mixup)

    def _draw(self, label: int, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        rare = LABELS[label] == "mask_weared_incorrect"
        if rare and self.synthetic is not None and rng.random() < self.recipe.synthesis:
            return self._cut(self.synthetic, int(rng.integers(len(self.synthetic))), size, rng)
        return self._cut(self.patches, int(rng.choice(self.members[label])), size, rng)

    def _cut(self, patches: Patches, index: int, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        recipe = self.recipe
        box = jitter_boxes(patches.boxes[index][None], rng, recipe.jitter)[0]
        if recipe.keras_geometry:
            crop = crop_faces(patches.images[index], box[None], size, recipe.context)[0]
        else:
            crop = warp_crop(patches.images[index], box, size, recipe.context, rng, recipe.geometry)
        return degrade(crop, float(patches.sides[index]) * recipe.context, rng, recipe.cctv)

    def _keras_geometry(self, inputs: NDArray[np.float32], epoch: int, step: int) -> NDArray[np.float32]:
        import keras

        seed = int(np.random.default_rng((self.seed, epoch, step, 1)).integers(2**30))
        value: Any = inputs
        for layer in geometry_layers(seed, self.recipe.geometry):
            value = layer(value, training=True)
        return np.asarray(keras.ops.convert_to_numpy(value), np.float32)
