"""Do audits hold what they promise on real faces? `python benchmarks/audits.py SHARED/data [--audits 1000]`.

Every annotated face of the mask sets is classified by the packaged classifier; the annotation is the answer that a person would give. Each data set is a camera. Audits
are drawn and estimated as `maskbatch audit` does; printed is how often the interval holds the share that all annotations give.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskbatch.classify.classifier import make_classifier
from maskbatch.classify.crops import crop_faces
from maskbatch.config import ModelSettings
from maskbatch.evaluate.truth import UNKNOWN, read_truth
from maskbatch.review.estimates import Sample, allocate, estimate
from maskbatch.runtime import resolve_device

SETS = ("face_mask_detection", "ilc2021", "street_masks", "press_masks", "classroom_masks")


def classified(data: Path) -> dict[str, np.ndarray]:
    """Camera, true label, the model's label and its probability of the headline, of every face with a class."""
    classifier = make_classifier(ModelSettings(), resolve_device("cpu"))
    columns: dict[str, list[np.ndarray]] = {"camera": [], "truth": [], "label": [], "prediction": []}
    headline = classifier.labels.index(classifier.task.headline)
    for camera, name in enumerate(SETS):
        if not (data / name).is_dir():
            continue
        for truth in read_truth(data / name):
            known = truth.labels != UNKNOWN
            image = cv2.imread(str(truth.path))
            if image is None or not known.any():
                continue
            crops = crop_faces(image, truth.boxes[known], size=classifier.size, context=classifier.context)
            found = classifier.classify(crops)
            columns["camera"].append(np.full(len(found), camera))
            columns["truth"].append(truth.labels[known])
            columns["label"].append(found.argmax(axis=1))
            columns["prediction"].append(found[:, headline].astype(float))
    return {key: np.concatenate(values) for key, values in columns.items()} | {"headline": np.array(headline)}


def audits(faces: dict[str, np.ndarray], answers: int, count: int) -> dict[str, Any]:
    """Simulate audits with so many answers each."""
    rng = np.random.default_rng(5)
    _, stratum = np.unique(faces["camera"] * 10 + faces["label"], return_inverse=True)
    sizes = np.bincount(stratum)
    means = np.bincount(stratum, faces["prediction"]) / sizes
    positive = faces["truth"] == faces["headline"]
    right = float(positive.mean())
    covered, widths, alone = [], [], []
    for _ in range(count):
        chosen = np.concatenate(
            [rng.permutation(np.flatnonzero(stratum == at))[:n] for at, n in enumerate(allocate(sizes, answers))]
        )
        found = estimate(
            Sample(
                stratum[chosen],
                faces["label"][chosen],
                sizes,
                faces["prediction"][chosen],
                means,
                positive[chosen],
                np.ones(len(chosen), bool),
            )
        )
        assert found is not None
        covered.append(found.low <= right <= found.high)
        widths.append(found.half_width)
        alone.append(found.labels_only)
    return {
        "faces": len(positive),
        "answers": answers,
        "audits": count,
        "coverage": round(float(np.mean(covered)), 3),
        "half_width": round(float(np.mean(widths)), 4),
        "half_width_of_answers_alone": round(float(np.mean(alone)), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--audits", type=int, default=1000)
    given = parser.parse_args()
    faces = classified(given.data)
    for answers in (100, 300):
        print(json.dumps(audits(faces, answers, given.audits)), flush=True)


if __name__ == "__main__":
    main()
