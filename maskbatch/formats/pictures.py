"""How a format's files name images, and (with ``--frames``) the images themselves."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.compute as pc

from maskbatch.draw.faces import redact as blur
from maskbatch.draw.images import encode_picture, image_output_name
from maskbatch.draw.originals import Originals
from maskbatch.draw.paths import safe_output_path
from maskbatch.errors import InputError
from maskbatch.formats.base import Box, Moment
from maskbatch.results.reader import ResultReader
from maskbatch.sources.images.exif import ORIENTATION
from maskbatch.storage.atomic import write_bytes, written_whole
from maskbatch.types import Image, Media

FOLDERS = ("images", "JPEGImages", "data")
"""What formats call the folder of the images; names in labels come with or without it."""
QUALITY = 95
COLUMNS = ("name", "source", "media", "camera", "frame", "time_s", "captured_at", "width", "height")
"""Of ``images.csv``: what most formats cannot hold about an image."""
IMAGES = "images.csv"
_COPIED = (".jpg", ".jpeg", ".png")


class Pictures:
    """Names of images.

    Args:
        written: the images are written below the output folder, so names are those of files; else a still image has the name of its
            source, and a frame that of its video with its number, which is no file.
        folder: for written images, relative to the output folder.
    """

    def __init__(self, written: bool, folder: str = "images") -> None:
        self.written = written
        self.folder = folder
        self._stems: dict[int, str] = {}

    def name(self, source: str, media: Media, frame: int | None) -> str:
        """Name of an image, ``/``-separated; no two images have the same one, nor the same but for the ending."""
        if media == "video" or frame is not None:
            folder = f"{self.folder}/{source}" if self.written else source
            return f"{folder}/f{frame or 0:07d}.jpg"
        if not self.written:
            return source
        name = PurePosixPath(f"{self.folder}/{image_output_name(source)}")
        # `a.jpg` and `a.png` would share `a.txt` and `a.xml`.
        number = 1
        unique = name
        while self._stems.setdefault(hash(str(unique.with_suffix("")).lower()), source) != source:
            number += 1
            unique = name.with_stem(f"{name.stem}~{number}")
        return str(unique)


def write_images_csv(out: Path, images: Iterable[Moment]) -> Iterator[Moment]:
    """Pass images on, and note them in ``images.csv`` on the way: capture times, cameras and sizes, which labels lose."""
    with written_whole(out / IMAGES) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for image in images:
            when = None if image.captured_at is None else image.captured_at.isoformat().replace("+00:00", "Z")
            values = (image.name, image.source, image.media, image.camera, image.frame, image.time_s, when)
            writer.writerow([_cell(value) for value in (*values, image.width, image.height)])
            yield image


def read_images_csv(path: Path) -> dict[str, dict[str, str]]:
    """Name → row of an ``images.csv``. Raises OSError."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{key: _uncell(value or "") for key, value in row.items()} for row in csv.DictReader(file)]
    return {row["name"]: row for row in rows if row.get("name")}


def write_pictures(result: ResultReader, pictures: Pictures, out: Path, *, redact: bool) -> list[str]:
    """Write the images of a result: copies of the stills, and the frames that hold faces.

    Args:
        result: the rows; one video's boxes are held at a time.
        pictures: the names.
        out: the output folder.
        redact: every face is blurred, and no metadata of the originals (places, previews) are copied.

    Returns:
        What could not be written, a line each.
    """
    from maskbatch.formats.moments import Inputs

    originals = Originals(result.run())
    inputs = Inputs(result)
    failed = []
    for source, media, frames in _by_source(result):
        inputs.size(source)
        try:
            if media == "video":
                left = set(frames)
                for ordinal, image in originals.frames(source, frames.keys()):
                    left.discard(ordinal)
                    _write(
                        out, pictures.name(source, media, ordinal), originals, source, image, frames[ordinal], redact
                    )
                if left:
                    failed.append(f"{source}: {len(left)} frames cannot be decoded")
            else:
                _write_still(out, pictures, originals, source, frames.get(-1, []), redact)
        except InputError as error:
            failed.append(f"{source}: {error.message}")
    for source, _, _ in inputs.stills_without_faces():
        try:
            _write_still(out, pictures, originals, source, [], redact)
        except InputError as error:
            failed.append(f"{source}: {error.message}")
    return failed


def _by_source(result: ResultReader) -> Iterator[tuple[str, Media, dict[int, list[Box]]]]:
    """Sources with the boxes of their frames (-1: of a still image). A source whose faces lie in several partitions comes several times."""
    name: str | None = None
    media: Media = "image"
    frames: dict[int, list[Box]] = {}
    for table in result.tables(("source", "media", "frame", "x1", "y1", "x2", "y2")):
        columns: list[list[Any]] = [
            pc.cast(table[column], pa.string()).to_pylist()
            if column in ("source", "media")
            else table[column].to_pylist()
            for column in table.column_names
        ]
        for source, kind, frame, *box in zip(*columns, strict=True):
            if source != name:
                if name is not None:
                    yield name, media, frames
                name, media, frames = source, kind, {}
            x1, y1, x2, y2 = box
            frames.setdefault(-1 if frame is None else frame, []).append((x1, y1, x2, y2))
    if name is not None:
        yield name, media, frames


def _write_still(
    out: Path, pictures: Pictures, originals: Originals, source: str, boxes: list[Box], redact: bool
) -> None:
    name = pictures.name(source, "image", None)
    path = originals.path(source)
    if path is not None and not redact and path.suffix.lower() in _COPIED and not _is_turned(path):
        found = originals.source(source, "image")
        assert found is not None
        target = safe_output_path(out, name, found)
        with written_whole(target) as temporary:
            shutil.copyfile(path, temporary)
        return
    _write(out, name, originals, source, originals.image(source), boxes, redact)


def _write(
    out: Path, name: str, originals: Originals, source: str, image: Image, boxes: list[Box], redact: bool
) -> None:
    found = originals.source(source, "image")
    if found is None:
        raise InputError("not_found", f"{source} is not where the scan found it")
    if redact:
        for box in boxes:
            blur(image, box)
    target = safe_output_path(out, name, found)
    write_bytes(target, encode_picture(image, target.suffix, QUALITY))


def _is_turned(path: Path) -> bool:
    """Whether the image is stored turned, so that other tools might show it so."""
    try:
        with PIL.Image.open(path) as image:
            return bool(image.getexif().get(ORIENTATION, 1) != 1)
    except (OSError, ValueError, SyntaxError):  # what Pillow raises for damaged files
        return True


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    # The sign keeps spreadsheets from taking it for a formula.
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "'") else text


def _uncell(text: str) -> str:
    return text[1:] if text.startswith("'") else text
