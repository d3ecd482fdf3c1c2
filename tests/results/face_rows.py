"""Rows of the results as the drawing code gets them, for the tests beside it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

FACE_BOX = (165.0, 60.0, 285.0, 210.0)  # of the astronaut in the 512×512 photograph


def table(*rows: dict[str, Any]) -> pa.Table:
    base = {"frame": None, "time_s": None, "face": 0, "label": "with_mask", "confidence": 0.91, "track": None}
    names = ["frame", "time_s", "face", "x1", "y1", "x2", "y2", "label", "confidence", "track"]
    full = [{**base, **row} for row in rows]
    return pa.table({name: pa.array([row[name] for row in full]) for name in names})


def box_row(box: tuple[float, float, float, float] = FACE_BOX, **more: Any) -> dict[str, Any]:
    return {"x1": box[0], "y1": box[1], "x2": box[2], "y2": box[3], **more}


NO_ROWS = table(box_row()).slice(0, 0)
