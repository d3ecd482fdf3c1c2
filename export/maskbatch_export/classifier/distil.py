"""Learning from larger models: what they answer to a training crop stands in for a part of its label.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", with Beyer et al. 2022, "Knowledge distillation: A
good teacher is patient and consistent": teachers see the very crop that the student sees, degraded and mixed as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from maskbatch.errors import UsageError
from maskbatch_export.classifier import architectures
from maskbatch_export.classifier.convert import load_keras
from maskbatch_export.onnx_files import OnnxClassifier

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Teachers:
    """Trained models whose mean answer becomes a share of every target.

    Attributes:
        size: side of the crops that they take; None without teachers.
    """

    def __init__(self, paths: Sequence[Path], share: float) -> None:
        """Load the teachers.

        Args:
            paths: classifiers of crops, ``.keras`` or ``.onnx`` files of one size; without any, targets stay as they are.
            share: of the target that comes from them, 0…1.

        Raises:
            ModelError: a file is neither a Keras model nor an ONNX classifier.
            UsageError: they take crops of different sizes.
        """
        self.share = np.float32(share)
        self._answers: list[Callable[[NDArray[np.float32]], NDArray[np.float32]]] = []
        sizes = set()
        for path in paths:
            answer, size = _onnx_teacher(path) if path.suffix == ".onnx" else _keras_teacher(path)
            self._answers.append(answer)
            sizes.add(size)
        if len(sizes) > 1:
            raise UsageError(f"teachers of one run take crops of one size, these take {sorted(sizes)}")
        self.size = sizes.pop() if sizes else None

    def __call__(self, images: NDArray[np.float32], targets: NDArray[np.float32]) -> NDArray[np.float32]:
        """n×3 float32 targets, of n×size×size×3 float32 BGR in -1…1 and their n×3 targets by label."""
        if not self._answers:
            return targets
        answers = np.mean([answer(images) for answer in self._answers], axis=0, dtype=np.float32)
        return targets + self.share * (answers - targets)


def shrink(images: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """n×size×size×3 float32 of larger crops: what a student sees whose crops are smaller than its teachers'."""
    if images.shape[1] == size:
        return images
    return np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in images])


def _keras_teacher(path: Path) -> tuple[Any, int]:
    model = load_keras(path)
    architectures.fused_torch_norms(model)
    return model.predict_on_batch, int(model.input_shape[1])


def _onnx_teacher(path: Path) -> tuple[Any, int]:
    model = OnnxClassifier(path)

    def answer(images: NDArray[np.float32]) -> NDArray[np.float32]:
        pixels = np.clip(np.rint((images + 1) * np.float32(127.5)), 0, 255).astype(np.uint8)
        return model.predict(pixels, len(pixels))

    return answer, model.size
