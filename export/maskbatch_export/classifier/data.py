"""Annotated images as one table, and the face patches that training and evaluation cut their crops from."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from maskbatch.classify.crops import crop_faces, face_squares
from maskbatch.errors import InputNotFoundError, UsageError
from maskbatch.evaluate.voc import read_voc
from maskbatch.tasks.mask import LABELS
from maskbatch_export.duplicates import group_near_duplicates

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

COLUMNS = ("set", "filename", "label", "xmin", "ymin", "xmax", "ymax", "width", "height", "group", "path")
PROBLEM_COLUMNS = ("set", "filename", "problem", "detail", "kept")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

_SPELLINGS = {
    "with_mask": ("with_mask", "mask", "masked", "face_mask", "mask_on", "withmask", "correct", "mask_worn_correctly"),
    "without_mask": (
        "without_mask",
        "no_mask",
        "nomask",
        "unmasked",
        "face",
        "mask_off",
        "withoutmask",
        "face_no_mask",
    ),
    "mask_weared_incorrect": (
        *("mask_weared_incorrect", "mask_worn_incorrectly", "incorrect_mask", "incorrect", "mask_incorrect"),
        *("improper_mask", "improperly_worn_mask", "weared_incorrect", "mask_worn_incorrect", "incorrectly_worn_mask"),
    ),
}
LABEL_OF_SPELLING = {spelling: label for label, spellings in _SPELLINGS.items() for spelling in spellings}


@dataclass(frozen=True)
class FaceTable:
    """All annotated faces of one or more data sets.

    Attributes:
        faces: a row per face with `COLUMNS`; boxes in pixels of the image, clipped to it; ``group`` is a string.
        problems: a row per thing that is wrong with `PROBLEM_COLUMNS`; ``kept`` says whether the face is in `faces`.
        images: number of readable images, with or without faces.
    """

    faces: pd.DataFrame
    problems: pd.DataFrame
    pictures: int


def label_of(spelling: str, labels: Sequence[str] = LABELS) -> str | None:
    """The class that a data set's own spelling of a label means; None where it is not one of `labels`."""
    if spelling.strip() in labels:
        return spelling.strip()
    return LABEL_OF_SPELLING.get(spelling.strip().lower().replace("-", "_").replace(" ", "_"))


def read_tables(folders: Sequence[Path], labels: Sequence[str] = LABELS) -> FaceTable:
    """Read Pascal VOC folders (``annotations/*.xml``, ``images/*``, optional ``groups.csv``) into one table.

    Near-duplicate groups come from ``groups.csv`` where *every* folder has one (their numbers are taken to be shared);
    otherwise images of all folders are grouped anew by perceptual hash.

    Raises:
        InputNotFoundError: a folder, its annotations or its images are missing.
        UsageError: two folders have the same name, or there is not one face.
    """
    import pandas as pd

    if len({folder.resolve().name for folder in folders}) != len(folders):
        raise UsageError("two data folders have the same name; rename one, since names tell the sets apart")
    rows: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    paths: list[Path] = []
    groups: dict[Path, str] = {}
    for folder in folders:
        listed = _listed_groups(folder)
        for path, found, wrong in _read_folder(folder, labels):
            problems += wrong
            if path is None:
                continue
            paths.append(path)
            rows += found
            if path.name in listed:
                groups[path] = listed[path.name]
    if any(path not in groups for path in paths):
        groups = {path: str(group) for path, group in zip(paths, group_near_duplicates(paths), strict=True)}
    if not rows:
        raise UsageError(f"no annotated face in {', '.join(map(str, folders))}")
    for row in rows:
        row["group"] = groups[Path(row["path"])]
    return FaceTable(
        pd.DataFrame(rows, columns=list(COLUMNS)), pd.DataFrame(problems, columns=list(PROBLEM_COLUMNS)), len(paths)
    )


def _listed_groups(folder: Path) -> dict[str, str]:
    path = folder / "groups.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["filename"]: row["group"] for row in csv.DictReader(file)}


def _read_folder(
    folder: Path, labels: Sequence[str]
) -> Iterator[tuple[Path | None, list[dict[str, Any]], list[dict[str, Any]]]]:
    """Per image: its path (None where there is none), rows of faces, rows of problems."""
    annotations, images = folder / "annotations", folder / "images"
    for part in (folder, annotations, images):
        if not part.is_dir():
            raise InputNotFoundError(f"{part} is missing; a data folder holds annotations/*.xml and images/*")
    name = folder.resolve().name
    by_stem = {path.stem: path for path in sorted(images.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES}

    def problem(file: str, what: str, detail: str, kept: bool) -> dict[str, Any]:
        return dict(zip(PROBLEM_COLUMNS, (name, file, what, detail, kept), strict=True))

    annotated = sorted(annotations.glob("*.xml"))
    for xml in annotated:
        path = by_stem.get(xml.stem)
        if path is None:
            yield None, [], [problem(xml.name, "no_picture", "no image of this name in images/", False)]
            continue
        try:
            annotation = read_voc(xml)
        except ValueError as error:
            yield None, [], [problem(xml.name, "unreadable_annotation", str(error), False)]
            continue
        picture = read_picture(path)
        if picture is None:
            yield None, [], [problem(path.name, "unreadable_picture", "not decodable", False)]
            continue
        height, width = picture.shape[:2]
        rows, wrong = [], []
        if annotation.size != (str(width), str(height)):
            detail = f"annotation says {annotation.size}, is {(width, height)}"
            wrong.append(problem(path.name, "size_differs", detail, True))
        for item in annotation.objects:
            spelling = item.name
            label = label_of(spelling, labels)
            label = label if label in labels else None
            if label is None:
                wrong.append(problem(path.name, "unknown_label", spelling, False))
                continue
            corners = list(item.box)
            if not item.has_box:
                wrong.append(problem(path.name, "unreadable_box", spelling, False))
                continue
            limits = (width, height, width, height)
            box = [min(max(value, 0.0), float(limit)) for value, limit in zip(corners, limits, strict=True)]
            if box[2] - box[0] < 1 or box[3] - box[1] < 1:
                wrong.append(problem(path.name, "empty_box", str(corners), False))
                continue
            if box != corners:
                wrong.append(problem(path.name, "out_of_frame", f"{corners} in {width}×{height}", True))
            rows.append(dict(zip(COLUMNS, (name, path.name, label, *box, width, height, "", str(path)), strict=True)))
        yield path, rows, wrong
    for stem in sorted(set(by_stem) - {xml.stem for xml in annotated}):
        yield None, [], [problem(by_stem[stem].name, "no_annotation", "no annotation of this name", False)]


CORRECTION_COLUMNS = ("set", "filename", "xmin", "ymin", "xmax", "ymax", "label", "corrected")


def correct_labels(faces: pd.DataFrame, corrections: Path) -> tuple[pd.DataFrame, int]:
    """The faces with wrong labels corrected, and how many lines of the list were about one of them.

    Args:
        faces: as in `FaceTable`.
        corrections: CSV with `CORRECTION_COLUMNS`; an empty ``corrected`` leaves the face out.

    Raises:
        UsageError: the list cannot be read, or names a class that does not exist.
    """
    try:
        with corrections.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if any(row[name] is None for row in rows for name in CORRECTION_COLUMNS):
            raise ValueError("a line is too short")
        keys = [_key(row["set"], row["filename"], *(float(row[k]) for k in CORRECTION_COLUMNS[2:6])) for row in rows]
        wanted = dict(zip(keys, (row["corrected"] for row in rows), strict=True))
    except (OSError, UnicodeDecodeError, KeyError, ValueError) as error:
        raise UsageError(
            f"{corrections} is not a list of corrections ({', '.join(CORRECTION_COLUMNS)}): {error}"
        ) from error
    unknown = set(wanted.values()) - {"", *LABELS}
    if unknown:
        raise UsageError(f"{corrections}: unknown class {sorted(unknown)[0]!r}")
    columns = ("set", "filename", "xmin", "ymin", "xmax", "ymax")
    found = [wanted.get(_key(*row)) for row in faces[list(columns)].itertuples(index=False, name=None)]
    labels = [label if new is None else new for label, new in zip(faces["label"], found, strict=True)]
    corrected = faces.assign(label=labels)
    return corrected[corrected["label"] != ""], sum(new is not None for new in found)


def _key(folder: str, filename: str, *box: float) -> tuple[str, str, tuple[float, ...]]:
    return folder, filename, tuple(round(float(value), 1) for value in box)


def read_picture(path: Path) -> NDArray[np.uint8] | None:
    """H×W×3 uint8 BGR in display orientation, or None where OpenCV cannot read it."""
    data = np.fromfile(path, np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    return None if picture is None else np.asarray(picture, np.uint8)


@dataclass(frozen=True)
class Patches:
    """Neighbourhoods of faces, cut once, at the image's own resolution (large faces reduced).

    Attributes:
        images: n images H×W×3 uint8 BGR, each `MARGIN` times the face's longer side or less at the frame's edge.
        boxes: n×4 float32, the annotated box in pixels of its patch.
        labels: n int64, index into the names of the classes.
        sides: n float32, longer side of the box in pixels of the image.
    """

    images: list[NDArray[np.uint8]]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    sides: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)

    def crops(self, context: float, size: int, jitter: float = 0.0, seed: int = 0) -> NDArray[np.uint8]:
        """n×size×size×3 uint8 BGR through the scan's own `crop_faces`; `jitter` as in `jitter_boxes`."""
        rng = np.random.default_rng(seed)
        boxes = jitter_boxes(self.boxes, rng, jitter) if jitter else self.boxes
        pairs = zip(self.images, boxes, strict=True)
        return np.concatenate([crop_faces(image, box[None], size, context) for image, box in pairs])


MARGIN = 2.2
_MAX_PATCH = 448


def cut_patches(faces: pd.DataFrame, names: Sequence[str] = LABELS) -> Patches:
    """Read every image of a table once and cut a patch around each face, in the order of the table."""
    images: list[NDArray[np.uint8]] = [np.empty((0, 0, 3), np.uint8)] * len(faces)
    boxes = np.zeros((len(faces), 4), np.float32)
    corners = faces[["xmin", "ymin", "xmax", "ymax"]].to_numpy(np.float32)
    for path, positions in faces.reset_index(drop=True).groupby("path", sort=False).indices.items():
        picture = read_picture(Path(str(path)))
        if picture is None:
            raise UsageError(f"{path} was readable a moment ago and is not any more")
        for position in positions:
            images[position], boxes[position] = _cut(picture, corners[position])
    labels = np.array([list(names).index(label) for label in faces["label"]], np.int64)
    return Patches(images, boxes, labels, (corners[:, 2:] - corners[:, :2]).max(axis=1))


def cut_patches_of(
    picture: NDArray[np.uint8], boxes: NDArray[np.float32]
) -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Patches of one image, as `Patches` holds them, each with its box: H×W×3 uint8 BGR, n×4 boxes in its pixels."""
    return [_cut(picture, box) for box in boxes]


def _cut(picture: NDArray[np.uint8], box: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    left, top, side = face_squares(box[None], MARGIN)[0]
    x0, y0 = max(int(left), 0), max(int(top), 0)
    patch = picture[y0 : int(np.ceil(top + side)), x0 : int(np.ceil(left + side))]
    moved = box - np.array([x0, y0, x0, y0], np.float32)
    longest = max(patch.shape[:2])
    if longest <= _MAX_PATCH:
        return patch.copy(), moved
    width, height = (round(n * _MAX_PATCH / longest) for n in (patch.shape[1], patch.shape[0]))
    factors = np.array([width / patch.shape[1], height / patch.shape[0]] * 2, np.float32)
    return np.asarray(cv2.resize(patch, (width, height), interpolation=cv2.INTER_AREA), np.uint8), moved * factors


def jitter_boxes(boxes: NDArray[np.float32], rng: np.random.Generator, strength: float) -> NDArray[np.float32]:
    """Move and stretch boxes as a detector's differ from annotated ones.

    Args:
        boxes: n×4 float32, ``x1 y1 x2 y2``.
        rng: source of randomness.
        strength: 1 shifts the centre by 5 % of the side and scales the sides by 9 % (standard deviations).
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    extent = boxes[:, 2:] - boxes[:, :2]
    centre = centre + rng.normal(0, 0.05 * strength, centre.shape) * extent
    extent = extent * np.exp(
        rng.normal(0, 0.06 * strength, extent.shape) + rng.normal(0, 0.07 * strength, (len(boxes), 1))
    )
    return np.concatenate([centre - extent / 2, centre + extent / 2], axis=1).astype(np.float32)


def wider_faces(folder: Path, smallest: float = 16.0) -> pd.DataFrame:
    """Faces of a WIDER FACE excerpt (``boxes.json``) as rows labelled ``without_mask``, training images only.

    The event of surgeons is left out, since they do wear masks, and so are invalid boxes and those under `smallest`
    pixels.

    Raises:
        InputNotFoundError: ``boxes.json`` is missing.
    """
    import json

    import pandas as pd

    listing = folder / "boxes.json"
    if not listing.is_file():
        raise InputNotFoundError(f"{listing} is missing; --wider takes the folder that holds it")
    rows = []
    for name, boxes in sorted(json.loads(listing.read_text(encoding="utf-8"))["images"].items()):
        if not name.startswith("train/") or "surgeon" in name.lower():
            continue
        path = folder / "images" / name
        for x1, y1, x2, y2, invalid in boxes:
            if invalid or max(x2 - x1, y2 - y1) < smallest or min(x2 - x1, y2 - y1) < 4:
                continue
            values = ("wider_face", name, "without_mask", x1, y1, x2, y2, 0, 0, f"wider:{name}", str(path))
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return pd.DataFrame(rows, columns=list(COLUMNS))
