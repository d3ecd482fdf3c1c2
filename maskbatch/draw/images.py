"""Annotated copies of the still images, from the rows of the result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import simplejpeg

from maskbatch.config import Limits
from maskbatch.draw.faces import Face, Style, show_faces
from maskbatch.draw.paths import safe_output_path
from maskbatch.errors import OutputError
from maskbatch.sources.images.decode import decode_image
from maskbatch.storage.atomic import write_bytes
from maskbatch.storage.opener import read_bytes
from maskbatch.types import Image, Source

COLUMNS = ("frame", "time_s", "face", "x1", "y1", "x2", "y2", "label", "confidence", "track", "landmarks")
"""The columns of the results that drawing needs; others may be left out of the tables."""

_KEEPS_ITS_ENDING = (".jpg", ".jpeg", ".png")


def annotate_image(
    source: Source,
    rows: pa.Table,
    out_dir: str | os.PathLike[str],
    style: Style | None = None,
    limits: Limits | None = None,
    name: str = "",
) -> Path:
    """Write one image with its faces shown, also if it has none, so that the output tree is complete.

    Args:
        source: a still image.
        rows: its rows of the results (at least `COLUMNS`), in their order.
        out_dir: root of the output tree; the file is named like `source.name`, with ``.jpg`` added unless it is a
            JPEG or PNG already.
        style: what is drawn.
        limits: as in the scan.
        name: draw it under this name in place of its own.

    Returns:
        The path that was written. The image is upright and 8-bit; metadata of the original (place, camera) are not
        copied.

    Raises:
        InputError: the image cannot be read (any more).
        OutputError: it cannot be written, or would be written over its input or outside `out_dir`.
    """
    style = style or Style()
    target = safe_output_path(Path(out_dir), image_output_name(name or source.name), source)
    image = load_picture(source, limits or Limits())
    show_faces(image, faces_of(rows), style)
    write_bytes(target, encode_picture(image, target.suffix, style.quality))
    return target


def image_output_name(name: str) -> str:
    """``a/b.png`` → ``a/b.png``, ``a/b.webp`` → ``a/b.webp.jpg``; the added ending keeps it apart from ``a/b.jpg``."""
    return name if name.lower().endswith(_KEEPS_ITS_ENDING) else f"{name}.jpg"


def load_picture(source: Source, limits: Limits) -> Image:
    """The whole image in original size, H×W×3 uint8 BGR, upright, and free to be drawn on. Raises InputError."""
    frame = decode_image(read_bytes(source.path), cover=0, max_pixels=limits.max_pixels)
    return np.ascontiguousarray(frame.image) if frame.image.flags.writeable else frame.image.copy()


def encode_picture(image: Image, suffix: str, quality: int) -> bytes:
    """Encode H×W×3 uint8 BGR as PNG for the ending ``.png``, as JPEG for any other.

    Raises:
        OutputError: the image has more than 65,500 pixels in a row or column, which JPEG cannot hold.
    """
    if suffix.lower() == ".png":
        # The fastest level: these files are looked at, and ten times as slow would save a tenth.
        done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not done:
            raise OutputError("the annotated image cannot be encoded as PNG")
        return bytes(data)
    if max(image.shape[:2]) > 65_500:
        raise OutputError(f"an image of {image.shape[1]}×{image.shape[0]} pixels does not fit into a JPEG")
    # Without chroma subsampling: thin coloured lines and small letters stay sharp.
    return bytes(simplejpeg.encode_jpeg(image, quality=quality, colorspace="BGR", colorsubsampling="444"))


def faces_of(rows: pa.Table) -> list[Face]:
    """The faces of the rows of one image or frame, in their order."""
    return [Face.of(row) for row in drawn_columns(rows).to_pylist()]


def drawn_columns(rows: pa.Table) -> pa.Table:
    """Only the columns that drawing needs, those that are there."""
    return rows.select([name for name in COLUMNS if name in rows.column_names])


def by_frame(rows: pa.Table) -> dict[int, list[dict[str, Any]]]:
    """The rows of one video by the ordinal of their frame."""
    frames: dict[int, list[dict[str, Any]]] = {}
    for row in drawn_columns(rows).to_pylist():
        if row["frame"] is not None:
            frames.setdefault(int(row["frame"]), []).append(row)
    return frames


def square_crop(image: Image, left: float, top: float, side: float) -> Image:
    """The part of a square that lies in the image; at least one pixel."""
    height, width = image.shape[:2]
    pixels = max(1, round(side))
    x0, x1 = _inside(round(left), pixels, width)
    y0, y1 = _inside(round(top), pixels, height)
    return np.ascontiguousarray(image[y0:y1, x0:x1])


def thumbnail(image: Image, side: int, quality: int) -> bytes:
    """A crop as JPEG whose longer side has `side` pixels."""
    scale = side / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = np.ascontiguousarray(cv2.resize(image, size, interpolation=method), np.uint8)
    return encode_picture(scaled, ".jpg", quality)


def _inside(start: int, length: int, limit: int) -> tuple[int, int]:
    low = min(max(start, 0), limit - 1)
    return low, max(min(start + length, limit), low + 1)
