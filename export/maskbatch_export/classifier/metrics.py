"""Figures of a classifier: from labels and probabilities to numbers, nothing else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from maskbatch.tasks.mask import LABELS

if TYPE_CHECKING:
    from numpy.typing import NDArray


def confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], size: int = len(LABELS)) -> NDArray[np.int64]:
    """size×size counts: row the true class, column the predicted one."""
    return np.bincount(labels * size + predicted, minlength=size * size).reshape(size, size)


def per_class(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], names: tuple[str, ...] = LABELS
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support by class name; 0 where nothing is there to count."""
    matrix = confusion(labels, predicted, len(names))
    table = {}
    for index, name in enumerate(names):
        hit, guessed, true = matrix[index, index], matrix[:, index].sum(), matrix[index].sum()
        precision, recall = hit / max(guessed, 1), hit / max(true, 1)
        f1 = 2 * hit / max(guessed + true, 1)
        table[name] = {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(true)}
    return table


def log_loss(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
    """Mean of -ln of the true class's probability: of two models alike in F1, the lower one is right with more margin."""
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(true, 1e-7)).mean())


def macro_f1(labels: NDArray[np.int64], predicted: NDArray[np.int64], names: tuple[str, ...] = LABELS) -> float:
    """Mean F1 over the classes that occur."""
    rows = [row["f1"] for row in per_class(labels, predicted, names).values() if row["support"]]
    return float(np.mean(rows)) if rows else 0.0


def p_text(log_p: float) -> str:
    """A p-value for reading, from its natural logarithm: one too small for a float still shows its size."""
    exponent = log_p / math.log(10)
    return f"10^{math.floor(exponent)}" if exponent < -12 else f"{math.exp(log_p):.2g}"
