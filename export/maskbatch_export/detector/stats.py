"""What the detector's data sets hold."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from maskbatch_export.detector.data import read_pictures
from maskbatch_export.detector.evaluate import SIZE_BINS


def part_figures(data: Path, part: str, origin: str) -> dict[str, Any] | None:
    """Images, faces, ignored faces, and faces by the longer side of their box in pixels; None where the part is empty or missing."""
    if not (data / origin).is_dir():
        return None
    pictures = read_pictures(data, part, (origin,))  # type: ignore[arg-type]
    if not pictures:
        return None
    boxes = np.concatenate([picture.boxes[~picture.ignored] for picture in pictures])
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    bins = {f"{low}-{high}": int(((sides >= low) & (sides < high)).sum()) for low, high in pairwise(SIZE_BINS)}
    return {
        "images": len(pictures),
        "faces": len(boxes),
        "ignored": int(sum(picture.ignored.sum() for picture in pictures)),
        "sizes": bins,
    }
