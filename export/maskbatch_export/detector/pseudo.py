"""Labels where the data sets have gaps: faces that several detectors agree on are trained on, what only one of them sees is ignored.

The mask sets label the people in front and leave out others; three of them draw loose boxes. Taken at their word they teach a detector to
overlook small faces and to place boxes by several habits. The detectors look at 640 and at 1,280 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maskbatch.evaluate.metrics import box_overlaps
from maskbatch_export.detector.data import LOOSE_SETS, ROOMS, WIDER, Picture
from maskbatch_export.detector.evaluate import Detect
from maskbatch_export.saving import save_arrays

SIZES = (640, 1280)
SAME = 0.4
"""IoU from which detections of two models are one face."""
LABELLED = 0.2
"""IoU with a label from which a detection is explained by it."""


@dataclass(frozen=True)
class Consensus:
    """What the detectors find in an image.

    Attributes:
        boxes: ``(n, 4)`` float32; where the first detector is among those that agree, its box, else their mean.
        votes: ``(n,)`` how many detectors found it.
    """

    boxes: np.ndarray
    votes: np.ndarray


def agree(found: Sequence[tuple[np.ndarray, np.ndarray]]) -> Consensus:
    """Detections of several models, put together.

    Args:
        found: for every detector its boxes ``(n, 4)`` and scores ``(n,)``.
    """
    boxes: list[np.ndarray] = []
    votes: list[int] = []
    owners: list[set[int]] = []
    sums: list[np.ndarray] = []
    for number, (candidates, scores) in enumerate(found):
        for box in candidates[np.argsort(-scores, kind="stable")]:
            if boxes:
                overlap = box_overlaps(box[None], np.array(boxes, np.float32))[0]
                best = int(overlap.argmax())
                if overlap[best] >= SAME:
                    if number not in owners[best]:
                        owners[best].add(number)
                        votes[best] += 1
                        sums[best] = sums[best] + box
                        if 0 not in owners[best]:
                            boxes[best] = sums[best] / votes[best]
                    continue
            boxes.append(box)
            sums.append(box.astype(np.float64))
            votes.append(1)
            owners.append({number})
    return Consensus(np.array(boxes, np.float32).reshape(-1, 4), np.array(votes, np.int64))


def look(
    pictures: Sequence[Picture], detectors: Mapping[str, Sequence[Detect]], score: float, cache: Path
) -> list[Consensus]:
    """What the detectors agree on in every image; kept in `cache` (``.npz``), which is written now and then.

    Args:
        detectors: name → one network at several input sizes; the first one's boxes are preferred.
        score: least score of a detection.
    """
    done: dict[str, np.ndarray] = dict(np.load(cache)) if cache.exists() else {}
    for number, picture in enumerate(pictures):
        key = f"{picture.origin}/{picture.name}"
        if key not in done:
            found = []
            for views in detectors.values():
                seen = [view(picture.image) for view in views]
                boxes = np.concatenate([view.boxes[view.scores >= score] for view in seen]).astype(np.float32)
                scores = np.concatenate([view.scores[view.scores >= score] for view in seen])
                found.append((boxes, scores))
            both = agree(found)
            done[key] = np.column_stack([both.boxes, both.votes]).astype(np.float32)
        if number % 500 == 499 or number == len(pictures) - 1:
            save_arrays(cache, **done)
    rows = [done[f"{picture.origin}/{picture.name}"] for picture in pictures]
    return [Consensus(row[:, :4], row[:, 4].astype(np.int64)) for row in rows]


def complete(
    pictures: Sequence[Picture], seen: Sequence[Consensus], votes: int = 2
) -> tuple[list[Picture], dict[str, int]]:
    """The images with what their labels leave out.

    Labels of the loose sets take the box of the detection that they explain. A detection that no label explains becomes a face if
    `votes` detectors found it, and is ignored if fewer did. WIDER FACE is labelled to the last face and stays as it is; in rooms without
    people whatever is found is a false alarm, unless all detectors see it (a face on a poster), and then it is ignored.

    Returns:
        The images, and counts: ``added`` faces, ``ignored`` ones, ``moved`` boxes.
    """
    done, counts = [], {"added": 0, "ignored": 0, "moved": 0}
    for picture, consensus in zip(pictures, seen, strict=True):
        if picture.origin == WIDER or not len(consensus.boxes):
            done.append(picture)
            continue
        if picture.origin == ROOMS:
            sure = consensus.votes >= votes + 1
            counts["ignored"] += int(sure.sum())
            done.append(_with(picture, consensus.boxes[sure], np.ones(int(sure.sum()), bool)))
            continue
        boxes = picture.boxes.copy()
        explained = np.zeros(len(consensus.boxes), bool)
        if len(boxes):
            overlap = box_overlaps(consensus.boxes, boxes)
            centre = (consensus.boxes[:, :2] + consensus.boxes[:, 2:]) / 2
            inside = ((centre[:, None] > boxes[None, :, :2]) & (centre[:, None] < boxes[None, :, 2:])).all(-1)
            explained = (overlap.max(1) >= LABELLED) | inside.any(1)
            if picture.origin in LOOSE_SETS:
                for label in range(len(boxes)):
                    best = int(overlap[:, label].argmax())
                    if (
                        overlap[best, label] >= SAME
                        and consensus.votes[best] >= votes
                        and overlap[best].argmax() == label
                    ):
                        boxes[label] = consensus.boxes[best]
                        counts["moved"] += 1
        new = ~explained
        sure = consensus.votes[new] >= votes
        counts["added"] += int(sure.sum())
        counts["ignored"] += int((~sure).sum())
        done.append(_with(replace(picture, boxes=boxes), consensus.boxes[new], ~sure))
    return done, counts


def _with(picture: Picture, boxes: np.ndarray, ignored: np.ndarray) -> Picture:
    return replace(
        picture,
        boxes=np.concatenate([picture.boxes, boxes]),
        ignored=np.concatenate([picture.ignored, ignored]),
        landmarks=np.concatenate([picture.landmarks, np.full((len(boxes), 5, 2), np.nan, np.float32)]),
    )
