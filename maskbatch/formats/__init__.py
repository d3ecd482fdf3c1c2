"""Results for other tools: one file per format, registered by name."""

from __future__ import annotations

from pathlib import Path

from maskbatch.formats.base import ResultFormat
from maskbatch.registry import Registry
from maskbatch.results.reader import ResultReader
from maskbatch.storage.atomic import as_output_error

FORMATS: Registry[ResultFormat] = Registry(
    "format",
    {
        "csv": "maskbatch.formats.csv:CSV",
        "jsonl": "maskbatch.formats.jsonl:JSONL",
    },
    "maskbatch.formats",
)

__all__ = ["FORMATS", "ResultFormat", "convert"]


def convert(results: str, to: str, out: Path) -> list[Path]:
    """Write a result in another format.

    Args:
        results: ``results.parquet``, the folder of a data set, or a URL.
        to: name of the format.
        out: folder to write to; it is made.

    Returns:
        The files that were written.

    Raises:
        UsageError: no such format, or `results` is not a result.
        OutputError: the folder or a file cannot be written.
    """
    chosen = FORMATS.load(to)
    reader = ResultReader(results)
    _ = reader.task  # refuses what is not a result before anything is written
    with as_output_error(out):
        out.mkdir(parents=True, exist_ok=True)
    return chosen.write(reader, out)
