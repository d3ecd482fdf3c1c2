"""The measured loop with a simulated reviewer: scan, put right what the truth says, train on, compare on untouched groups.

    uv run --all-packages python -m benchmarks.improve TRUTH --replay SET --replay SET --work FOLDER

TRUTH is a Pascal VOC folder that the classifier was not trained on. The reviewer sees part of its detections and knows the annotated label
of each; what `maskbatch export classifier improve` then prints is printed. With --degrade N the images become those of a poor camera: N times
coarser, dark, and compressed hard.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

import maskbatch
from maskbatch.evaluate.truth import UNKNOWN, read_truth
from maskbatch.models import find_model
from maskbatch.results.correction_log import CorrectionLog
from maskbatch.results.corrections import Correction
from maskbatch.tasks.mask import LABELS


def review(result: Path, truth: Path, log: Path, share: float, wrong: float, seed: int = 0) -> tuple[int, int]:
    """Write what a reviewer would who sees `share` of the faces and errs in `wrong` of them; decisions, and how many changed a label."""
    rng = np.random.default_rng(seed)
    known = {Path(item.name).stem: item for item in read_truth(truth)}
    faces = maskbatch.read_results(str(result))
    decisions, changed = [], 0
    for row in faces.itertuples():
        item = known.get(Path(str(row.source)).stem)
        if item is None or not len(item.boxes) or rng.random() >= share:
            continue
        box = np.array([row.x1, row.y1, row.x2, row.y2], np.float64)
        overlap = _iou(item.boxes.astype(np.float64), box)
        at = int(overlap.argmax())
        if overlap[at] < 0.5 or item.labels[at] == UNKNOWN or item.ignored[at]:
            continue
        label = LABELS[int(rng.integers(len(LABELS)))] if rng.random() < wrong else LABELS[int(item.labels[at])]
        changed += label != row.label
        x1, y1, x2, y2 = map(float, box)
        decisions.append(Correction(str(row.source), (x1, y1, x2, y2), "label", label, origin="review", by="simulated"))
    log.unlink(missing_ok=True)
    CorrectionLog(log).append(decisions)
    return len(decisions), changed


def degraded(truth: Path, folder: Path, factor: int) -> Path:
    """Copies of the images of a set, with as many pixels but less in them; the annotations fit both."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((truth / "images").iterdir()):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            continue
        height, width = image.shape[:2]
        small = cv2.resize(image, (max(8, width // factor), max(8, height // factor)), interpolation=cv2.INTER_AREA)
        dark = (small.astype(np.float32) * 0.45).astype(np.uint8)
        _, data = cv2.imencode(".jpg", dark, [cv2.IMWRITE_JPEG_QUALITY, 40])
        coarse = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert coarse is not None
        large = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / path.with_suffix(".png").name), large)
    return folder


def _iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    inner = np.clip(high - low, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return np.asarray(inner / np.maximum(areas - inner, 1e-9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--replay", type=Path, action="append", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--share", type=float, default=1.0, help="of the faces that are reviewed")
    parser.add_argument("--wrong", type=float, default=0.0, help="of the reviewer's answers that are drawn at random")
    parser.add_argument("--base", default="mask_mobilenet_v2")
    parser.add_argument("--degrade", type=int, default=0, metavar="N", help="make the images N times coarser first")
    arguments = parser.parse_args()
    from maskbatch_export.classifier.improve import ImproveConfig, as_text, improve

    arguments.work.mkdir(parents=True, exist_ok=True)
    name = arguments.truth.resolve().name + (f"-{arguments.degrade}" if arguments.degrade else "")
    result = arguments.work / f"{name}.parquet"
    if not result.exists():
        images = arguments.truth / "images"
        if arguments.degrade:
            images = degraded(arguments.truth, arguments.work / name, arguments.degrade)
        maskbatch.scan([str(images)], str(result))
    log = result.with_name(f"{result.stem}.corrections.csv")
    made, changed = review(result, arguments.truth, log, arguments.share, arguments.wrong)
    print(f"{made} decisions of the simulated reviewer, {changed} of them change a label")
    out = arguments.work / "improved.onnx"
    out.unlink(missing_ok=True)
    base = find_model(arguments.base, "classifier").path
    found = improve(ImproveConfig(base, str(result), log, tuple(arguments.replay)), out)
    print("\n".join(as_text(found)))
    print(found.refusal or f"promoted: {out}")
    print(json.dumps(found.as_dict()))


if __name__ == "__main__":
    main()
