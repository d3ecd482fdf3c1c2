"""Landmarks for faces that have none: what the starting model sees at each annotated face, so that fine-tuning keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskbatch.evaluate.metrics import box_overlaps
from maskbatch_export.detector.data import Picture
from maskbatch_export.detector.evaluate import detector, onnx_predict


def distil_landmarks(pictures: Sequence[Picture], teacher: Path, cache: Path) -> list[Picture]:
    """The images with the landmarks of the teacher (an exported detector) at two scales; kept in ``cache`` (``.npz``)."""
    if cache.exists():
        with np.load(cache) as stored:
            if int(stored["faces"]) == sum(len(p.boxes) for p in pictures):
                split = np.split(stored["landmarks"], np.cumsum([len(p.boxes) for p in pictures])[:-1])
                return [p.with_landmarks(m) for p, m in zip(pictures, split, strict=True)]
    predict = onnx_predict(teacher)
    scales = [detector(predict, size, threshold=0.25, tight=True) for size in (640, 1120)]
    done = [p.with_landmarks(_landmarks(p, [detect(p.image) for detect in scales])) for p in pictures]
    everything = np.concatenate([p.landmarks for p in done])
    np.savez_compressed(cache, landmarks=everything, faces=len(everything))
    return done


def _landmarks(picture: Picture, views: Sequence) -> np.ndarray:  # type: ignore[type-arg]
    marks = np.full((len(picture.boxes), 5, 2), np.nan, np.float32)
    best = np.full(len(picture.boxes), 0.4)
    for view in views:
        if not len(view.boxes) or not len(picture.boxes):
            continue
        overlaps = box_overlaps(picture.boxes, view.boxes)
        which, value = overlaps.argmax(1), overlaps.max(1)
        better = value > best
        marks[better] = view.landmarks[which[better]]
        best[better] = value[better]
    return marks
