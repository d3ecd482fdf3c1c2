"""Learning from larger models: what they answer to a training crop stands in for a part of its label.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", with Beyer et al. 2022, "Knowledge distillation: A
good teacher is patient and consistent": teachers see the very crop that the student sees, degraded and mixed as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maskbatch_export.classifier import architectures
from maskbatch_export.classifier.convert import load_keras

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Teachers:
    """Trained models whose mean answer becomes a share of every target."""

    def __init__(self, paths: Sequence[Path], share: float) -> None:
        """Load the teachers.

        Args:
            paths: ``.keras`` files, classifiers of crops of the student's size; without any, targets stay as they are.
            share: of the target that comes from them, 0…1.

        Raises:
            ModelError: a file is not a Keras model.
        """
        self.share = np.float32(share)
        self._models = [load_keras(path) for path in paths]
        for model in self._models:
            architectures.fused_torch_norms(model)

    def __call__(self, images: NDArray[np.float32], targets: NDArray[np.float32]) -> NDArray[np.float32]:
        """n×3 float32 targets, of n×size×size×3 float32 BGR in -1…1 and their n×3 targets by label."""
        if not self._models:
            return targets
        answers = np.mean([model.predict_on_batch(images) for model in self._models], axis=0, dtype=np.float32)
        return targets + self.share * (answers - targets)
