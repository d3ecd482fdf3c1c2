"""Annotated images: Pascal VOC folders and WIDER FACE's ``boxes.json``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from maskbatch.errors import InputNotFoundError, UsageError
from maskbatch.evaluate.split import part_of_group
from maskbatch.evaluate.voc import read_voc
from maskbatch.tasks import canonical_label
from maskbatch.tasks.mask import LABELS
from maskbatch.types import Floats

PartName = Literal["all", "train", "val", "test"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
UNKNOWN = -1
"""Label of a face whose class the data does not tell."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The faces of one image.

    Attributes:
        name: of the image in its data set.
        path: its file.
        boxes: n×4 float32, ``x1 y1 x2 y2`` in pixels.
        labels: n, index into the labels that were asked for, or `UNKNOWN`.
        ignored: n, faces that need not be found and do not count (marked difficult or invalid).
    """

    name: str
    path: Path
    boxes: Floats
    labels: npt.NDArray[np.int64]
    ignored: npt.NDArray[np.bool_]


def read_truth(
    data: Path, part: PartName = "all", limit: int | None = None, labels: tuple[str, ...] = LABELS
) -> list[Truth]:
    """The annotated images of a folder, by name.

    Args:
        data: a Pascal VOC folder (``annotations/*.xml`` and ``images/``, or ``Annotations/`` and ``JPEGImages/``), a folder of
            images with an XML file beside each, or WIDER FACE (``boxes.json`` and ``images/``).
        part: ``all``, or the part that `maskbatch.evaluate.split` gives each image's group in ``groups.csv``; WIDER FACE
            names its own parts.
        limit: at most this many, from the front.
        labels: that count, in the order of the classifier's outputs; faces with any other are of unknown class.

    Raises:
        InputNotFoundError: the folder does not exist.
        UsageError: it is not a folder, holds no annotations, a broken one, or no groups to take a part by.
    """
    if not data.exists():
        raise InputNotFoundError(f"{data} does not exist")
    folder = data.parent if data.name == "boxes.json" else data
    if not folder.is_dir():
        raise UsageError(f"{data} is not a folder of annotated images; name a Pascal VOC folder or WIDER's boxes.json")
    truths = (
        list(_read_wider(folder, part)) if (folder / "boxes.json").is_file() else list(_read_voc(folder, part, labels))
    )
    if not truths:
        wanted = "(annotations/*.xml with images/, or boxes.json)" if part == "all" else f"of the part {part!r}"
        raise UsageError(f"{data} holds no annotated images {wanted}")
    truths.sort(key=lambda truth: truth.name)
    return truths[:limit]


def _read_wider(folder: Path, part: PartName) -> Iterator[Truth]:
    try:
        table = json.loads((folder / "boxes.json").read_text(encoding="utf-8"))
        for name, rows in table["images"].items():
            if part != "all" and part not in Path(name).parts:
                continue
            boxes = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
            ignored = np.array([len(row) > 4 and bool(row[4]) for row in rows], np.bool_)
            labels = np.full(len(rows), UNKNOWN, np.int64)
            yield Truth(name, folder / "images" / name, boxes, labels, ignored)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{folder / 'boxes.json'} is not readable as WIDER FACE boxes ({error!r})") from None


def _read_voc(folder: Path, part: PartName, known: tuple[str, ...]) -> Iterator[Truth]:
    annotations = _subfolder(folder, "annotations") or folder
    images = _subfolder(folder, "images", "jpegimages") or folder
    pictures = {path.stem: path for path in sorted(images.iterdir()) if path.suffix.lower() in _SUFFIXES}
    groups = _read_groups(folder) if part != "all" else {}
    for xml in sorted(annotations.glob("*.xml")):
        path = pictures.get(xml.stem)
        if path is None:
            raise UsageError(f"{xml} has no image in {images}")
        if part != "all":
            if path.name not in groups:
                raise UsageError(f"{folder / 'groups.csv'} does not name {path.name}, so its part is unknown")
            if part_of_group(groups[path.name]) != part:
                continue
        yield _read_annotation(xml, path, known)


def _subfolder(folder: Path, *names: str) -> Path | None:
    """The folder of one of these names (in lower case), in whatever case it is written: VOC's own is ``Annotations``, ``JPEGImages``."""
    found = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    return next((found[name] for name in names if name in found), None)


def _read_annotation(xml: Path, path: Path, known: tuple[str, ...]) -> Truth:
    try:
        objects = read_voc(xml).objects
        if not all(item.has_box for item in objects):
            raise ValueError("an object has no box of four numbers")
    except (OSError, ValueError) as error:
        raise UsageError(f"{xml} is not readable as Pascal VOC ({error})") from None
    boxes = [item.box for item in objects]
    labels = [label_of(item.name, known) for item in objects]
    ignored = [item.difficult for item in objects]
    return Truth(
        path.name,
        path,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(ignored, np.bool_),
    )


def label_of(spelling: str, labels: tuple[str, ...] = LABELS) -> int:
    """Index into `labels` of a class as data sets spell it; `UNKNOWN` for any other."""
    for name in (spelling.strip(), canonical_label(spelling)):
        if name in labels:
            return labels.index(name)
    return UNKNOWN


def _read_groups(folder: Path) -> dict[str, str]:
    path = folder / "groups.csv"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return {row["filename"]: row["group"] for row in csv.DictReader(stream)}
    except OSError:
        raise UsageError(
            f"{path} is missing: a part is taken by near-duplicate group (columns filename,group); use --part all"
        ) from None
    except KeyError as error:
        raise UsageError(f"{path} has no column {error}") from None
