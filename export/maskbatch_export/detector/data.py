"""The images that the detector is trained on: mask sets (Pascal VOC), WIDER FACE and rooms without people, decoded once and held in memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from maskbatch.evaluate.voc import read_voc
from maskbatch_export.split import Part, part_of_group

MASK_SETS = ("face_mask_detection", "ilc2021")
LOOSE_SETS = ("street_masks", "press_masks", "classroom_masks")
"""Mask sets whose boxes are loose and where some faces have none; see `pseudo`."""
WIDER = "wider_face"
ROOMS = "empty_rooms"
ORIGINS = (*MASK_SETS, *LOOSE_SETS, WIDER, ROOMS)


@dataclass(frozen=True)
class Picture:
    """One image and its faces.

    Attributes:
        name: file name; unique within its set.
        origin: name of the data set.
        image: H x W x 3 uint8 BGR.
        boxes: ``(n, 4)`` float32 x1 y1 x2 y2 in pixels.
        ignored: ``(n,)`` faces that are neither trained on nor counted.
        landmarks: ``(n, 5, 2)`` float32 pixels, NaN where unknown.
    """

    name: str
    origin: str
    image: np.ndarray
    boxes: np.ndarray
    ignored: np.ndarray
    landmarks: np.ndarray

    def with_landmarks(self, landmarks: np.ndarray) -> Picture:
        """The same image with other landmarks."""
        return replace(self, landmarks=landmarks.astype(np.float32))


def _picture(path: Path, origin: str, rows: list[tuple[float, float, float, float, bool]]) -> Picture:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise OSError(f"{path}: cannot be decoded as an image")
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Picture(
        path.name, origin, image, table[:, :4], table[:, 4] > 0, np.full((len(rows), 5, 2), np.nan, np.float32)
    )


def read_mask_set(folder: Path, part: Part | None) -> Iterator[Picture]:
    """Images of a mask set that belong to ``part`` (all for ``None``), by name."""
    with (folder / "groups.csv").open(newline="") as file:
        groups = {row["filename"]: row["group"] for row in csv.DictReader(file)}
    for name in sorted(groups):
        if part is not None and part_of_group(groups[name]) != part:
            continue
        annotation = read_voc((folder / "annotations" / name).with_suffix(".xml"))
        rows = [(*item.box, False) for item in annotation.objects]
        yield _picture(folder / "images" / name, folder.name, rows)


def read_wider(folder: Path, part: Part | None) -> Iterator[Picture]:
    """Images of WIDER FACE: its own training part for ``train``, its validation part for ``val``; nothing for ``test``."""
    table = json.loads((folder / "boxes.json").read_text())
    for name in sorted(table["images"]):
        own = Path(name).parts
        if part is not None and part not in own:
            continue
        rows = [(x1, y1, x2, y2, bool(bad)) for x1, y1, x2, y2, bad in table["images"][name]]
        yield _picture(folder / "images" / name, folder.name, rows)


def read_rooms(folder: Path, part: Part | None) -> Iterator[Picture]:
    """Images without people; each is a group of its own."""
    for path in sorted(folder.iterdir()):
        if part is None or part_of_group(path.name) == part:
            yield _picture(path, folder.name, [])


def present(data: Path) -> tuple[str, ...]:
    """The data sets that lie in a folder."""
    return tuple(origin for origin in ORIGINS if (data / origin).is_dir())


def read_pictures(data: Path, part: Part, origins: tuple[str, ...] = (*MASK_SETS, WIDER)) -> list[Picture]:
    """All images of a part of the given data sets, decoded (about 0.5 MB each)."""
    readers = {WIDER: read_wider, ROOMS: read_rooms}
    return [picture for origin in origins for picture in readers.get(origin, read_mask_set)(data / origin, part)]
