"""What a task is: the labels of a classifier, how they are shown, and which of them answers the question."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from maskbatch.errors import ModelError

MAX_LABELS = 127
"""The column `label` is a dictionary with 8-bit indices."""
MAX_LABEL_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Look:
    """How a label is drawn. Colour is never the only cue: the line differs too, and every box has its word.

    Attributes:
        word: short name on a box.
        letter: where there is no room for the word.
        colour: blue, green, red, 0 to 255; black text is readable on it.
        line: ``solid``, ``double`` or ``dashed``.
    """

    word: str
    letter: str
    colour: tuple[int, int, int]
    line: str


UNKNOWN_LOOK = Look("face", "?", (200, 200, 200), "solid")

# Okabe and Ito's set (Color Universal Design, 2008), which people with colour-blindness can tell apart, as BGR, without the dark blue.
_PALETTE = (
    (233, 180, 86),
    (0, 94, 213),
    (66, 228, 240),
    (115, 158, 0),
    (167, 121, 204),
    (0, 159, 230),
)
_LINES = ("solid", "double", "dashed")


@dataclass(frozen=True, slots=True)
class Task:
    """What is judged about each face. The columns of a result follow from it.

    Attributes:
        labels: in the order of the classifier's outputs.
        headline: the label whose share is the answer (who wears a mask correctly).
        looks: how each label is drawn, in the order of `labels`.
        detector: default detector.
        classifier: default classifier.
    """

    labels: tuple[str, ...]
    headline: str
    looks: tuple[Look, ...]
    detector: str = "retinaface"
    classifier: str = "mask_mobilenet_v2"

    @property
    def probability_columns(self) -> tuple[str, ...]:
        """Names of the columns with the classifier's outputs, ``p_<label>``."""
        return tuple(f"p_{label}" for label in self.labels)

    def look(self, label: str) -> Look:
        """How a label is drawn; a plain grey for one that the task does not know."""
        return self.looks[self.labels.index(label)] if label in self.labels else UNKNOWN_LOOK


def make_task(labels: Sequence[str], known: Mapping[str, Look], headline: str) -> Task:
    """The task of any classifier.

    Args:
        labels: in the order of its outputs.
        known: looks of labels that have one already; the others get the next free colour.
        headline: used where it is one of `labels`; else the first label is.
    """
    free = [colour for colour in _PALETTE if colour not in {known[label].colour for label in labels if label in known}]
    looks, made = [], 0
    for label in labels:
        if label in known:
            looks.append(known[label])
            continue
        word = label.replace("_", " ").strip()
        looks.append(Look(word, word[:1].upper(), (free or _PALETTE)[made % len(free or _PALETTE)], _LINES[made % 3]))
        made += 1
    return Task(tuple(labels), headline if headline in labels else labels[0], tuple(looks))


def check_labels(labels: Sequence[str], where: str) -> tuple[str, ...]:
    """The labels, if columns and folders can be named by them.

    Args:
        labels: as given.
        where: what names them, for the message (``model x``, ``--labels``).

    Raises:
        ModelError: fewer than two, too many, the same twice, or one that cannot be used in a name.
    """
    if not 2 <= len(labels) <= MAX_LABELS:
        raise ModelError(f"{where} names {len(labels)} labels; a classifier has between 2 and {MAX_LABELS}")
    for label in labels:
        if not label.strip() or not label.isprintable() or "/" in label or len(label) > MAX_LABEL_LENGTH:
            raise ModelError(
                f"{where} names the label {label!r}, which cannot be used as the name of a column and a folder"
            )
    if len(set(labels)) != len(labels):
        raise ModelError(f"{where} names a label twice: {', '.join(labels)}")
    return tuple(labels)


def labels_in_metadata(metadata: Mapping[str, str], where: str) -> tuple[str, ...] | None:
    """The labels that a model file names, or None where it names none.

    ``labels`` is a JSON list, or text separated by commas, in the order of the outputs. ``classes`` (a JSON list, as maskbatch wrote
    before) and ``names`` (a mapping from index to name, as Ultralytics writes it) are read too.

    Raises:
        ModelError: the metadata cannot be read as labels.
    """
    for key in ("labels", "classes", "names"):
        text = metadata.get(key, "").strip()
        if text:
            return check_labels(_parsed(text, f"{where} has metadata `{key}`"), where)
    return None


def _parsed(text: str, what: str) -> list[str]:
    if text[0] not in "[{":
        return [part.strip() for part in text.split(",")]
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
    if isinstance(value, dict) and sorted(map(str, value)) == sorted(map(str, range(len(value)))):
        value = [value[key] for key in sorted(value, key=int)]
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise ModelError(f"{what} that is not a list of names: {text[:80]}")
    return value
