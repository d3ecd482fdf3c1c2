"""JSON lines: ``faces.jsonl``, an object per face with the names of the columns, null where there is nothing."""

from __future__ import annotations

import datetime as dt
import json
import math
from pathlib import Path
from typing import Any

from maskbatch.formats.base import Conversion
from maskbatch.storage.atomic import written_whole


class JsonLinesFormat:
    """See the module."""

    name = "jsonl"
    title = "JSON lines, an object per face"

    def write(self, job: Conversion) -> list[Path]:
        """See `ResultFormat.write`."""
        result, target = job.result, job.out / "faces.jsonl"
        with written_whole(target) as temporary, temporary.open("w", encoding="utf-8") as file:
            for table in result.tables():
                for row in table.to_pylist():
                    file.write(json.dumps(_known(row), default=_plain, ensure_ascii=False) + "\n")
        return [target]


def _known(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what a face that a person drew has in the columns of the models."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def _plain(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)


JSONL = JsonLinesFormat()
