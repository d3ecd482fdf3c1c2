"""How good a detector is on a part of the data: average precision, recall by face size, at a letterboxed size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from maskbatch.config import MIN_SCORE
from maskbatch.detect.close import close_bucket, join_close_look, needs_close_look
from maskbatch.detect.letterbox import paste, scaled_size
from maskbatch.detect.nms import nms, vote
from maskbatch.evaluate.metrics import Match, average_precision, match, precision_recall
from maskbatch.evaluate.scores import operating_score
from maskbatch.types import Detections
from maskbatch_export.detector.anchors import decode_boxes, decode_landmarks, make_anchors
from maskbatch_export.detector.data import Picture

SIZE_BINS = (0, 10, 20, 40, 80, 10_000)
Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""uint8 ``(N, H, W, 3)`` BGR -> scores ``(N, A)``, deltas ``(N, A, 4)``, landmark deltas ``(N, A, 10)``."""


@dataclass(frozen=True)
class Found:
    """Detections of one image in its own pixels: ``boxes`` (n, 4), ``scores`` (n,), falling, ``landmarks`` (n, 5, 2) or ``None``."""

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray | None


Detect = Callable[[np.ndarray], Found]


def letterbox(image: np.ndarray, size: int, tight: bool = False) -> tuple[np.ndarray, float]:
    """The image with its long side scaled to ``size``, at the top left of a black square; and the scale.

    ``tight`` cuts the square down to the next multiple of 32, which is faster and differs only by the border's influence.
    """
    tall, wide = image.shape[:2]
    new_tall, new_wide = scaled_size(tall, wide, size)
    canvas = np.zeros((-(-new_tall // 32) * 32, -(-new_wide // 32) * 32, 3) if tight else (size, size, 3), np.uint8)
    paste(image, canvas)
    return canvas, size / max(tall, wide)


def suppress(boxes: np.ndarray, scores: np.ndarray, iou: float) -> np.ndarray:
    """Greedy non-maximum suppression: indices kept, by falling score."""
    order = np.argsort(-scores, kind="stable")
    kept: np.ndarray = order[nms(boxes[order], iou)]
    return kept


def detector(
    predict: Predict,
    size: int = 640,
    threshold: float = 0.02,
    iou: float = 0.5,
    limit: int = 750,
    tight: bool = False,
    vote_iou: float | None = 0.5,
    close_look: bool = False,
) -> Detect:
    """A detector of single images around a network, with suppression and box voting as in a scan; `close_look` as there, too."""

    def look(image: np.ndarray, side: int) -> tuple[Detections, float]:
        canvas, scale = letterbox(image, side, tight)
        scores, deltas, points = (values[0] for values in predict(canvas[None]))
        anchors = make_anchors(*canvas.shape[:2])
        chosen = np.nonzero(scores >= threshold)[0]
        if len(chosen) > limit:
            chosen = chosen[np.argsort(-scores[chosen], kind="stable")[:limit]]
        boxes = decode_boxes(deltas[chosen], anchors[chosen])
        kept = suppress(boxes, scores[chosen], iou)
        marks = decode_landmarks(points[chosen][kept], anchors[chosen][kept])
        final = boxes[kept] if vote_iou is None else vote(boxes[kept], boxes, scores[chosen], vote_iou)
        return Detections(final / scale, scores[chosen][kept], (marks / scale).astype(np.float32)), scale

    def detect(image: np.ndarray) -> Found:
        found, scale = look(image, size)
        if close_look and needs_close_look(found, scale):
            found = join_close_look(found, look(image, close_bucket(size).width)[0], scale)
        return Found(found.boxes, found.scores, found.landmarks)

    return detect


def open_session(path: Path, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_predict(path: Path) -> Predict:
    """The network of an exported file."""
    session = open_session(path)

    def predict(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scores, deltas, points = session.run(["scores", "deltas", "landmark_deltas"], {"images": pictures})
        return scores, deltas, points

    return predict


def evaluate(detect: Detect, pictures: Sequence[Picture], size: int = 640, score: float = MIN_SCORE) -> dict[str, Any]:
    """Average precision at IoU .5, .35 and the mean over .5:.95, and recall by face size.

    A face's size is the square root of its area in pixels of the *letterboxed* input. Recall is taken at the score that gives one
    false detection per image on average, so that detectors with differently scaled scores compare. Precision and recall at
    ``score``, a scan's own threshold, count an ignored face neither way.
    """
    found = [detect(p.image) for p in pictures]
    return summarise(found, pictures, size, score)


def summarise(
    found: Sequence[Found], pictures: Sequence[Picture], size: int = 640, score: float = MIN_SCORE
) -> dict[str, Any]:
    """The figures of :func:`evaluate` from detections already made."""
    thresholds = [0.35, *np.arange(0.5, 0.96, 0.05).round(2).tolist()]
    matches: dict[float, list[Match]] = {
        t: [match(f.boxes, f.scores, p.boxes, p.ignored, t) for f, p in zip(found, pictures, strict=True)]
        for t in thresholds
    }
    precision = {t: average_precision(m) for t, m in matches.items()}
    result: dict[str, Any] = {
        "pictures": len(pictures),
        "faces": int(sum((~p.ignored).sum() for p in pictures)),
        "ap50": precision[0.5],
        "ap35": precision[0.35],
        "ap": float(np.mean([precision[t] for t in thresholds[1:]])),
    }
    curve = precision_recall(matches[0.5])
    cut = operating_score(curve, len(pictures))
    result["score_at_1_false_per_picture"] = cut
    told = sum(int((m.scores >= score).sum()) for m in matches[0.5])
    right = sum(int((m.correct & (m.scores >= score)).sum()) for m in matches[0.5])
    result |= {"score": score, "precision": right / max(1, told), "recall_at_score": right / max(1, result["faces"])}
    for name, limit, iou in (("recall", cut, 0.5), ("recall35", cut, 0.35)):
        result[name] = recall_by_size(matches[iou], pictures, limit, size)
    return result


def recall_by_size(matches: Sequence[Match], pictures: Sequence[Picture], limit: float, size: int) -> dict[str, float]:
    """Recall of the faces of each size bin (pixels of the letterboxed input) at scores of at least ``limit``."""
    sides, hits = [], []
    for m, p in zip(matches, pictures, strict=True):
        scale = size / max(p.image.shape[:2])
        side = np.sqrt((p.boxes[:, 2:] - p.boxes[:, :2]).clip(0).prod(1)) * scale
        sides.append(side[~p.ignored])
        hits.append((m.found >= max(limit, 1e-9))[~p.ignored])
    side, hit = np.concatenate(sides), np.concatenate(hits)
    table = {}
    for low, high in pairwise(SIZE_BINS):
        inside = (side >= low) & (side < high)
        table[f"{low}-{high}"] = float(hit[inside].mean()) if inside.any() else float("nan")
        table[f"n_{low}-{high}"] = int(inside.sum())
    return table
