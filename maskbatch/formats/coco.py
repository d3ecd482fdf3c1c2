"""COCO: ``annotations/instances_default.json`` (images, boxes, landmarks as key points) and ``results.json``, the list of detections that evaluators take.

Ids begin at 1. `score` is the detector's, `mask_confidence` the classifier's. Format: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from maskbatch.errors import UsageError
from maskbatch.formats.base import Conversion, LabelledImage, Moment
from maskbatch.formats.pictures import write_images_csv
from maskbatch.formats.values import POINTS, box_of, number, plain, read_json
from maskbatch.storage.atomic import written_whole
from maskbatch.tasks import Task

ANNOTATIONS = "annotations/instances_default.json"
"""Where readers of COCO data sets look for them: task and subset."""


class CocoFormat:
    """See the module."""

    name = "coco"
    title = "COCO annotations and a list of detections"

    def write(self, job: Conversion) -> list[Path]:
        """See `ResultFormat.write`."""
        task = job.result.task
        target, results = job.out / ANNOTATIONS, job.out / "results.json"
        annotation = 0
        with (
            written_whole(target) as whole,
            written_whole(results) as listed,
            # Images and annotations stand in two lists, but come together: one waits in a file.
            tempfile.TemporaryFile("w+", encoding="utf-8", dir=job.out) as waiting,
            whole.open("w", encoding="utf-8") as file,
            listed.open("w", encoding="utf-8") as detections,
        ):
            head = {"info": {"description": "maskbatch"}, "licenses": [], "categories": _categories(task)}
            file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "images": [')
            detections.write("[")
            for image in write_images_csv(job.out, job.moments()):
                _item(file, image.number == 1, _image(image, job.prefix))
                for row in image.faces:
                    annotation += 1
                    face = _annotation(annotation, image.number, row, task)
                    _item(waiting, annotation == 1, face)
                    keys = ("image_id", "category_id", "bbox", "score", "mask_confidence")
                    _item(detections, annotation == 1, {key: face[key] for key in keys if key in face})
            detections.write("\n]\n")
            file.write('\n], "annotations": [')
            waiting.seek(0)
            while block := waiting.read(1 << 20):
                file.write(block)
            file.write("\n]}\n")
        return [target, results]

    def recognizes(self, path: Path) -> bool:
        """See `LabelFormat.recognizes`."""
        path = path / ANNOTATIONS if path.is_dir() else path
        if path.suffix.lower() != ".json" or not path.is_file():
            return False
        found = read_json(path)
        return isinstance(found, dict) and "annotations" in found and "images" in found

    def read(self, path: Path) -> Iterator[LabelledImage]:
        """See `LabelFormat.read`. `path` is a file, or a folder as the format writes it."""
        path = path / ANNOTATIONS if path.is_dir() else path
        data = read_json(path)
        try:
            names = {item["id"]: str(item["name"]) for item in data["categories"]}
            boxes: dict[Any, list[tuple[tuple[float, float, float, float], str]]] = {}
            for item in data["annotations"]:
                x, y, width, height = map(float, item["bbox"])
                boxes.setdefault(item["image_id"], []).append(
                    ((x, y, x + width, y + height), names[item["category_id"]])
                )
            for image in data["images"]:
                found = boxes.get(image["id"], [])
                yield LabelledImage(
                    str(image["file_name"]),
                    tuple(box for box, _ in found),
                    tuple(label for _, label in found),
                    int(image.get("width") or 0),
                    int(image.get("height") or 0),
                    image.get("source"),
                    image.get("frame"),
                )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path}: not annotations in COCO's format ({error!r})") from None


def _categories(task: Task) -> list[dict[str, Any]]:
    return [
        {"id": number, "name": label, "supercategory": "face", "keypoints": list(POINTS), "skeleton": []}
        for number, label in enumerate(task.labels, 1)
    ]


def _image(image: Moment, prefix: str) -> dict[str, Any]:
    return plain(
        {
            "id": image.number,
            "file_name": prefix + image.name,
            "width": image.width,
            "height": image.height,
            "source": image.source,
            "camera": image.camera,
            "frame": image.frame,
            "time_s": image.time_s,
            "captured_at": image.captured_at,
        }
    )


def _annotation(identity: int, image: int, row: dict[str, Any], task: Task) -> dict[str, Any]:
    x1, y1, x2, y2 = box_of(row)
    points = row["landmarks"]
    keys = (
        [] if points is None else [v for i in range(5) for v in (number(points[2 * i]), number(points[2 * i + 1]), 2)]
    )
    return plain(
        {
            "id": identity,
            "image_id": image,
            "category_id": task.labels.index(row["label"]) + 1,
            "bbox": [number(value) for value in (x1, y1, x2 - x1, y2 - y1)],
            "area": number((x2 - x1) * (y2 - y1)),
            "iscrowd": 0,
            "segmentation": [],
            "score": row["score"],
            "mask_confidence": row["confidence"],
            "probabilities": {label: row[f"p_{label}"] for label in task.labels},
            "sharpness": row["sharpness"],
            "track": row["track"],
            "corrected": row.get("corrected"),
            "keypoints": keys or None,
            "num_keypoints": 5 if keys else None,
        }
    )


def _item(file: IO[str], first: bool, value: dict[str, Any]) -> None:
    file.write(("\n" if first else ",\n") + json.dumps(value, ensure_ascii=False))


COCO = CocoFormat()
