"""FiftyOne: ``labels.json`` for its ``FiftyOneImageDetectionDataset``, with the images in ``data/`` (needs ``--frames``).

`confidence` is the detector's score; the classifier's is `mask_confidence` (FiftyOne refuses `confidence` beside `score`).
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from maskbatch.errors import UsageError
from maskbatch.formats.base import Conversion, Moment
from maskbatch.formats.pictures import write_images_csv
from maskbatch.formats.values import box_of, plain
from maskbatch.storage.atomic import written_whole


class FiftyOneFormat:
    """See the module."""

    name = "fiftyone"
    title = "FiftyOne image detections"
    folder = "data"
    """Where it wants the images."""

    def write(self, job: Conversion) -> list[Path]:
        """See `ResultFormat.write`."""
        if not job.pictures.written:
            raise UsageError("FiftyOne opens images beside their labels: convert with --frames")
        target, left_out = job.out / "labels.json", 0
        with written_whole(target) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(f'{{"classes": {json.dumps(job.result.task.labels)}, "labels": {{')
            first = True
            for image in write_images_csv(job.out, job.moments()):
                if not image.width or not image.height:
                    left_out += 1
                    continue
                name = PurePosixPath(image.name).relative_to(job.pictures.folder).with_suffix("")
                file.write("\n" if first else ",\n")
                first = False
                boxes = [_detection(image, row) for row in image.faces] or None
                file.write(f"{json.dumps(str(name), ensure_ascii=False)}: {json.dumps(boxes, ensure_ascii=False)}")
            file.write("\n}}\n")
        if left_out:
            job.notes.append(f"{left_out} images are left out: their size is not known without the inputs table")
        return [target, job.out / self.folder]


def _detection(image: Moment, row: dict[str, Any]) -> dict[str, Any]:
    x1, y1, x2, y2 = box_of(row)
    box = [x1 / image.width, y1 / image.height, (x2 - x1) / image.width, (y2 - y1) / image.height]
    more = {"mask_confidence": row["confidence"], "track": row["track"], "time_s": image.time_s}
    return plain(
        {
            "label": row["label"],
            "bounding_box": [round(value, 6) for value in box],
            "confidence": row["score"],
            "attributes": plain({**more, "camera": image.camera, "captured_at": image.captured_at}),
        }
    )


FIFTYONE = FiftyOneFormat()
