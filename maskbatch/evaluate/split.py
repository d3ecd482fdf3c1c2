"""The one rule that says to which part of the data an image belongs.

The training package in ``export/`` and ``maskbatch evaluate`` call this function, so that an image, or a near copy of it in another
set, that one model was trained on is never used to judge another.
"""

from __future__ import annotations

import hashlib
from typing import Literal

Part = Literal["train", "val", "test"]


def part_of_group(group: str | int, seed: int = 0, train: float = 0.70, val: float = 0.15) -> Part:
    """The part a near-duplicate group belongs to.

    A hash of the group decides, never its position: adding images moves no other image from one part to another.

    Args:
        group: near-duplicate group of the image, shared by all data sets (``groups.csv``).
        seed: another seed gives another, independent split.
        train: fraction of groups in ``train``.
        val: fraction of groups in ``val``; the rest is ``test``.
    """
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < train:
        return "train"
    return "val" if position < train + val else "test"


def fold_of_group(group: str | int, folds: int, seed: int = 0) -> int:
    """The cross-validation fold (0-based) a near-duplicate group belongs to."""
    digest = hashlib.sha256(f"fold:{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % folds
