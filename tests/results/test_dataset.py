"""`--out results/`: what pandas, PyArrow data sets and DuckDB read, and what is left when writing fails."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from maskbatch.errors import OutputError, UsageError
from maskbatch.results.dataset import MANIFEST, OLD_MANIFEST, Dataset, DatasetWriter, generation_of, read_manifest
from maskbatch.results.merge import with_run_metadata
from maskbatch.results.reader import read_results
from maskbatch.results.schema import RESULTS
from maskbatch.storage import local
from maskbatch.storage.local import LocalStore
from maskbatch.types import Source

SCHEMA = with_run_metadata(RESULTS, {"tool": "maskbatch test"})
CAMERAS = ["01", "gate 3/north", "Ümlaut=&%", "unknown", None]
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def make_rows(count: int, *, cameras: list[str | None] | None = None, dated: bool = True) -> pa.Table:
    """`count` rows whose cameras and days go round."""
    cameras = CAMERAS if cameras is None else cameras
    number = np.arange(count)
    columns: dict[str, Any] = {
        "source": [f"in/{n:06}.jpg" for n in number],
        "camera": [cameras[n % len(cameras)] for n in number],
        "media": ["image"] * count,
        "captured_at": [NOON + dt.timedelta(days=int(n) % 3) if dated and n % 7 else None for n in number],
        "label": ["with_mask"] * count,
        "landmarks": [[float(n)] * 10 for n in number],
    }
    for field in RESULTS:
        if field.name not in columns:
            columns[field.name] = number if not field.nullable else [None] * count
    arrays = []
    for field in RESULTS:
        kind = pa.string() if pa.types.is_dictionary(field.type) else field.type
        array = (
            pa.array(columns[field.name]).cast(kind)
            if field.name != "captured_at"
            else pa.array(columns[field.name], kind)
        )
        arrays.append(array.dictionary_encode().cast(field.type) if kind != field.type else array)
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def write(folder: Path, rows: pa.Table, generation: str = "abc", chunk: int = 100) -> Dataset:
    target = Dataset(LocalStore(folder), "results/")
    with target.writing(SCHEMA, generation) as writer:
        for start in range(0, len(rows), chunk):
            writer.add(rows.slice(start, chunk))
        writer.close()
    return target


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """In one order, with strings in place of categories, so that frames can be compared."""
    frame = frame[RESULTS.names].copy()
    for name in ("source", "camera", "media", "label"):
        frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    frame["landmarks"] = frame["landmarks"].map(list)
    return frame.sort_values("source").reset_index(drop=True)


def test_every_reader_finds_every_row(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="needs duckdb (group dev)")
    rows = make_rows(1000)
    write(tmp_path, rows)
    folder = tmp_path / "results"
    pd.testing.assert_frame_equal(plain(read_results(folder)), plain(rows.to_pandas()))
    frame = pd.read_parquet(folder)
    assert set(frame.columns) == {*RESULTS.names, "date"}
    expected = rows.to_pandas()["camera"].astype(object).fillna("unknown").value_counts().to_dict()
    assert frame["camera"].astype(str).value_counts().loc[list(expected)].to_dict() == expected
    table = ds.dataset(folder, partitioning="hive").to_table(columns=["source", "camera", "date"])
    assert len(table) == 1000
    found = duckdb.sql(
        f"select camera, count(*) from read_parquet('{folder}/**/*.parquet', hive_partitioning = true, "
        "hive_types_autocast = false) group by all"
    ).fetchall()
    assert dict(found) == expected


def test_only_the_partitions_asked_for_are_read(tmp_path: Path) -> None:
    write(tmp_path, make_rows(300))
    table = ds.dataset(tmp_path / "results", partitioning="hive")
    fragments = list(table.get_fragments(filter=(ds.field("camera") == "01") & (ds.field("date") == "2026-03-01")))
    assert len(fragments) == 1
    assert "camera=01/date=2026-03-01" in fragments[0].path


@pytest.mark.parametrize("cameras", [[None], ["7"]])
@pytest.mark.parametrize("count", [0, 20])
def test_data_sets_without_names_or_rows_are_read_too(tmp_path: Path, cameras: list[str | None], count: int) -> None:
    write(tmp_path, make_rows(count, cameras=cameras, dated=False))
    folder = tmp_path / "results"
    pd.testing.assert_frame_equal(
        plain(read_results(folder)),
        plain(make_rows(count, cameras=cameras, dated=False).to_pandas()),
        check_dtype=count > 0,
    )
    frame = pd.read_parquet(folder)
    assert len(frame) == count
    assert set(frame.columns) == {*RESULTS.names, "date"}
    assert set(frame["camera"].dropna()) <= {"unknown", "7"}


def test_the_manifest_names_every_file_and_its_sum(tmp_path: Path) -> None:
    write(tmp_path, make_rows(200))
    folder = tmp_path / "results"
    manifest = read_manifest(LocalStore(folder))
    assert manifest["rows"] == 200
    assert {entry["path"] for entry in manifest["files"]} | {MANIFEST} == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    }
    for entry in manifest["files"]:
        data = (folder / entry["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"])
        assert pq.read_metadata(folder / entry["path"]).num_rows == entry["rows"]
    assert json.loads(pq.read_schema(folder / MANIFEST).metadata[b"maskbatch"])["tool"] == "maskbatch test"


def test_a_data_set_of_an_earlier_version_is_read_and_replaced(tmp_path: Path) -> None:
    write(tmp_path, make_rows(200))
    folder = tmp_path / "results"
    (folder / OLD_MANIFEST).write_text(json.dumps(read_manifest(LocalStore(folder))))
    (folder / MANIFEST).unlink()
    assert len(read_results(folder)) == 200
    write(tmp_path, make_rows(10), generation="00000000000f")
    assert len(read_results(folder)) == 10
    assert not (folder / OLD_MANIFEST).exists()


def test_the_same_rows_give_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, make_rows(500))
    one, two = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*.*")
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert one == two


def test_rows_that_wait_are_bounded_and_files_have_a_size(tmp_path: Path) -> None:
    writer = DatasetWriter(LocalStore(tmp_path), SCHEMA, "abc", file_rows=50, held_rows=120)
    rows = make_rows(2000, cameras=[f"c{n}" for n in range(40)])
    for start in range(0, 2000, 30):
        writer.add(rows.slice(start, 30))
        assert sum(writer._rows.values()) <= 120
    writer.close()
    assert sum(entry["rows"] for entry in writer.files) == 2000
    assert max(entry["rows"] for entry in writer.files) <= 50
    assert len({entry["path"] for entry in writer.files}) == len(writer.files)
    # One camera at a time, as archives are mostly sorted: full files.
    writer = DatasetWriter(LocalStore(tmp_path / "sorted"), SCHEMA, "abc", file_rows=50, held_rows=120)
    writer.add(make_rows(200, cameras=["gate"], dated=False))
    assert [entry["rows"] for entry in writer.files] == [50, 50, 50, 50]


def test_order_within_a_partition_is_that_of_the_rows(tmp_path: Path) -> None:
    write(tmp_path, make_rows(400))
    for path in (tmp_path / "results").rglob("*.parquet"):
        sources = pq.read_table(path, columns=["source"], partitioning=None)["source"].to_pylist()
        assert sources == sorted(sources)


def test_a_new_data_set_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    write(tmp_path, make_rows(100), "aaa")
    write(tmp_path, make_rows(10), "bbb")
    assert len(pd.read_parquet(tmp_path / "results")) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_writer_that_fails_leaves_the_old_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(local, "_exchange", lambda _one, _other: False)
    write(tmp_path, make_rows(100), "aaa")
    write(tmp_path, make_rows(120), "bbb")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    target = Dataset(LocalStore(tmp_path), "results/")
    with pytest.raises(OutputError, match=r"No space left"), target.writing(SCHEMA, "ccc") as writer:  # noqa: PT012
        writer.add(make_rows(50))
        writer.close()
        raise OSError(28, "No space left on device")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(read_results(tmp_path / "results")) == 120


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "photo.jpg").write_bytes(b"mine")
    target = Dataset(LocalStore(tmp_path), "results/")
    with pytest.raises(UsageError, match=r"holds files that are not of a result \(photo.jpg\)"):
        target.check()
    with pytest.raises(UsageError), target.writing(SCHEMA, "abc"):
        pass
    assert (tmp_path / "results" / "photo.jpg").read_bytes() == b"mine"
    (tmp_path / "results" / "photo.jpg").unlink()
    write(tmp_path, make_rows(10))
    (tmp_path / "results" / "camera=01" / "note.txt").write_text("mine too")
    with pytest.raises(UsageError, match=r"note.txt"):
        target.check()


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(UsageError, match=r"is a file"):
        Dataset(LocalStore(tmp_path), "results/").check()


def test_an_incomplete_data_set_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, make_rows(10))
    (tmp_path / "results" / MANIFEST).unlink()
    with pytest.raises(UsageError, match="no such result"):
        read_results(tmp_path / "results")


def test_the_generation_depends_on_inputs_and_where_they_were_seen() -> None:
    source = Source("/in/a.jpg", "a.jpg", "image", 1, 2)
    known = generation_of("key", [source], False)
    assert known == generation_of("key", [source], False)
    changed = [
        generation_of("other", [source], False),
        generation_of("key", [source], True),
        generation_of("key", [Source("/in/a.jpg", "a.jpg", "image", 1, 3)], False),
        generation_of("key", [Source("/in/a.jpg", "a.jpg", "image", 1, 2, camera="gate")], False),
        generation_of("key", [Source("/in/a.jpg", "a.jpg", "image", 1, 2, start_time=5.0)], False),
        generation_of("key", [], False),
    ]
    assert len({known, *changed}) == 7
