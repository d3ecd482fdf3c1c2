"""The data set that grows: rows of each minute are added as files, and one atomic write of the manifest makes them part of the result.

::

    live/
        camera=gate/date=2026-11-27/4be1…-00000017-00000.parquet   the rows of commit 17
        camera=schema/date=1970-01-01/manifest.parquet     written last in each commit, its receipt: files, checksums, inputs so far
    live.inputs.parquet, live.tracks.parquet, live.run.json         made from the manifest, after it

What the manifest does not name is not there: a killed watch loses what came after its last commit, and the next one enters that as a gap.
Small files are joined when there are many; the old ones stay for those who are reading them, and go ten minutes later.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import maskbatch
from maskbatch.errors import OutputExistsError, SettingsChangedError
from maskbatch.live.events import iso
from maskbatch.results.dataset import MANIFEST, Dataset, DatasetWriter, read_manifest
from maskbatch.results.merge import ROW_GROUP, Merged, ResultWriter, with_run_metadata
from maskbatch.results.paths import OutputPaths
from maskbatch.results.reader import ResultReader
from maskbatch.results.schema import part_schema, results_schema
from maskbatch.results.tracks import TRACKS, tracks_table
from maskbatch.storage import Store, open_store
from maskbatch.tasks import Task
from maskbatch.types import PieceResult, Source

SMALL_FILES = 30
"""So many small files of one camera and day are joined."""

SMALL_ROWS = ROW_GROUP // 2
RETIRED_S = 600.0


@dataclass(frozen=True, slots=True)
class Identity:
    """What all rows of one result have in common.

    Attributes:
        settings: `ScanConfig.row_settings`.
        models: name → SHA-256.
        provider: ONNX Runtime's.
    """

    settings: dict[str, Any]
    models: dict[str, str]
    provider: str

    def metadata(self) -> dict[str, Any]:
        """As it goes into the files."""
        return {
            "tool": f"maskbatch {maskbatch.__version__}",
            "models": self.models,
            "provider": self.provider,
            "settings": self.settings,
        }


class RollingResult:
    """A result that grows. One writer at a time: the watch holds the lock of `work`.

    Args:
        out: of ``--out``, a folder.
        task: whose labels the rows have.
        identity: refused where the rows that are there have another.

    Attributes:
        inputs: rows of the inputs table so far, of connections that have ended and of gaps.
        resumed: what was there: POSIX seconds of its last commit, and whether it was stopped in order; None for a new result.

    Raises:
        UsageError: the folder holds something else, or rows made with other settings or models.
    """

    def __init__(self, out: OutputPaths, task: Task, identity: Identity) -> None:
        self.out = out
        self._task = task
        self._identity = identity
        self._parent = open_store(out.folder)
        self._store: Store = self._parent.below(out.results.rstrip("/"))
        self._schema = with_run_metadata(results_schema(task), identity.metadata())
        self._files: list[dict[str, Any]] = []
        self._retired: list[dict[str, Any]] = []
        self._tracks: pa.Table = TRACKS.empty_table()
        self._commits = 0
        self.inputs: list[PieceResult] = []
        self.open_cameras: list[str] = []
        self.resumed: tuple[float, bool] | None = None
        self._load()
        generation = json.dumps(asdict(identity), sort_keys=True, default=str)
        self._generation = _hash12(generation)
        self._remove_strangers()

    @property
    def rows(self) -> int:
        """Rows that are committed."""
        return sum(int(entry["rows"]) for entry in self._files)

    def commit(
        self,
        rows: pa.Table | None,
        open_inputs: list[PieceResult],
        *,
        finished: pa.Table | None = None,
        present: pa.Table | None = None,
        cameras: dict[str, str],
        at: float,
        closed: bool = False,
    ) -> None:
        """Make rows final.

        Args:
            rows: new ones, of the contract's schema; None for none.
            open_inputs: rows of the inputs table that still change.
            finished: tracks that have ended since the last commit; None without tracks.
            present: tracks that go on.
            cameras: name → address without secrets, of those that are watched.
            at: POSIX seconds up to which all is in.
            closed: nothing more will come.

        Raises:
            OutputError: it cannot be written; the result is as it was.
        """
        writer = DatasetWriter(self._store, self._schema, f"{self._generation}-{self._commits:08}")
        if rows is not None and len(rows):
            writer.add(rows)
        writer.close()
        files = [*self._files, *writer.files]
        retired = list(self._retired)
        files = self._joined(files, retired, at)
        gone = [entry for entry in retired if at - entry["at"] > RETIRED_S]
        retired = [entry for entry in retired if at - entry["at"] <= RETIRED_S]
        inputs = [*self.inputs, *open_inputs]
        live = self._live(retired, inputs, cameras, at, closed)
        self._store.write(MANIFEST, writer.manifest_of(files, live=live))
        self._files, self._retired, self._commits = files, retired, self._commits + 1
        if finished is not None:
            self._tracks = pa.concat_tables([self._tracks, finished])
        self._derived(inputs, present, cameras, at)
        for entry in gone:
            self._store.remove(entry["path"])

    def _derived(self, inputs: list[PieceResult], present: pa.Table | None, cameras: dict[str, str], at: float) -> None:
        """What is made from the manifest."""
        sink = io.BytesIO()
        writer = ResultWriter([], sink, self._identity.metadata(), self._task)
        empty = part_schema(self._task).empty_table()
        for result in inputs:
            writer.add(Merged(Source("", result.name, "video"), result, empty), None)
        writer.close()
        self._parent.write(self.out.inputs, sink.getvalue())
        if present is not None:
            sink = io.BytesIO()
            pq.write_table(pa.concat_tables([self._tracks, present]), sink, compression="zstd")
            self._parent.write(self.out.tracks, sink.getvalue())
        described = {
            **self._identity.metadata(),
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)),
            "roots": cameras,
            "labels": list(self._task.labels),
            "summary": {
                "inputs": len(inputs),
                "status": dict(writer.totals.status),
                "faces": self.rows,
                "frames_read": writer.totals.frames_read,
                "frames_skipped": writer.totals.frames_skipped,
                "frames_failed": writer.totals.frames_failed,
                "video_s": writer.totals.video_s,
                "models": self._identity.models,
                "provider": self._identity.provider,
            },
        }
        self._parent.write(self.out.run, json.dumps(described, indent=1, default=str).encode())

    def _live(
        self,
        retired: list[dict[str, Any]],
        inputs: list[PieceResult],
        cameras: dict[str, str],
        at: float,
        closed: bool,
    ) -> dict[str, Any]:
        return {
            "identity": json.loads(json.dumps(asdict(self._identity), default=str)),
            "commit": self._commits,
            "at": at,
            "until": iso(at),
            "closed": closed,
            "cameras": sorted(cameras),
            "retired": retired,
            "inputs": [asdict(result) for result in inputs],
        }

    def _load(self) -> None:
        try:
            manifest = read_manifest(self._store)
            live = manifest.get("live")
        except FileNotFoundError:
            Dataset(self._parent, self.out.results).check()
            return
        except ValueError:
            live = None
        shown = self.out.path(self.out.results)
        if live is None:
            raise OutputExistsError(f"{shown} exists and is not of a watch; name another folder with --out")
        if live["identity"] != json.loads(json.dumps(asdict(self._identity), default=str)):
            raise SettingsChangedError(
                f"{shown} was made with other settings or models, which one result cannot mix; name another folder with --out"
            )
        self._files, self._retired = manifest["files"], live["retired"]
        self._commits = int(live["commit"]) + 1
        self.inputs = [PieceResult(**entry) for entry in live["inputs"]]
        self.open_cameras = list(live["cameras"])
        self.resumed = (float(live["at"]), bool(live["closed"]))
        if self._parent.size(self.out.tracks) is not None:
            self._tracks = self._old_tracks(bool(live["closed"]))

    def _old_tracks(self, closed: bool) -> pa.Table:
        reader = ResultReader(self.out.path(self.out.results))
        if closed and (tracks := reader.tracks()) is not None:
            return tracks
        return tracks_table(reader.tables())  # the table of a killed watch may be a commit behind

    def _remove_strangers(self) -> None:
        """Files of a commit that was not finished."""
        kept = {MANIFEST, *(entry["path"] for entry in [*self._files, *self._retired])}
        for name in self._store.names_below("."):
            if name not in kept and name.startswith("camera="):
                self._store.remove(name)

    def _joined(self, files: list[dict[str, Any]], retired: list[dict[str, Any]], at: float) -> list[dict[str, Any]]:
        """The same rows in fewer files, where a camera's day has many small ones at its end."""
        folders: dict[str, list[dict[str, Any]]] = {}
        for entry in sorted(files, key=lambda e: str(e["path"])):
            folders.setdefault(str(entry["path"]).rpartition("/")[0], []).append(entry)
        kept = {entry["path"]: entry for entry in files}
        for folder, entries in folders.items():
            small: list[dict[str, Any]] = []
            for entry in reversed(entries):
                if entry["rows"] >= SMALL_ROWS:
                    break
                small.insert(0, entry)
            if len(small) < SMALL_FILES:
                continue
            tables = [pq.ParquetFile(io.BytesIO(self._store.read(entry["path"]))).read() for entry in small]
            # Named after the first of them, so that files stay in the order of their rows.
            stem = str(small[0]["path"]).rpartition("/")[2].removesuffix(".parquet")
            writer = DatasetWriter(self._store, self._schema, "")
            joined = writer.write_file(f"{folder}/{stem}x.parquet", pa.concat_tables(tables).unify_dictionaries())
            for entry in small:
                del kept[entry["path"]]
                retired.append({"path": entry["path"], "at": at})
            kept[joined["path"]] = joined
        return list(kept.values())


def _hash12(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
