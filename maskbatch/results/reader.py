"""Reading a result: one file or a partitioned data set, local or behind a URL, whole or piece by piece. Everything that is made from a
result reads it here.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from maskbatch.errors import InputError, UsageError
from maskbatch.results.correction_log import CorrectionLog
from maskbatch.results.corrections import CORRECTED, NEEDED, Corrections, MissedFaces
from maskbatch.results.dataset import UNKNOWN, files_of
from maskbatch.results.paths import ENDING, OutputPaths
from maskbatch.results.schema import results_schema
from maskbatch.storage import open_store
from maskbatch.storage.opener import is_url, open_binary
from maskbatch.tasks import Task, task_of

if TYPE_CHECKING:  # a scan reads its own rows and must not wait for pandas
    import pandas as pd


class ResultReader:
    """A result that somebody named.

    Args:
        path: ``results.parquet``, or the folder of a partitioned data set; also a URL (``s3://…``).
        corrections: the faces come as people decided, with the column `corrected`: from the log beside the result, or from the file
            that is named. A log that does not exist has no decisions; one that is named must exist.
    """

    def __init__(self, path: str | os.PathLike[str], corrections: bool | str | os.PathLike[str] = False) -> None:
        self.path = os.fspath(path)
        self._corrected_by = corrections
        is_folder = Path(self.path).is_dir() if not is_url(self.path) else not self.path.endswith(ENDING)
        self._is_dataset = is_folder
        named = f"{self.path.rstrip('/')}/" if is_folder else self.path
        try:
            self.paths: OutputPaths | None = OutputPaths.of(named)
        except UsageError:  # a Parquet file of another name
            self.paths = None

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the faces, in the order of the contract, without metadata; raises UsageError where this is not a result."""
        schema = results_schema(self.task)
        return schema if self.corrections is None else schema.append(pa.field(CORRECTED, pa.bool_(), nullable=False))

    @cached_property
    def corrections(self) -> Corrections | None:
        """What people decided, where it was asked for; raises UsageError where the log cannot be read."""
        if self._corrected_by is False:
            return None
        path = self.corrections_path if self._corrected_by is True else Path(self._corrected_by)
        if self._corrected_by is not True and not path.exists():
            raise UsageError(f"{path}: there is no such file of corrections")
        corrections = Corrections.of(CorrectionLog(path).read())
        return corrections.renamed(self.hashes()) if len(corrections) else corrections

    @property
    def corrections_path(self) -> Path:
        """The log of corrections: beside the result, or in the working directory where the result is behind a URL."""
        if self.paths is None:
            return Path(f"{self.path}.corrections.csv")
        if is_url(self.path):
            return Path(self.paths.corrections)
        return Path(self.paths.path(self.paths.corrections))

    @property
    def audit_path(self) -> Path:
        """Where an audit of this result is noted; as for `corrections_path`."""
        return self.corrections_path.with_name(self.corrections_path.name.replace(".corrections.csv", ".audit.json"))

    def audit(self) -> dict[str, Any] | None:
        """What the audit beside the result says; None where there is none. Raises UsageError where it is damaged."""
        try:
            found = json.loads(self.audit_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.audit_path} cannot be read: {error}") from None
        return found if isinstance(found, dict) and "seed" in found else None

    def hashes(self) -> dict[str, str]:
        """Source → SHA-256, where the scan took them."""
        try:
            inputs = self.inputs()
        except UsageError:
            return {}
        if "sha256" not in inputs.column_names or inputs["sha256"].null_count == len(inputs):
            return {}
        pairs = zip(inputs["source"].to_pylist(), inputs["sha256"].to_pylist(), strict=True)
        return {source: sha256 for source, sha256 in pairs if sha256}

    @cached_property
    def task(self) -> Task:
        """What was judged, by the columns ``p_<label>``; raises UsageError where this is not a result."""
        with self._reported():
            with self._parquet(self._files[0]) as file:
                names = file.schema_arrow.names
            labels = [name.removeprefix("p_") for name in names if name.startswith("p_")]
            if not labels or "label" not in names:
                raise KeyError("it has no columns label and p_<label>")
        return task_of(labels)

    @cached_property
    def is_tracked(self) -> bool:
        """Whether any face belongs to a track."""
        with self._reported():
            for name in self._files:
                with self._parquet(name) as file:
                    if _has_values(file, "track"):
                        return True
        return False

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The faces in pieces of bounded size, in the order of the result (of a data set: by camera and day).

        Args:
            columns: only these, in this order; those that the result does not have are left out.

        Faces that people drew (see `corrections`) come last.

        Raises:
            UsageError: there is no such result, or it is not one of maskbatch.
        """
        if self.corrections is not None:
            return self._corrected_tables(self.corrections, columns)
        return self._stored_tables(columns)

    def _corrected_tables(self, corrections: Corrections, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        wanted = None if columns is None else [*columns, *(name for name in NEEDED if name not in columns)]
        missed = MissedFaces(corrections.missed(self.task.labels))
        schema = self.schema
        for stored in self._stored_tables(wanted):
            missed.look(stored)
            table = corrections.apply(stored)
            schema = table.schema
            yield _selected(table, columns)
        if missed.faces:
            yield _selected(missed.table(schema), columns)

    def _stored_tables(self, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        with self._reported():
            for name in self._files:
                with self._parquet(name) as file:
                    present = file.schema_arrow.names
                    wanted = list(present) if columns is None else [c for c in columns if c in present]
                    for batch in file.iter_batches(columns=wanted):
                        yield self._with_camera(pa.Table.from_batches([batch]), name, columns)

    def read(self) -> pa.Table:
        """All faces as one table. Raises as `tables`."""
        if not self._is_dataset and self.corrections is None:
            with self._reported(), self._parquet(self._files[0]) as file:
                return file.read()
        parts = [table for table in self.tables() if len(table)]
        return pa.concat_tables(parts).unify_dictionaries() if parts else self.schema.empty_table()

    def inputs(self) -> pa.Table:
        """The table of the inputs. Raises UsageError where there is none beside the result."""
        return self._companion("inputs")

    def tracks(self) -> pa.Table | None:
        """The table of the tracks, or None where there is none."""
        try:
            return self._companion("tracks")
        except UsageError:
            return None

    def run(self) -> dict[str, Any]:
        """What ``results.run.json`` says; empty where it is missing."""
        if self.paths is None:
            return {}
        try:
            described = json.loads(open_store(self.paths.folder).read(self.paths.run))
        except (OSError, ValueError):
            return {}
        return described if isinstance(described, dict) else {}

    def _companion(self, kind: str) -> pa.Table:
        if self.paths is None:
            raise UsageError(f"{self.path}: there is no {kind} table beside it")
        name = getattr(self.paths, kind)
        try:
            with self._open(self.paths.path(name)) as file:
                return pq.read_table(file)
        except (OSError, ValueError, InputError) as error:
            raise UsageError(f"{self.paths.path(name)} cannot be read: {error}") from None

    @cached_property
    def _files(self) -> list[str]:
        if not self._is_dataset:
            return [""]
        return files_of(open_store(self.path))

    @contextlib.contextmanager
    def _parquet(self, name: str) -> Iterator[pq.ParquetFile]:
        with self._open(f"{self.path.rstrip('/')}/{name}" if name else self.path) as raw, pq.ParquetFile(raw) as file:
            yield file

    @staticmethod
    def _open(path: str) -> IO[bytes]:
        """A file to read and seek in; of a URL only what is needed is fetched."""
        return open_binary(path) if is_url(path) else Path(path).open("rb")

    def _with_camera(self, table: pa.Table, name: str, columns: Sequence[str] | None) -> pa.Table:
        """In a data set the camera stands in the folder's name."""
        if not self._is_dataset:
            return table
        order = self.schema.names if columns is None else columns
        if "camera" in order:
            shown = name.partition("/")[0].partition("=")[2]
            camera = None if shown == UNKNOWN else unquote(shown)
            field = self.schema.field("camera")
            cameras = pa.array([camera] * len(table), pa.string()).dictionary_encode().cast(field.type)
            table = table.append_column(field, cameras)
        return table.select([column for column in order if column in table.column_names])

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise UsageError(f"{self.path}: no such result") from None
        except InputError as error:
            missing = error.code == "not_found"
            reason = "no such result" if missing else f"cannot be read: {error.message}"
            raise UsageError(f"{self.path}: {reason}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{self.path}: not a result of maskbatch ({error})") from None


def read_results(path: str | os.PathLike[str], corrections: bool | str | os.PathLike[str] = False) -> pd.DataFrame:
    """The faces of a scan as a pandas frame.

    Args:
        path: ``results.parquet``, or the folder of a partitioned data set; also a URL (``s3://…``).
        corrections: the faces as people decided (`maskbatch review`, `maskbatch import`), with the column `corrected`: by the log beside
            the result, or by a file that is named. Faces that people drew have NaN in the columns of the models.

    Returns:
        A row per face with the columns of the contract; `source`, `camera`, `media` and `label` are categoricals,
        `captured_at` is a UTC timestamp. Of a data set, the rows that its manifest names, sorted by camera and day.

    Raises:
        UsageError: there is no such file, or it is not a Parquet file.
    """
    frame: pd.DataFrame = ResultReader(path, corrections).read().to_pandas()
    return frame


def read_inputs(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The inputs of a scan as a pandas frame: a row per input with its status, counts and remarks.

    Args:
        path: of the result, as for `read_results`.

    Raises:
        UsageError: there is no such table beside the result.
    """
    frame: pd.DataFrame = ResultReader(path).inputs().to_pandas()
    return frame


def read_tracks(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The tracks of a scan with ``track=True`` as a pandas frame: a row per person and video.

    Args:
        path: of the result, as for `read_results`.

    Raises:
        UsageError: the result was made without tracks, or does not exist.
    """
    reader = ResultReader(path)
    table = reader.tracks()
    if table is None:
        _ = reader.task  # says so where there is no result at all
        raise UsageError(f"{reader.path}: it has no tracks; scan with --track")
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _selected(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    return table if columns is None else table.select([name for name in columns if name in table.column_names])


def _has_values(file: pq.ParquetFile, column: str) -> bool:
    """Whether a column holds anything but null, by the statistics in the footer where they are."""
    if column not in file.schema_arrow.names:
        return False
    metadata = file.metadata
    for group in range(metadata.num_row_groups):
        chunks = [metadata.row_group(group).column(i) for i in range(metadata.row_group(group).num_columns)]
        chunk = next((c for c in chunks if c.path_in_schema == column), None)
        if chunk is None or chunk.statistics is None or not chunk.statistics.has_null_count:
            found = file.read_row_group(group, columns=[column]).column(0)
            if found.null_count < len(found):
                return True
        elif chunk.statistics.null_count < chunk.num_values:
            return True
    return False
