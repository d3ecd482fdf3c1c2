"""One model from several runs: the mean of their weights (Wortsman et al. 2022, "Model soups", uniform soup)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskbatch.errors import UsageError
from maskbatch_export.classifier.convert import load_keras
from maskbatch_export.saving import save_keras


def average_weights(models: Sequence[Path], out: Path) -> None:
    """Write the mean of the models' weights, batch norms' statistics included.

    It is a good model only of runs that went on from the same weights. It costs a scan what one of them costs.

    Args:
        models: two or more ``.keras`` files of one architecture.
        out: ``.keras`` file to write.

    Raises:
        UsageError: fewer than two models, or of different architectures.
        ModelError: a file is not a Keras model.
    """
    if len(models) < 2:
        raise UsageError("name two models or more; the mean of one is itself")
    first, *others = [load_keras(path) for path in models]
    sums = [np.asarray(weights, np.float64) for weights in first.get_weights()]
    for path, other in zip(models[1:], others, strict=True):
        weights = other.get_weights()
        if [array.shape for array in weights] != [array.shape for array in sums]:
            raise UsageError(f"{path} is not of the architecture of {models[0]}")
        sums = [total + array for total, array in zip(sums, weights, strict=True)]
    first.set_weights([(total / len(models)).astype(np.float32) for total in sums])
    save_keras(first, out)
