"""YOLO: ``labels/NAME.txt`` per image (class, centre, width, height in parts of the image) and ``data.yaml``.

Labels for training have five columns, so scores are lost; ``images.csv`` keeps what else the format cannot hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from maskbatch.draw.paths import output_path
from maskbatch.errors import UsageError
from maskbatch.formats.base import Box, Conversion, LabelledImage, Moment
from maskbatch.formats.pictures import write_images_csv
from maskbatch.formats.values import box_of
from maskbatch.storage.atomic import as_output_error

FOLDER = "labels"
DATA = "data.yaml"
_IMAGE = ".jpg"


class YoloFormat:
    """See the module."""

    name = "yolo"
    title = "YOLO labels, a text file per image, and data.yaml"

    def write(self, job: Conversion) -> list[Path]:
        """See `ResultFormat.write`."""
        labels, unknown = job.result.task.labels, 0
        for image in write_images_csv(job.out, job.moments()):
            if not image.width or not image.height:
                unknown += 1
                continue
            name = PurePosixPath(image.name)
            if job.pictures.written:
                name = name.relative_to(job.pictures.folder)
            target = output_path(job.out / FOLDER, str(name.with_suffix(".txt")))
            with as_output_error(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text("".join(_lines(image, labels)), encoding="ascii")
        if unknown:
            job.notes.append(f"{unknown} images are left out: their size is not known without the inputs table")
        with as_output_error(job.out):
            (job.out / FOLDER).mkdir(exist_ok=True)
            # JSON strings are YAML too.
            names = "".join(f"  {number}: {json.dumps(label)}\n" for number, label in enumerate(labels))
            images = json.dumps(job.pictures.folder)
            (job.out / DATA).write_text(f"path: .\ntrain: {images}\nval: {images}\nnames:\n{names}", encoding="utf-8")
        return [job.out / FOLDER, job.out / DATA]

    def recognizes(self, path: Path) -> bool:
        """See `LabelFormat.recognizes`."""
        return path.name == DATA or (path.is_dir() and (path / DATA).is_file())

    def read(self, path: Path) -> Iterator[LabelledImage]:
        """See `LabelFormat.read`. `path` is ``data.yaml`` or its folder; boxes come in parts of the image."""
        base = path if path.is_dir() else path.parent
        names = _names(base / DATA)
        for file in sorted((base / FOLDER).rglob("*.txt")):
            boxes: list[Box] = []
            labels = []
            for line in file.read_text(encoding="utf-8").splitlines():
                if not line.strip():
                    continue
                try:
                    kind, x, y, width, height = (float(value) for value in line.split()[:5])
                    labels.append(names[int(kind)])
                except (ValueError, KeyError) as error:
                    raise UsageError(f"{file}: not a line of YOLO's format: {line[:80]!r} ({error})") from None
                boxes.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
            name = file.relative_to(base / FOLDER).with_suffix(_IMAGE).as_posix()
            yield LabelledImage(name, tuple(boxes), tuple(labels))


def _lines(image: Moment, labels: tuple[str, ...]) -> Iterator[str]:
    for row in image.faces:
        x1, y1, x2, y2 = box_of(row)
        # A box may reach over the edge; other tools refuse labels that do.
        x1, x2 = (min(max(value / image.width, 0.0), 1.0) for value in (x1, x2))
        y1, y2 = (min(max(value / image.height, 0.0), 1.0) for value in (y1, y2))
        if x2 > x1 and y2 > y1:
            values = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
            yield f"{labels.index(row['label'])} {' '.join(f'{value:.6f}' for value in values)}\n"


def _names(path: Path) -> dict[int, str]:
    """Class names of a ``data.yaml``: a list or a mapping, as written by common tools. Raises UsageError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; it names the classes") from None
    inline = re.search(r"^names:\s*\[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    if inline:
        found = [part.strip().strip("'\"") for part in inline[1].split(",") if part.strip()]
        return dict(enumerate(found))
    block = re.search(r"^names:[^\S\n]*\n((?:[ \t-].*(?:\n|$))+)", text, re.MULTILINE)
    lines = [] if block is None else [line.strip() for line in block[1].splitlines() if line.strip()]
    if lines and all(line.startswith("-") for line in lines):
        return {at: line[1:].strip().strip("'\"") for at, line in enumerate(lines)}
    pairs = [re.match(r"(\d+)\s*:\s*(.+)", line) for line in lines]
    if not pairs or not all(pairs):
        raise UsageError(f"{path}: it has no list `names` of the classes")
    return {int(pair[1]): pair[2].strip().strip("'\"") for pair in pairs if pair}


YOLO = YoloFormat()
