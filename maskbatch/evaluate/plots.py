"""Images of an evaluation: precision-recall, recall by size, and the images on which a detector did worst."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskbatch.errors import MissingExtraError, OutputError
from maskbatch.evaluate.report import Evaluation
from maskbatch.evaluate.run import Run, load
from maskbatch.evaluate.scores import Scores
from maskbatch.evaluate.truth import Truth
from maskbatch.types import Image

# Okabe and Ito's palette, which stays apart for the colour-blind; BGR for OpenCV.
_FOUND, _MISSED, _FALSE = (115, 158, 0), (0, 94, 213), (66, 228, 240)
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")


def has_matplotlib() -> bool:
    """Whether the two diagrams can be drawn; the worst images need only OpenCV."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def draw_diagrams(found: Evaluation, folder: Path) -> list[Path]:
    """``precision_recall.png`` and ``recall_by_size.png``.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: the folder cannot be written.
    """
    if not has_matplotlib():
        raise MissingExtraError("plots need matplotlib: install it with `uv pip install matplotlib`")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for scores, colour in zip(found.scores, _COLOURS * 9, strict=False):
        axes.plot(
            scores.curve.recall,
            scores.curve.precision,
            color=colour,
            label=f"{scores.name} (AP {scores.ap['0.5']:.3f})",
        )
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="Detection, IoU 0.5")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    curves = folder / "precision_recall.png"
    _save(figure, curves)

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    names = list(found.scores[0].recall_by_size)
    width = 0.8 / len(found.scores)
    for index, (scores, colour) in enumerate(zip(found.scores, _COLOURS * 9, strict=False)):
        heights = [scores.recall_by_size[name].rate for name in names]
        axes.bar(np.arange(len(names)) + index * width, heights, width, color=colour, label=scores.name)
    totals = [found.scores[0].recall_by_size[name].total for name in names]
    labels = [f"{name}\n{total} faces" for name, total in zip(names, totals, strict=True)]
    axes.set_xticks(np.arange(len(names)) + 0.4 - width / 2, labels)
    axes.set(
        ylabel="recall",
        ylim=(0, 1.02),
        title=f"Recall by face size, {found.rules.false_per_picture:g} false per image",
    )
    axes.legend()
    axes.grid(axis="y", alpha=0.3)
    sizes = folder / "recall_by_size.png"
    _save(figure, sizes)
    return [curves, sizes]


def draw_worst(found: Evaluation, folder: Path, count: int = 12) -> list[Path]:
    """For each detector, the images with most missed faces and false detections, as ``worst/DETECTOR/RANK_NAME.jpg``.

    Green: found; orange: missed; yellow: a detection that is not a face.

    Raises:
        OutputError: the folder cannot be written.
    """
    written = []
    for scores, run in zip(found.scores, found.runs, strict=True):
        target = folder / "worst" / "".join(c if c.isalnum() or c in "._-" else "_" for c in scores.name)
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{target} cannot be made: {error.strerror}") from None
        faults = [_faults(scores, index, found.truths[index]) for index in range(len(found.truths))]
        ranked = sorted(range(len(faults)), key=lambda index: (-faults[index], found.truths[index].name))
        for rank, index in enumerate(ranked[:count]):
            if faults[index]:
                path = target / f"{rank:02d}_{Path(found.truths[index].name).stem}.jpg"
                _write(path, _drawn(scores, run, index, found.truths[index]))
                written.append(path)
    return written


def _faults(scores: Scores, index: int, truth: Truth) -> int:
    match = scores.matches[index]
    missed = ((match.found < scores.operating_score) & ~truth.ignored).sum()
    return int(missed + ((match.scores >= scores.operating_score) & ~match.correct).sum())


def _drawn(scores: Scores, run: Run, index: int, truth: Truth) -> Image:
    image = load(truth).copy()
    match, faces = scores.matches[index], run.found[index]
    right = set(np.round(match.scores[match.correct], 6).tolist())
    for box, score in zip(faces.boxes, faces.scores, strict=True):
        if score >= scores.operating_score and round(float(score), 6) not in right:
            _box(image, box, _FALSE)
    for box, found, skip in zip(truth.boxes, match.found, truth.ignored, strict=True):
        if not skip:
            _box(image, box, _FOUND if found >= scores.operating_score else _MISSED)
    return image


def _box(image: Image, box: Any, colour: tuple[int, int, int]) -> None:
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    cv2.rectangle(image, (x1, y1), (x2, y2), (0, 0, 0), 3)
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, 1)


def _write(path: Path, image: Image) -> None:
    done, data = cv2.imencode(".jpg", image)
    try:
        if not done:
            raise OSError("encoding failed")
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from None


def _save(figure: Any, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from None
