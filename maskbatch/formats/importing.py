"""What people labelled in other tools, as corrections of a result."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskbatch.errors import UsageError
from maskbatch.evaluate.metrics import box_overlaps
from maskbatch.formats import label_format
from maskbatch.formats.base import Box, LabelledImage
from maskbatch.formats.pictures import FOLDERS, IMAGES, read_images_csv
from maskbatch.results.correction_log import CorrectionLog
from maskbatch.results.corrections import SAME_FACE_IOU, Correction, now
from maskbatch.results.reader import ResultReader
from maskbatch.tasks import Task, canonical_label

_Key = tuple[str, int | None]
_FRAME = re.compile(r"(.+)/f(\d{7,})\.\w+$")


@dataclass(slots=True)
class Imported:
    """What came of it.

    Attributes:
        images: that were labelled and found.
        actions: corrections by action.
        unknown: names of images that are not in the result, or whose file is missing.
        written: the log of corrections, or the folder of the data set.
    """

    images: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)
    written: Path | None = None


def read_labels(paths: Sequence[Path], format_name: str | None = None) -> Iterator[tuple[Path, LabelledImage]]:
    """The labels of files and folders, each with the place that it came from.

    Images that an ``images.csv`` beside the labels names come with their source, frame and size.

    Raises:
        UsageError: a file is not of a known format, or damaged.
    """
    for path in paths:
        chosen = label_format(path, format_name)
        base = path if path.is_dir() else path.parent
        table = _images_csv(base)
        for image in chosen.read(path):
            yield base, _named(image, table)


def import_corrections(
    labels: Iterable[LabelledImage],
    results: str,
    *,
    names: Mapping[str, str] | None = None,
    by: str = "",
    origin: str = "import",
    dry_run: bool = False,
) -> Imported:
    """Write what differs from a result into its log of corrections.

    An image that was labelled is taken as complete: a detection without a label there is not a face, a label without a detection is a
    face that was missed. The same labels twice change nothing more.

    Args:
        labels: images with boxes.
        results: the result.
        names: spelling of a label → label of the result, for labels that differ.
        by: who labelled.
        origin: of the corrections.
        dry_run: only count.

    Raises:
        UsageError: there is no such result, or a label is none of it.
        OutputError: the log cannot be written.
    """
    reader = ResultReader(results, corrections=True)
    index = _SourceIndex(reader)
    done, wanted = Imported(), {}
    for image in labels:
        key = index.find(image)
        if key is None:
            done.unknown.append(image.name)
        else:
            wanted[key] = replace(image, labels=tuple(_label(x, reader.task, names or {}) for x in image.labels))
    rows, first = _rows(reader, wanted)
    at = now()
    found: list[Correction] = []
    for key, image in wanted.items():
        here = rows.get(key, [])
        time_s = here[0]["time_s"] if here else index.time_of(image, key, first)
        if key[1] is not None and time_s is None:
            done.unknown.append(f"{image.name} (its time is not known)")
            continue
        boxes = index.in_pixels(image, key[0])
        if boxes is None:
            done.unknown.append(f"{image.name} (its size is not known)")
            continue
        done.images += 1
        common = {"sha256": index.hashes.get(key[0], ""), "by": by, "at": at, "origin": origin}
        for action, label, box in _differences(here, boxes, image.labels):
            done.actions[action] += 1
            found.append(Correction(key[0], box, action, label, key[1], time_s, **common))  # type: ignore[arg-type]
    done.written = reader.corrections_path
    if not dry_run:
        CorrectionLog(done.written).append(found)
    return done


class _SourceIndex:
    """Finds the images of a result by what other tools call them."""

    def __init__(self, reader: ResultReader) -> None:
        table = reader.inputs()
        self._sizes = dict(
            zip(
                table["source"].cast(pa.string()).to_pylist(),
                zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True),
                strict=True,
            )
        )
        hashes = zip(self._sizes, table["sha256"].to_pylist(), strict=True)
        self.hashes = {source: sha256 for source, sha256 in hashes if sha256}
        last = Counter(PurePosixPath(source).name for source in self._sizes)
        self._by_last = {PurePosixPath(s).name: s for s in self._sizes if last[PurePosixPath(s).name] == 1}

    def find(self, image: LabelledImage) -> _Key | None:
        """Source and frame of an image, or None. A name alone is enough where no other source has it."""
        if image.source is not None:
            return (image.source, image.frame) if image.source in self._sizes else None
        name = image.name.split("?d=")[-1].replace("\\", "/")
        match = _FRAME.search(name)
        for found, frame in ((match[1], int(match[2])) if match else (name, None), (name, None)):
            shorter = [found.removeprefix(f"{folder}/") for folder in FOLDERS]
            for source in (found, *shorter, self._by_last.get(PurePosixPath(found).name)):
                if source in self._sizes:
                    return str(source), frame
        return None

    def in_pixels(self, image: LabelledImage, source: str) -> list[Box] | None:
        """The boxes in pixels of the source; None where its size is not known."""
        if image.width:
            return list(image.boxes)
        width, height = self._sizes[source]
        if not width or not height:
            return list(image.boxes) if not image.boxes or max(map(max, image.boxes)) > 2 else None
        if image.boxes and max(map(max, image.boxes)) > 2:  # pixels of an image whose size the labels leave out
            return list(image.boxes)
        return [(x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in image.boxes]

    @staticmethod
    def time_of(image: LabelledImage, key: _Key, first: Mapping[str, list[tuple[int, float]]]) -> float | None:
        """Presentation time of a frame without detections: between those of its neighbours, which is right where frames are even."""
        known = sorted(first.get(key[0], []))
        if key[1] is None or len(known) < 2:
            return None
        frames, times = zip(*known, strict=True)
        if not frames[0] <= key[1] <= frames[-1]:
            rate = (times[-1] - times[0]) / (frames[-1] - frames[0])
            return float(times[0] + (key[1] - frames[0]) * rate)
        return float(np.interp(key[1], frames, times))


def _rows(
    reader: ResultReader, wanted: Mapping[_Key, LabelledImage]
) -> tuple[dict[_Key, list[dict[str, Any]]], dict[str, list[tuple[int, float]]]]:
    """Rows of the wanted images, and per source some frames with their times."""
    names = pa.array(sorted({source for source, _ in wanted}), pa.string())
    rows: dict[_Key, list[dict[str, Any]]] = {}
    times: dict[str, list[tuple[int, float]]] = {}
    for table in reader.tables(("source", "frame", "time_s", "x1", "y1", "x2", "y2", "label")):
        chosen = table.filter(pc.is_in(table["source"].cast(pa.string()), names))
        for row in chosen.to_pylist():
            key = (row["source"], row["frame"])
            if key in wanted:
                rows.setdefault(key, []).append(row)
            if row["frame"] is not None:
                known = times.setdefault(row["source"], [])
                if not known or known[-1][0] != row["frame"]:
                    known.append((row["frame"], row["time_s"]))
    return rows, times


def _differences(
    rows: Sequence[Mapping[str, Any]], boxes: Sequence[Box], labels: Sequence[str]
) -> Iterator[tuple[str, str, Box]]:
    """Action, label and box of what differs."""
    known = [(float(row["x1"]), float(row["y1"]), float(row["x2"]), float(row["y2"])) for row in rows]
    overlap = box_overlaps(np.array(known).reshape(-1, 4), np.array(boxes).reshape(-1, 4))
    left_rows, left_boxes = set(range(len(known))), set(range(len(boxes)))
    while overlap.size and overlap.max() >= SAME_FACE_IOU:
        row, box = (int(at) for at in np.unravel_index(int(overlap.argmax()), overlap.shape))
        overlap[row, :], overlap[:, box] = -1, -1
        left_rows.discard(row)
        left_boxes.discard(box)
        if rows[row]["label"] != labels[box]:
            yield "label", labels[box], known[row]
    for row in sorted(left_rows):
        yield "not_a_face", "", known[row]
    for box in sorted(left_boxes):
        yield "missed", labels[box], boxes[box]


def _label(spelling: str, task: Task, names: Mapping[str, str]) -> str:
    for name in (names.get(spelling), spelling.strip(), canonical_label(spelling)):
        if name in task.labels:
            return str(name)
    raise UsageError(
        f"the label {spelling!r} is none of this result ({', '.join(task.labels)}); say which it is with --label {spelling}={task.labels[0]}"
    )


def _images_csv(base: Path) -> dict[str, dict[str, str]]:
    """Rows by name, and by name without its ending."""
    for folder in (base, base.parent, base.parent.parent):
        try:
            table = read_images_csv(folder / IMAGES)
        except (OSError, KeyError):
            continue
        return {**{_stem(name): row for name, row in table.items()}, **table}
    return {}


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _named(image: LabelledImage, table: Mapping[str, Mapping[str, str]]) -> LabelledImage:
    if image.source is not None or not table:
        return image
    bare = image.name.split("?d=")[-1]
    names = [bare, *(f"{folder}/{bare}" for folder in FOLDERS)]
    row = next((table[name] for name in names if name in table), None)
    if row is None:  # the ending of an image is lost in YOLO and VOC
        row = next((table[stem] for name in names if (stem := _stem(name)) in table), None)
    if row is None:
        return image
    frame = int(row["frame"]) if row.get("frame") else None
    boxes, width, height = image.boxes, image.width, image.height
    if not width and row.get("width") not in ("", "0", None):
        width, height = int(row["width"]), int(row["height"])
        boxes = tuple((x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in boxes)
    return replace(image, name=row["name"], source=row["source"], frame=frame, boxes=boxes, width=width, height=height)
