"""The data of the page: few typed columns, little-endian, compressed, in base64.

One cell (camera and hour) names how many rows it has; the rows follow in the order of the cells, so that neither camera nor time is stored
per row. A million rows are about two bytes each before compression that tell something.
"""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskbatch.report.coverage import Coverage
from maskbatch.report.people import Array, People

SMALLEST = 5
"""In a public report, a camera and hour with fewer people is not told apart."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Columns as text, and where each begins.

    Attributes:
        text: base64 of gzip of all columns one after another.
        layout: name → [type, items], in order.
    """

    text: str
    layout: dict[str, list[Any]]


def pack(people: People, coverage: Coverage) -> Packed:
    """The columns that the page decodes."""
    hours = sorted(coverage.hours)
    columns = {
        "cell_slot": people.cell_slot.astype("<i4"),
        "cell_count": people.cell_count.astype("<u4"),
        "cover_slot": np.array([slot for _, slot in hours], "<i4"),
        "cover_seen": np.array([coverage.hours[key][0] for key in hours], "<f4"),
        "cell_camera": people.cell_camera.astype("<u2"),
        "cover_camera": np.array([camera for camera, _ in hours], "<u2"),
        "cover_failed": np.array([min(65_535, coverage.hours[key][1]) for key in hours], "<u2"),
        "label": people.label,
        "confidence": people.confidence,
        "size": people.size,
    }
    # The wide types come first, so that every column begins at a multiple of its size.
    data = b"".join(np.ascontiguousarray(column).tobytes() for column in columns.values())
    kinds = {
        "<i4": "Int32Array",
        "<u4": "Uint32Array",
        "<f4": "Float32Array",
        "<u2": "Uint16Array",
        "|u1": "Uint8Array",
    }
    layout = {name: [kinds[column.dtype.str], len(column)] for name, column in columns.items()}
    return Packed(base64.b64encode(gzip.compress(data, 6, mtime=0)).decode(), layout)


def for_public(people: People) -> tuple[People, int]:
    """The same people without what could point to one of them.

    Cells of fewer than `SMALLEST` people lose their hour; if what a camera has so gathered is still fewer, they are left out. Confidence
    and size of single rows are left out.

    Returns:
        The people, and how many were left out.
    """
    from dataclasses import replace

    small = people.cell_count < SMALLEST
    slot = np.where(small, -1, people.cell_slot)
    gathered = np.bincount(people.cell_camera[slot < 0], people.cell_count[slot < 0], len(people.cameras))
    keep = (slot >= 0) | (gathered[people.cell_camera] >= SMALLEST) if len(slot) else np.ones(0, np.bool_)
    cells = people.cells
    row_slot, row_camera, row_keep = slot[cells], people.cell_camera[cells], keep[cells]
    camera, at, label = row_camera[row_keep], row_slot[row_keep], people.label[row_keep]
    order = np.lexsort((label, at, camera))
    camera, at, label = camera[order], at[order], label[order]
    key: Array = np.column_stack([camera, at])
    starts = np.flatnonzero(np.any(np.diff(key, axis=0, prepend=key[:1] - 1) != 0, axis=1)) if len(key) else order
    public = replace(
        people,
        cell_camera=camera[starts],
        cell_slot=at[starts],
        cell_count=np.diff(starts, append=len(label)),
        label=label,
        confidence=np.zeros(len(label), np.uint8),
        size=np.zeros(len(label), np.uint8),
    )
    return public, int((~row_keep).sum())
