"""A random sample of a result, answered by people who do not see the model's answers, and what follows from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskbatch.errors import UsageError
from maskbatch.review.estimates import Estimate, Sample, allocate, estimate
from maskbatch.review.faces import NO_DECISION, NOT_A_FACE, Array, Decisions, FaceTable
from maskbatch.review.recall import FrameSample
from maskbatch.storage.atomic import write_bytes

PRECISION = 0.02
"""Half a width of the interval that is asked for: "review N more for ± 2 points"."""
_FEW = 8
"""A camera with fewer answers gets no estimate of its own."""


@dataclass(frozen=True, slots=True)
class Units:
    """What is sampled: people where the scan followed them, else faces.

    Attributes:
        row: u int: the face that stands for the unit (of a person the largest and sharpest).
        camera: u int.
        label: u int: the model's answer; of a person the vote of the sightings.
        prediction: u float: the model's probability of the headline label.
        people: whether any unit is a person.
    """

    row: Array
    camera: Array
    label: Array
    prediction: Array
    people: bool


def units_of(faces: FaceTable) -> Units:
    """The units of a result."""
    everyone = np.arange(len(faces))
    tracked = faces.track >= 0
    single = everyone[~tracked]
    parts: list[tuple[Array, Array, Array]] = [(single, faces.label[single].astype(np.int64), faces.headline[single])]
    rows = everyone[tracked]
    if len(rows):
        _, owner = np.unique(faces.source[rows].astype(np.int64) << 32 | faces.track[rows], return_inverse=True)
        people = int(owner.max()) + 1
        votes = np.zeros((people, len(faces.task.labels)))
        np.add.at(votes, (owner, faces.label[rows]), faces.confidence[rows])
        worth = faces.side[rows].astype(np.float64) ** 2 * np.maximum(faces.sharpness[rows], 1e-6)
        order = np.lexsort((worth, owner))
        last = np.flatnonzero(np.diff(owner[order], append=people))
        best = rows[order[last]]
        mean = np.bincount(owner, faces.headline[rows]) / np.bincount(owner)
        parts.append((best, votes.argmax(axis=1), mean))
    row, label, prediction = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(row, kind="stable")
    row, label, prediction = row[order], label[order], prediction[order].astype(np.float64)
    return Units(row, faces.camera[row].astype(np.int64), label, prediction, bool(len(rows)))


class Audit:
    """The sample of a result: the same for the same result and seed; a larger one holds the smaller one.

    Args:
        faces: the result.
        sample: answers that are asked for.
        seed: of the draw.
    """

    def __init__(self, faces: FaceTable, sample: int, seed: int = 0) -> None:
        if not len(faces):
            raise UsageError("the result holds no face to audit")
        self.seed = seed
        self.units = units_of(faces)
        labels = len(faces.task.labels)
        fine = self.units.camera * labels + self.units.label
        # Two of each stratum at least: many cameras with few faces would take all of the sample.
        key = fine if 2 * len(np.unique(fine)) <= sample else self.units.label
        _, self.stratum = np.unique(key, return_inverse=True)
        self.sizes = np.bincount(self.stratum)
        rng = np.random.default_rng(seed)
        chosen = []
        for number, count in enumerate(allocate(self.sizes, sample)):
            chosen.append(rng.permutation(np.flatnonzero(self.stratum == number))[:count])
        self.chosen: Array = rng.permutation(np.concatenate(chosen))
        self.rows: Array = self.units.row[self.chosen]
        self._labels = faces.task.labels
        self._names = [name or "unknown" for name in faces.cameras]

    def about(self) -> dict[str, Any]:
        """For the page."""
        return {"sample": len(self.rows), "units": "people" if self.units.people else "faces", "seed": self.seed}

    def estimates(self, faces: FaceTable) -> dict[str, Any]:
        """What follows from the answers so far: for the whole and each camera, and the confusion matrix."""
        decided = faces.decided[self.rows]
        answered = decided != NO_DECISION
        cameras = []
        for camera in np.unique(self.units.camera):
            inside = answered & (self.units.camera[self.chosen] == camera)
            found = self._estimate(faces, inside, self.units.camera == camera) if inside.sum() >= _FEW else None
            cameras.append(
                {"camera": self._names[int(camera)], "answers": int(inside.sum()), "estimate": _shown(found)}
            )
        whole = self._estimate(faces, answered, np.ones(len(self.units.row), np.bool_))
        return {
            "headline": faces.task.headline,
            "units": "people" if self.units.people else "faces",
            "population": len(self.units.row),
            "answers": int(answered.sum()),
            "asked": len(self.rows),
            "by_model": float((self.units.label == faces.task.labels.index(faces.task.headline)).mean()),
            "estimate": _shown(whole),
            "cameras": cameras,
            "confusion": self._confusion(decided, answered),
        }

    def _estimate(self, faces: FaceTable, used: Array, population: Array) -> Estimate | None:
        headline = faces.task.labels.index(faces.task.headline)
        sizes = np.bincount(self.stratum[population], minlength=len(self.sizes))
        sums = np.bincount(self.stratum[population], self.units.prediction[population], len(self.sizes))
        chosen = self.chosen[used]
        decided = faces.decided[self.units.row[chosen]]
        sample = Sample(
            self.stratum[chosen],
            self.units.label[chosen],
            sizes,
            self.units.prediction[chosen],
            sums / np.maximum(sizes, 1),
            decided == headline + 1,
            decided != NOT_A_FACE,
        )
        return estimate(sample) if len(sample) else None

    def _confusion(self, decided: Array, answered: Array) -> list[list[float]]:
        """Estimated units: row the answer (the last one: not a face), column the model's label."""
        labels = len(self._labels)
        table = np.zeros((labels + 1, labels))
        stratum = self.stratum[self.chosen]
        counts = np.bincount(stratum[answered], minlength=len(self.sizes))
        weight = (self.sizes / np.maximum(counts, 1))[stratum]
        truth = np.where(decided == NOT_A_FACE, labels, decided.astype(np.int64) - 1)
        np.add.at(table, (truth[answered], self.units.label[self.chosen][answered]), weight[answered])
        return [[round(float(value), 1) for value in row] for row in table]


def _shown(found: Estimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "value": round(found.value, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "answers": found.answers,
        "labels_only_half_width": round(found.labels_only, 4),
        "more_for_2_points": found.more_for(PRECISION),
    }


def write_audit(
    path: Path,
    audit: Audit,
    faces: FaceTable,
    sample: int,
    frames: FrameSample | None = None,
    decisions: Decisions | None = None,
) -> None:
    """Note how the sample was drawn, and what its answers say so far. Raises OutputError."""
    content = {"faces": len(faces), "seed": audit.seed, "sample": sample, **audit.estimates(faces)}
    if frames is not None and decisions is not None:
        content["recall"] = frames.estimate(decisions)
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
