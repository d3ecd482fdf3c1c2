"""Reading a result from Python."""

from __future__ import annotations

import io
import os
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from maskbatch.errors import UsageError
from maskbatch.results.schema import RESULTS
from maskbatch.storage import Store, open_store


def read_results(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The faces of a scan as a pandas frame.

    Args:
        path: ``results.parquet``, or the folder of a partitioned data set; also a URL (``s3://…``).

    Returns:
        A row per face with the columns of the contract; `source`, `camera`, `media` and `label` are categoricals,
        `captured_at` is a UTC timestamp. Of a data set, the rows that its manifest names, sorted by camera and day.

    Raises:
        UsageError: there is no such file, or it is no Parquet file.
    """
    try:
        name = os.fspath(path)
        if "://" not in name and not Path(name).is_dir():
            table = pq.read_table(name)
        elif name.endswith(".parquet"):
            folder, _, name = name.rpartition("/")
            table = pq.read_table(io.BytesIO(open_store(folder).read(name)))
        else:
            table = _read_dataset(open_store(name))
    except FileNotFoundError:
        raise UsageError(f"{os.fspath(path)}: no such result") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{os.fspath(path)}: not a result of maskbatch ({error})") from None
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _read_dataset(store: Store) -> pa.Table:
    from maskbatch.results.dataset import UNKNOWN, files_of

    kind = RESULTS.field("camera").type
    tables = []
    for name in files_of(store):
        rows = pq.read_table(io.BytesIO(store.read(name)))
        shown = name.partition("/")[0].partition("=")[2]
        camera = None if shown == UNKNOWN else unquote(shown)
        cameras = pa.array([camera] * len(rows), pa.string()).dictionary_encode().cast(kind)
        rows = rows.append_column(RESULTS.field("camera"), cameras)
        tables.append(rows.select(RESULTS.names))
    return pa.concat_tables(tables).unify_dictionaries() if tables else RESULTS.empty_table()
