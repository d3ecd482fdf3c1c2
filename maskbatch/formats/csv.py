"""Comma-separated values: ``faces.csv``, ``inputs.csv`` and, where there are tracks, ``tracks.csv``.

Landmarks become ten columns. Text that a spreadsheet would take for a formula gets an apostrophe in front.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from maskbatch.formats.base import Conversion
from maskbatch.storage.atomic import written_whole

LANDMARKS = tuple(
    f"{point}_{axis}" for point in ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth") for axis in "xy"
)
_FORMULA = r"^[=+\-@\t\r]"


class CsvFormat:
    """See the module."""

    name = "csv"
    title = "comma-separated values, a table per file"

    def write(self, job: Conversion) -> list[Path]:
        """See `ResultFormat.write`."""
        result, out = job.result, job.out
        written = [_write(out / "faces.csv", result.tables(), result.schema.empty_table())]
        inputs = result.inputs()
        written.append(_write(out / "inputs.csv", [inputs], inputs))
        tracks = result.tracks()
        if tracks is not None:
            written.append(_write(out / "tracks.csv", [tracks], tracks))
        return written


def flat(table: pa.Table) -> pa.Table:
    """The table with plain columns only: text, numbers and time stamps."""
    columns: dict[str, pa.ChunkedArray] = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_fixed_size_list(column.type):
            parts = [pc.list_element(column, index) for index in range(column.type.list_size)]
            columns.update(zip(LANDMARKS, parts, strict=True))
            continue
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type):
            guarded = pc.binary_join_element_wise(pa.scalar("'"), column, pa.scalar(""))
            column = pc.if_else(pc.match_substring_regex(column, _FORMULA), guarded, column)
        if pa.types.is_timestamp(column.type):
            column = pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ")
        columns[name] = column
    return pa.table(columns)


def _write(target: Path, tables: Iterable[pa.Table], empty: pa.Table) -> Path:
    schema = flat(empty.slice(0, 0)).schema
    with written_whole(target) as temporary, pacsv.CSVWriter(temporary, schema) as writer:
        for table in tables:
            writer.write_table(flat(table))
    return target


CSV = CsvFormat()
