"""One result, every reader: polars, DuckDB, pandas, Arrow and Hugging Face's datasets open the tables as they lie, and join them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from toy_scan import toy_scan

import maskbatch

duckdb = pytest.importorskip("duckdb", reason="needs the group scale")
polars = pytest.importorskip("polars", reason="needs the group scale")
pytest.importorskip("scipy", reason="needs the extra track")


@pytest.fixture(scope="module", params=["file", "data set"])
def result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`results.parquet` or `results/` of the synthetic archive, with tracks."""
    out = "results.parquet" if request.param == "file" else "results/"
    return toy_scan(tmp_path_factory.mktemp("result"), out, track=True)


def _polars(faces: Path, other: Path) -> tuple[int, int]:
    table = polars.read_parquet(faces)
    joined = table.join(polars.read_parquet(other), on="source")
    return len(table), len(joined)


def _duckdb(faces: Path, other: Path) -> tuple[int, int]:
    named = f"'{faces}'" if faces.is_file() else f"'{faces}/**/*.parquet', hive_partitioning = true"
    return tuple(  # type: ignore[return-value]
        duckdb.sql(query).fetchall()[0][0]
        for query in (
            f"select count(*) from read_parquet({named})",
            f"select count(*) from read_parquet({named}) join read_parquet('{other}') using (source)",
        )
    )


def _pandas(faces: Path, other: Path) -> tuple[int, int]:
    table = pd.read_parquet(faces)
    return len(table), len(table.merge(pd.read_parquet(other), on="source"))


def _arrow(faces: Path, other: Path) -> tuple[int, int]:
    table = ds.dataset(faces, partitioning="hive").to_table()
    # Arrow's join takes no dictionaries nor lists.
    left = table.select(["face", "x1"]).append_column("source", table["source"].cast("string"))
    right = pq.read_table(other, columns=["source"])
    right = right.set_column(0, "source", right["source"].cast("string"))
    return len(table), len(left.join(right, "source", join_type="inner"))


def _datasets(faces: Path, other: Path) -> tuple[int, int]:
    datasets = pytest.importorskip("datasets", reason="needs the group scale")
    files = str(faces) if faces.is_file() else f"{faces}/**/*.parquet"
    table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(other.parent / "cache"))
    return len(table), len(table)


@pytest.mark.parametrize(
    "read", [_polars, _duckdb, _pandas, _arrow, _datasets], ids=lambda read: read.__name__.strip("_")
)
def test_tables_open_as_they_lie_and_join(
    result: Path, read: Callable[[Path, Path], tuple[int, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    expected = len(maskbatch.read_results(result))
    assert expected == 13
    inputs = result.parent / "results.inputs.parquet"
    assert read(result, inputs) == (expected, expected)


def test_keys_have_one_type_in_all_tables(result: Path) -> None:
    faces = maskbatch.ResultReader(result).schema
    for kind in ("inputs", "tracks"):
        table = pq.read_schema(result.parent / f"results.{kind}.parquet")
        for name in {"source", "camera", "media", "label"} & set(table.names):
            assert table.field(name).type == faces.field(name).type, (kind, name)
