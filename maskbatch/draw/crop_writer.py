"""Face crops as files, sorted into folders by label: to look through, to check, to label again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from maskbatch.classify.crops import face_squares
from maskbatch.config import Limits, Sampling
from maskbatch.draw.cover import Area, Cover
from maskbatch.draw.faces import Face, Style, show_faces
from maskbatch.draw.images import by_frame, drawn_columns, encode_picture, load_picture, square_crop
from maskbatch.draw.paths import safe_output_path
from maskbatch.storage.atomic import write_bytes
from maskbatch.types import Image, Piece, Source


def write_crops(
    source: Source,
    rows: pa.Table,
    out_dir: str | os.PathLike[str],
    style: Style | None = None,
    sampling: Sampling | None = None,
    limits: Limits | None = None,
    tick: Callable[[], None] = lambda: None,
    name: str = "",
    cover: Cover | None = None,
) -> int:
    """Write every face of an image or video as ``LABEL/NAME_FACE.jpg`` or ``LABEL/NAME_fFRAME_FACE.jpg``.

    Crops are the squares that the classifier sees, in the pixels of the original, cut where the image ends.

    Args:
        source: the input.
        rows: its rows of the results.
        out_dir: root of the output tree. NAME keeps the input's folders and its ending.
        style: only `redact`, `part` and `quality` count.
        sampling: as in the scan, for videos.
        limits: as in the scan.
        tick: called now and then while a video is read.
        name: NAME in place of the input's own.
        cover: of a video, what to hide besides the faces of the rows.

    Returns:
        The number of crops that were written.

    Raises:
        InputError: the input cannot be read (any more).
        OutputError: a crop cannot be written.
    """
    style, limits = style or Style(), limits or Limits()
    if rows.num_rows == 0:
        return 0
    writer = _Writer(source, Path(out_dir), style, name or source.name)
    if source.media == "image":
        writer.write(load_picture(source, limits), drawn_columns(rows).to_pylist(), None)
        return writer.written
    from maskbatch.sources.videos.reader import VideoReader

    frames = by_frame(rows)
    hidden = (cover or Cover.nothing()).walk()
    with VideoReader(Piece(source, 0, 1), sampling or Sampling(), limits, 64, tick) as reader:
        for frame in reader:
            found = frames.get(frame.ordinal if frame.ordinal is not None else -1)
            if found:
                writer.write(frame.load_full().copy(), found, frame.ordinal, hidden.at(frame.time_s or 0.0))
    return writer.written


class _Writer:
    """Cuts and writes the faces of one input."""

    def __init__(self, source: Source, folder: Path, style: Style, name: str) -> None:
        self._source = source
        self._folder = folder
        self._style = style
        self._name = name
        self.written = 0

    def write(self, image: Image, rows: list[dict[str, Any]], frame: int | None, hidden: Iterable[Area] = ()) -> None:
        faces = [Face.of(row) for row in rows]
        if self._style.redact:
            show_faces(image, faces, replace(self._style, boxes=False), hidden)
        boxes = np.array([(face.x1, face.y1, face.x2, face.y2) for face in faces], np.float32)
        infix = "" if frame is None else f"_f{frame}"
        for row, face, (left, top, side) in zip(rows, faces, face_squares(boxes).tolist(), strict=True):
            name = f"{face.label}/{self._name}{infix}_{row['face']}.jpg"
            target = safe_output_path(self._folder, name, self._source)
            write_bytes(target, encode_picture(square_crop(image, left, top, side), ".jpg", self._style.quality))
            self.written += 1
