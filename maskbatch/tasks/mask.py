"""The default task: is a face mask worn, and correctly."""

from __future__ import annotations

from maskbatch.tasks.base import Look, make_task

LABELS: tuple[str, str, str] = ("with_mask", "without_mask", "mask_weared_incorrect")
"""The three classes in the order of the default classifier's outputs, spelled as in the public data set."""

# Sky blue, vermilion and yellow, as BGR; the contrast to black text is 5.5 to 16 to 1.
LOOKS = {
    "with_mask": Look("mask", "M", (233, 180, 86), "solid"),
    "without_mask": Look("no mask", "N", (0, 94, 213), "double"),
    "mask_weared_incorrect": Look("incorrect", "I", (66, 228, 240), "dashed"),
}

SPELLINGS = {
    "mask": "with_mask",
    "masked": "with_mask",
    "face_mask": "with_mask",
    "no_mask": "without_mask",
    "unmasked": "without_mask",
    "incorrect_mask": "mask_weared_incorrect",
    "mask_worn_incorrectly": "mask_weared_incorrect",
    "mask_worn_incorrect": "mask_weared_incorrect",
    "mask_incorrect": "mask_weared_incorrect",
}
"""How other data sets spell the labels, in lower case with underscores."""

HEADLINE = "with_mask"

MASK = make_task(LABELS, LOOKS, HEADLINE)
