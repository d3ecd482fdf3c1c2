"""What is judged about a face: labels, how they are shown, default models. Everything else follows from a `Task`.

The labels of a classifier come from its own file (`labels_in_metadata`); `MASK` is the task of the default one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from maskbatch.errors import ModelError
from maskbatch.tasks.base import Look, Task, check_labels, labels_in_metadata, make_task
from maskbatch.tasks.mask import HEADLINE, LABELS, LOOKS, MASK, SPELLINGS

__all__ = [
    "MASK",
    "Look",
    "Task",
    "canonical_label",
    "check_labels",
    "classifier_labels",
    "labels_in_metadata",
    "task_of",
]


def task_of(labels: Sequence[str]) -> Task:
    """The task of a classifier with these labels, in the order of its outputs."""
    return MASK if tuple(labels) == LABELS else make_task(tuple(labels), LOOKS, HEADLINE)


def classifier_labels(metadata: Mapping[str, str], outputs: int | None, name: str) -> tuple[str, ...]:
    """The labels of a classifier, from its own file.

    Args:
        metadata: of the ONNX file.
        outputs: how many it has; None where the file does not declare it.
        name: of the model, for messages.

    Raises:
        ModelError: it names none and has not the three outputs of the mask task, or names another number than it has outputs.
    """
    labels = labels_in_metadata(metadata, f"model {name}")
    if labels is None:
        if outputs not in (None, len(LABELS)):
            raise ModelError(
                f"model {name} has {outputs} outputs and does not name its labels: write them into the file with "
                "`maskbatch export classifier convert --labels a,b,…`, or set the ONNX metadata `labels`"
            )
        return LABELS
    if outputs not in (None, len(labels)):
        raise ModelError(f"model {name} names {len(labels)} labels ({', '.join(labels)}) but has {outputs} outputs")
    return labels


def canonical_label(spelling: str) -> str:
    """A label as data sets spell it (``Mask``, ``no-mask``) in the spelling of the mask task; unknown ones stay as they are."""
    plain = spelling.strip().lower().replace("-", "_").replace(" ", "_")
    return SPELLINGS.get(plain, plain if plain in LABELS else spelling.strip())
