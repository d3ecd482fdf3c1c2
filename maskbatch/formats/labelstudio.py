"""Label Studio: ``tasks.json`` with predictions, and ``labeling.xml``, the labeling interface that they fit.

Import `labeling.xml` as the project's labeling interface, then the tasks; export as JSON. https://labelstud.io/guide/predictions
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from maskbatch.errors import UsageError
from maskbatch.formats.base import Conversion, LabelledImage, Moment
from maskbatch.formats.pictures import write_images_csv
from maskbatch.formats.values import box_of, plain, read_json
from maskbatch.storage.atomic import write_bytes, written_whole
from maskbatch.tasks import Task

TASKS = "tasks.json"
INTERFACE = "labeling.xml"


class LabelStudioFormat:
    """See the module."""

    name = "labelstudio"
    title = "Label Studio tasks with predictions, and the labeling interface"

    def write(self, job: Conversion) -> list[Path]:
        """See `ResultFormat.write`."""
        write_bytes(job.out / INTERFACE, _interface(job.result.task).encode())
        without_size = 0
        with written_whole(job.out / TASKS) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write("[")
            for image in write_images_csv(job.out, job.moments()):
                without_size += bool(image.faces) and not (image.width and image.height)
                file.write("\n" if image.number == 1 else ",\n")
                file.write(json.dumps(_task(image, job.prefix), ensure_ascii=False))
            file.write("\n]\n")
        if without_size:
            job.notes.append(
                f"{without_size} images come without boxes: their size is not known without the inputs table"
            )
        return [job.out / TASKS, job.out / INTERFACE]

    def recognizes(self, path: Path) -> bool:
        """See `LabelFormat.recognizes`."""
        if path.suffix.lower() != ".json":
            return False
        found = read_json(path)
        return isinstance(found, list) and (not found or (isinstance(found[0], dict) and "data" in found[0]))

    def read(self, path: Path) -> Iterator[LabelledImage]:
        """See `LabelFormat.read`. Of a task with annotations the last one counts; one that nobody annotated or that was skipped is left out;
        a file without any annotation is taken by its predictions."""
        tasks = read_json(path)
        try:
            annotated = any(task.get("annotations") for task in tasks)
            for task in tasks:
                kept = [item for item in task.get("annotations") or [] if not item.get("was_cancelled")]
                chosen = kept if annotated else task.get("predictions")
                if chosen:
                    yield _labelled(task, chosen[-1]["result"])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UsageError(f"{path}: not an export of Label Studio ({error!r})") from None


def _interface(task: Task) -> str:
    labels = "".join(
        f'    <Label value={quoteattr(label)} background="{_hex(task, label)}"/>\n' for label in task.labels
    )
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <RectangleLabels name="label" toName="image">\n{labels}  </RectangleLabels>\n</View>\n'
    )


def _hex(task: Task, label: str) -> str:
    blue, green, red = task.look(label).colour
    return f"#{red:02x}{green:02x}{blue:02x}"


def _task(image: Moment, prefix: str) -> dict[str, Any]:
    about = {"source": image.source, "camera": image.camera, "frame": image.frame, "time_s": image.time_s}
    task: dict[str, Any] = {
        "data": plain({"image": prefix + image.name, **about, "captured_at": image.captured_at}),
    }
    sized = bool(image.width and image.height)
    results = [_result(image, number, row) for number, row in enumerate(image.faces, 1)] if sized else []
    scores = [row["score"] for row in image.faces]
    task["predictions"] = [plain({"model_version": "maskbatch", "score": min(scores, default=None), "result": results})]
    return task


def _result(image: Moment, number: int, row: dict[str, Any]) -> dict[str, Any]:
    x1, y1, x2, y2 = box_of(row)
    return plain(
        {
            "id": f"{image.number}-{number}",
            "type": "rectanglelabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": image.width,
            "original_height": image.height,
            "image_rotation": 0,
            "value": {
                "x": 100 * x1 / image.width,
                "y": 100 * y1 / image.height,
                "width": 100 * (x2 - x1) / image.width,
                "height": 100 * (y2 - y1) / image.height,
                "rotation": 0,
                "rectanglelabels": [row["label"]],
            },
            "score": row["score"],
            "meta": {"mask_confidence": row["confidence"], "track": row["track"]},
        }
    )


def _labelled(task: dict[str, Any], results: list[dict[str, Any]]) -> LabelledImage:
    data = task["data"]
    boxes, labels, size = [], [], (0, 0)
    for item in results:
        if item.get("type") != "rectanglelabels":
            continue
        value = item["value"]
        size = int(item.get("original_width") or 0), int(item.get("original_height") or 0)
        scale = (size[0] / 100 if size[0] else 0.01), (size[1] / 100 if size[1] else 0.01)
        x, y = float(value["x"]) * scale[0], float(value["y"]) * scale[1]
        boxes.append((x, y, x + float(value["width"]) * scale[0], y + float(value["height"]) * scale[1]))
        labels.append(str(value["rectanglelabels"][0]))
    frame = data.get("frame")
    return LabelledImage(
        str(data.get("image") or ""),
        tuple(boxes),
        tuple(labels),
        *size,
        data.get("source"),
        None if frame is None else int(frame),
    )


LABELSTUDIO = LabelStudioFormat()
