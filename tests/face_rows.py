"""Rows of the results, whole and as the drawing code gets them, for the tests beside it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from maskbatch.tasks.mask import LABELS

FACE_BOX = (165.0, 60.0, 285.0, 210.0)  # of the astronaut in the 512×512 photograph


def table(*rows: dict[str, Any]) -> pa.Table:
    base = {"frame": None, "time_s": None, "face": 0, "label": "with_mask", "confidence": 0.91, "track": None}
    names = ["frame", "time_s", "face", "x1", "y1", "x2", "y2", "label", "confidence", "track"]
    full = [{**base, **row} for row in rows]
    return pa.table({name: pa.array([row[name] for row in full]) for name in names})


def box_row(box: tuple[float, float, float, float] = FACE_BOX, **more: Any) -> dict[str, Any]:
    return {"x1": box[0], "y1": box[1], "x2": box[2], "y2": box[3], **more}


NO_ROWS = table(box_row()).slice(0, 0)


def result_row(label: str, confidence: float = 0.8, **values: Any) -> dict[str, Any]:
    """A face of a video in the public schema; `values` replace what stands here."""
    rest = (1 - confidence) / 2
    return {
        "source": "a.mp4",
        "camera": None,
        "media": "video",
        "frame": 0,
        "time_s": 0.0,
        "captured_at": None,
        "face": 0,
        "x1": 0.0,
        "y1": 0.0,
        "x2": 10.0,
        "y2": 10.0,
        "score": 0.9,
        "landmarks": None,
        "label": label,
        "confidence": confidence,
        "sharpness": 1.0,
        "track": None,
        **{f"p_{name}": confidence if name == label else rest for name in LABELS},
        **values,
    }
