"""Small results on disk, made of rows that a test names."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from face_rows import result_row

from maskbatch.results.schema import INPUTS, RESULTS, results_schema
from maskbatch.tasks import task_of

MONDAY = dt.datetime(2026, 3, 2, 8, tzinfo=dt.UTC)


def face(label: str = "with_mask", confidence: float = 0.8, **values: Any) -> dict[str, Any]:
    return result_row(
        label, confidence, camera=values.pop("camera", "gate"), captured_at=values.pop("captured_at", MONDAY), **values
    )


def write_result(folder: Path, rows: list[dict[str, Any]], inputs: list[dict[str, Any]] | None = None) -> Path:
    """`results.parquet`, and with `inputs` the table of the inputs."""
    pq.write_table(pa.Table.from_pylist(rows, schema=RESULTS), folder / "results.parquet")
    if inputs is not None:
        base = dict.fromkeys(INPUTS.names, 0) | {
            "media": "video",
            "status": "ok",
            "error": None,
            "message": None,
            "sha256": None,
        }
        table = pa.Table.from_pylist([base | row for row in inputs], schema=INPUTS)
        pq.write_table(table, folder / "results.inputs.parquet")
    return folder / "results.parquet"


def two_label_result(folder: Path) -> Path:
    schema = results_schema(task_of(("helmet", "no_helmet")))
    row = {**face(), "label": "helmet", "p_helmet": 0.9, "p_no_helmet": 0.1}
    rows = [
        {name: row.get(name) for name in schema.names},
        {name: row.get(name) for name in schema.names} | {"label": "no_helmet"},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "results.parquet")
    return folder / "results.parquet"
