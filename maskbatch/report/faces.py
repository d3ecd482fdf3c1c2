"""Faces for the report, only where asked for: samples per label, the least certain, random ones; from the inputs, where they still are."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from maskbatch.classify.crops import face_squares
from maskbatch.draw.eyes import cover_eyes
from maskbatch.draw.images import square_crop, thumbnail
from maskbatch.draw.originals import Originals
from maskbatch.errors import InputError, MaskbatchError
from maskbatch.results.reader import ResultReader
from maskbatch.types import Image

SIDE = 160
_QUALITY = 85
_COLUMNS = ("source", "camera", "media", "frame", "time_s", "x1", "y1", "x2", "y2", "landmarks", "label", "confidence")


@dataclass(frozen=True, slots=True)
class FaceSample:
    """A face to show.

    Attributes:
        group: why it was chosen.
        caption: label, confidence and camera.
        jpeg: base64.
        link: relative address of the input, at its second, where it lies beside the report.
    """

    group: str
    caption: str
    jpeg: str
    link: str | None = None


def sample_faces(
    reader: ResultReader, count: int, *, redact: bool, beside: Path | None = None
) -> tuple[tuple[FaceSample, ...], int]:
    """Choose and cut out faces.

    Args:
        reader: the result; ``results.run.json`` beside it says where the inputs are.
        count: of each group.
        redact: cover the eyes, so that nose and mouth can still be judged; nothing around the face is shown then, and nothing linked.
        beside: the report's folder, for links to inputs that lie in or below it.

    Returns:
        The faces, and how many could not be read because their input is gone or is not a file.
    """
    originals = Originals(reader.run())
    found, missing = [], 0
    for group, rows in _chosen(reader, count).items():
        for row in rows:
            image = _picture(originals, row)
            if image is None:
                missing += 1
                continue
            where = f", {row['camera']}" if row["camera"] else ""
            caption = f"{row['label']} {row['confidence']:.2f}{where}"
            link = None if redact else _link(originals.path(row["source"]), row, beside)
            found.append(FaceSample(group, caption, base64.b64encode(_cut(image, row, redact)).decode(), link))
    return tuple(found), missing


def _chosen(reader: ResultReader, count: int) -> dict[str, list[dict[str, Any]]]:
    """Rows per group; the same for the same result."""
    rng = np.random.default_rng(0)
    groups: dict[str, list[tuple[float, int, dict[str, Any]]]] = {name: [] for name in reader.task.labels}
    groups |= {"least certain": [], "random": []}
    seen = 0
    for table in reader.tables(_COLUMNS):
        chance = rng.random(len(table))
        labels = np.asarray(table["label"].cast(pa.string()).to_numpy())
        confidence = np.asarray(table["confidence"].to_numpy())
        for name, kept in groups.items():
            keys = confidence if name == "least certain" else chance
            rows = np.arange(len(table)) if name not in reader.task.labels else np.flatnonzero(labels == name)
            best = rows[np.argsort(keys[rows], kind="stable")[:count]]
            kept += [
                (float(keys[i]), seen + int(i), row) for i, row in zip(best, table.take(best).to_pylist(), strict=True)
            ]
            kept.sort(key=lambda item: item[:2])
            del kept[count:]
        seen += len(table)
    return {name: [row for _, _, row in kept] for name, kept in groups.items()}


def _link(path: Path | None, row: dict[str, Any], beside: Path | None) -> str | None:
    """A relative address, and the second of a video as a media fragment (W3C Media Fragments URI 1.0, 4.2.1)."""
    if path is None or beside is None or not path.resolve().is_relative_to(beside.resolve()):
        return None
    name = quote(path.resolve().relative_to(beside.resolve()).as_posix())
    return name if row["time_s"] is None else f"{name}#t={row['time_s']:.2f}"


def _picture(originals: Originals, row: dict[str, Any]) -> Image | None:
    try:
        if row["media"] == "image":
            return originals.image(row["source"])
        return originals.frame(row["source"], row["frame"])
    except (MaskbatchError, InputError, OSError, ValueError):
        return None


def _cut(image: Image, row: dict[str, Any], redact: bool) -> bytes:
    box = np.array([[row[name] for name in ("x1", "y1", "x2", "y2")]], np.float32)
    if redact:
        cover_eyes(image, [row[name] for name in ("x1", "y1", "x2", "y2")], row["landmarks"])
        x1, y1, x2, y2 = np.clip(box[0], 0, [image.shape[1], image.shape[0]] * 2).round().astype(int).tolist()
        crop = np.ascontiguousarray(image[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)])
    else:
        left, top, side = (float(value) for value in face_squares(box)[0][:3])
        crop = square_crop(image, left, top, side)
    return thumbnail(crop, SIDE, _QUALITY)
