"""`--out results/`: the faces as a Parquet data set, for results too large for one file.

::

    results/
        camera=gate/date=2026-03-01/1f0c…-00000.parquet     rows of that camera and day (UTC), in the order of the contract
        camera=unknown/date=unknown/…                       where the camera or the day is not known (see `UNKNOWN`)
        camera=schema/date=1970-01-01/manifest.parquet      written last: no rows, and in its metadata all files with their rows and checksums

`camera` is in the folder's name and not in the files, as Hive, Arrow, pandas and DuckDB expect it. File names begin with a hash of the
inputs and settings, so that a new result never overwrites a file of the old one.

In a local folder the new data set is built beside the old one and takes its place in one step. In an object store, which has no rename,
the new files are added, then the manifest is replaced, then the old files are removed: who reads the files that the manifest names sees
the old result or the new one, whole.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskbatch.errors import UsageError
from maskbatch.results.merge import ROW_GROUP, GroupWriter
from maskbatch.results.schema import SCHEMA_VERSION
from maskbatch.storage import Store
from maskbatch.types import Source

MANIFEST = "camera=schema/date=1970-01-01/manifest.parquet"
"""A Parquet file without rows, in a partition of its own. Readers guess the types of `camera` and `date` from the folders' names; without
this one, Arrow takes camera 01 for the number 1, and finds no columns where no face was found. It is Parquet because some readers (polars)
refuse a folder with files of another kind."""
FILES_KEY = b"maskbatch.files"
"""Of the manifest's metadata: JSON that names the files."""
OLD_MANIFEST = "_manifest.json"
"""Of data sets that were written before: read, and replaced."""

UNKNOWN = "unknown"
"""Hive's own mark for null, ``__HIVE_DEFAULT_PARTITION__``, would be read as null, but makes `pandas.read_parquet` fail: Arrow 26 can
neither guess the type of a level that is null everywhere nor unify dictionaries with nulls. A camera of this name is spelled
``%75nknown``."""
FILE_ROWS = 8 * ROW_GROUP
HELD_ROWS = 2 * FILE_ROWS
"""Rows of all partitions together that wait in memory, about 150 bytes each."""

_DAY_US = 86_400_000_000
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100

Partition = tuple[str | None, int | None]
"""Camera, and days since 1970."""


class DatasetWriter:
    """Sorts rows into partitions and writes a file when one has enough of them; what is held stays bounded.

    Args:
        store: the data set's own folder.
        schema: of the rows, with metadata; `camera` is left out of the files.
        generation: how the names of the files begin.
        file_rows: rows per file at most.
        held_rows: when this many rows wait, the largest partition is written early.
    """

    def __init__(
        self, store: Store, schema: pa.Schema, generation: str, file_rows: int = FILE_ROWS, held_rows: int = HELD_ROWS
    ) -> None:
        self._store = store
        self._schema = schema.remove(schema.get_field_index("camera"))
        self._generation = generation
        self._file_rows = file_rows
        self._held_rows = held_rows
        self._held: dict[Partition, list[pa.Table]] = {}
        self._rows: dict[Partition, int] = {}
        self._numbers: dict[Partition, int] = {}
        self.files: list[dict[str, Any]] = []

    def add(self, table: pa.Table) -> None:
        """Append rows."""
        for partition, rows in _parted(table):
            self._held.setdefault(partition, []).append(rows.drop_columns("camera"))
            self._rows[partition] = self._rows.get(partition, 0) + len(rows)
            while self._rows.get(partition, 0) >= self._file_rows:
                self._flush(partition, self._file_rows)
        while sum(self._rows.values()) > self._held_rows:
            largest = max(self._rows, key=lambda key: (self._rows[key], _folder(key)))
            self._flush(largest, self._rows[largest])

    def close(self) -> None:
        """Write what is left."""
        for partition in sorted(self._rows, key=_folder):
            self._flush(partition, self._rows[partition])

    def manifest(self) -> bytes:
        """The manifest of all files that were written."""
        return self.manifest_of(self.files)

    def manifest_of(self, files: Sequence[dict[str, Any]], **more: Any) -> bytes:
        """The manifest of these files, with more entries beside them."""
        content = {
            "schema_version": SCHEMA_VERSION,
            "partitioning": ["camera", "date"],
            "rows": sum(entry["rows"] for entry in files),
            "files": sorted(files, key=lambda entry: str(entry["path"])),
            **more,
        }
        metadata = {**(self._schema.metadata or {}), FILES_KEY: json.dumps(content).encode()}
        return _parquet(self._schema.with_metadata(metadata), self._schema.empty_table())

    def write_file(self, name: str, table: pa.Table) -> dict[str, Any]:
        """Write rows (without `camera`) under a name; the file's entry of the manifest."""
        self._write(name, table)
        return self.files[-1]

    def _flush(self, partition: Partition, count: int) -> None:
        table = pa.concat_tables(self._held.pop(partition))
        rest = table.slice(count)
        del self._rows[partition]
        if len(rest):
            self._held[partition], self._rows[partition] = [rest], len(rest)
        number = self._numbers[partition] = self._numbers.get(partition, -1) + 1
        self._write(f"{_folder(partition)}/{self._generation}-{number:05}.parquet", table.slice(0, count))

    def _write(self, name: str, table: pa.Table) -> None:
        data = _parquet(self._schema, table)
        self._store.write(name, data)
        sha256 = hashlib.sha256(data).hexdigest()
        self.files.append({"path": name, "rows": len(table), "bytes": len(data), "sha256": sha256})


class Dataset:
    """The data set `name` (a folder) in a store. One writer at a time: the scan's lock is held around it."""

    def __init__(self, store: Store, name: str) -> None:
        self._parent = store
        self._name = name.strip("/")
        self._store = store.below(self._name)

    def exists(self) -> bool:
        """Whether a complete data set is there."""
        return any(self._store.size(name) is not None for name in (MANIFEST, OLD_MANIFEST))

    def check(self) -> None:
        """Raises UsageError where the folder holds anything that is not part of a data set: replacing it would destroy that."""
        strangers = sorted(set(self._names()) - {MANIFEST, OLD_MANIFEST} - self._listed() - self._own_leftovers())
        if strangers:
            raise UsageError(
                f"{self._store.url}/ holds files that are not of a result ({strangers[0]}"
                f"{f' and {len(strangers) - 1} more' if len(strangers) > 1 else ''}); name a new folder with --out"
            )

    @contextmanager
    def writing(self, schema: pa.Schema, generation: str) -> Iterator[DatasetWriter]:
        """A writer whose rows become the data set when the block ends without an error. The block closes the writer.

        Args:
            schema: of the rows, with the metadata that goes into each file and the manifest.
            generation: hex text that depends on inputs and settings.
        """
        self.check()
        old = (self._listed() | self._own_leftovers()) - {MANIFEST}
        if self._store.size(OLD_MANIFEST) is not None:
            old.add(OLD_MANIFEST)
        with self._parent.replacing(self._name, old) as store:
            writer = DatasetWriter(store, schema, generation)
            yield writer
            store.write(MANIFEST, writer.manifest())

    def _listed(self) -> set[str]:
        try:
            return {str(entry["path"]) for entry in read_manifest(self._store)["files"]}
        except (OSError, ValueError, KeyError, TypeError):
            return set()

    def _own_leftovers(self) -> set[str]:
        """Files in an object store that a killed run left: partition folders and our names, but in no manifest."""
        if self._store.replaces_folders:
            return set()
        return {name for name in self._names() if name.startswith("camera=") and "/date=" in name}

    def _names(self) -> list[str]:
        return self._store.names_below(".")


def generation_of(key: str, sources: Iterable[Source], track: bool) -> str:
    """Twelve hex digits that depend on everything that decides the rows: the run's key, each input's version, when and where."""
    digest = hashlib.sha256(f"{key} {track}".encode())
    for source in sources:
        what = (source.name, source.fingerprint, source.camera, source.start_time)
        digest.update(repr(what).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:12]


def files_of(store: Store) -> list[str]:
    """The files that a data set's manifest names, and at the end the manifest, which has the columns where there is no row.

    Raises:
        FileNotFoundError: it has no manifest.
        ValueError: the manifest is damaged.
    """
    manifest = read_manifest(store)
    itself = [MANIFEST] if store.size(MANIFEST) is not None else []
    return [*(str(entry["path"]) for entry in manifest["files"]), *itself]


def read_manifest(store: Store) -> dict[str, Any]:
    """What the manifest says: ``schema_version``, ``partitioning``, ``rows`` and ``files`` (path, rows, bytes, sha256). Raises as `files_of`."""
    try:
        data = store.read(MANIFEST)
    except FileNotFoundError:
        content: dict[str, Any] = json.loads(store.read(OLD_MANIFEST))
        return content
    metadata = pq.read_schema(pa.BufferReader(data)).metadata or {}
    if FILES_KEY not in metadata:
        raise ValueError("its manifest does not name files")
    named: dict[str, Any] = json.loads(metadata[FILES_KEY])
    return named


def _parquet(schema: pa.Schema, table: pa.Table) -> bytes:
    sink = io.BytesIO()
    writer = GroupWriter(sink, schema, ROW_GROUP)
    writer.add(table)
    writer.close()
    return sink.getvalue()


def _parted(table: pa.Table) -> Iterator[tuple[Partition, pa.Table]]:
    """The rows of each partition, in their order; partitions in the order in which they appear."""
    encoded = table["camera"].cast(pa.string()).combine_chunks().dictionary_encode()
    cameras: list[str | None] = [*encoded.dictionary.to_pylist(), None]
    codes = _filled(encoded.indices.cast(pa.int64()), len(cameras) - 1)
    times = table["captured_at"].cast(pa.int64()).combine_chunks()
    missing = np.iinfo(np.int64).min
    micros = _filled(times, missing)
    days = np.where(micros == missing, missing, micros // _DAY_US)
    keys = np.stack([codes, days])
    unique, first, owner = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    for index in np.argsort(first):
        code, day = (int(value) for value in unique[:, index])
        rows = np.flatnonzero(owner.reshape(-1) == index)
        yield (cameras[code], None if day == missing else day), table.take(pa.array(rows))


def _filled(column: pa.Array, value: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(column.fill_null(value).to_numpy(zero_copy_only=False), np.int64)


def _folder(partition: Partition) -> str:
    camera, day = partition
    shown = (
        UNKNOWN if not camera else quote(camera, safe="") if camera != UNKNOWN else f"%{ord(camera[0]):02X}{camera[1:]}"
    )
    date = UNKNOWN if day is None else (dt.date(1970, 1, 1) + dt.timedelta(days=day)).isoformat()
    return f"camera={shown}/date={date}"
