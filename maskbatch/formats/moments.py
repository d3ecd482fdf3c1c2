"""A result as images with their faces, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskbatch.errors import UsageError
from maskbatch.formats.base import Moment
from maskbatch.formats.pictures import Pictures
from maskbatch.results.reader import ResultReader
from maskbatch.types import Media

_Key = tuple[str, int | None]
_ROWS = 4096
"""Rows that are Python objects at a time."""


def moments(result: ResultReader, pictures: Pictures) -> Iterator[Moment]:
    """See `Conversion.moments`. Bounded memory: a piece of the result, the faces that people drew, and a few bytes per input."""
    inputs = Inputs(result)
    drawn = _drawn(result)
    number = 0
    for key, rows in _grouped(result):
        number += 1
        yield _moment(number, [*rows, *drawn.pop(key, [])], inputs, pictures)
    for rows in drawn.values():
        number += 1
        yield _moment(number, rows, inputs, pictures)
    for name, width, height in inputs.stills_without_faces():
        number += 1
        yield Moment(
            number, pictures.name(name, "image", None), name, "image", None, width, height, None, None, None, []
        )


class Inputs:
    """Sizes of the inputs by name, and which of them had faces."""

    def __init__(self, result: ResultReader) -> None:
        try:
            table = result.inputs()
        except UsageError:  # a result that was moved without its companions
            table = None
        names = [] if table is None else table["source"].cast(pa.string()).to_pylist()
        self._at = {name: at for at, name in enumerate(names)}
        self._seen = np.zeros(len(names), np.bool_)
        self._table = table

    def size(self, name: str) -> tuple[int, int]:
        """Width and height, 0 where unknown; the input counts as one with faces from now on."""
        at = self._at.get(name)
        if at is None or self._table is None:
            return 0, 0
        self._seen[at] = True
        return self._table["width"][at].as_py() or 0, self._table["height"][at].as_py() or 0

    def stills_without_faces(self) -> Iterator[tuple[str, int, int]]:
        """Name, width and height of the readable images that `size` was not asked for."""
        if self._table is None:
            return
        media, status = (self._table[name].cast(pa.string()).to_pylist() for name in ("media", "status"))
        for name, at in self._at.items():
            if not self._seen[at] and media[at] == "image" and status[at] != "error":
                yield name, *self.size(name)


def _grouped(result: ResultReader) -> Iterator[tuple[_Key, list[dict[str, Any]]]]:
    key: _Key | None = None
    rows: list[dict[str, Any]] = []
    for table in result.tables():
        for batch in table.to_batches(_ROWS):
            for row in batch.to_pylist():
                if row["face"] < 0:  # drawn by a person; they come with their image
                    continue
                here = (row["source"], row["frame"])
                if here != key and rows:
                    assert key is not None
                    yield key, rows
                    rows = []
                key = here
                rows.append(row)
    if rows and key is not None:
        yield key, rows


def _drawn(result: ResultReader) -> dict[_Key, list[dict[str, Any]]]:
    """Faces that people drew, by image. A result tells them last, but their images come before."""
    found: dict[_Key, list[dict[str, Any]]] = {}
    if result.corrections is None or not result.corrections.missed(result.task.labels):
        return found
    for table in result.tables():
        for row in table.filter(pc.less(table["face"], 0)).to_pylist():
            found.setdefault((row["source"], row["frame"]), []).append(row)
    return found


def _moment(number: int, rows: list[dict[str, Any]], inputs: Inputs, pictures: Pictures) -> Moment:
    first = rows[0]
    media: Media = first["media"]
    return Moment(
        number,
        pictures.name(first["source"], media, first["frame"]),
        first["source"],
        media,
        first["camera"],
        *inputs.size(first["source"]),
        first["frame"],
        first["time_s"],
        first["captured_at"],
        rows,
    )
