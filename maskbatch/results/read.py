"""Reading a result from Python."""

from __future__ import annotations

import os

import pandas as pd
import pyarrow.parquet as pq

from maskbatch.errors import UsageError


def read_results(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The faces of a scan as a pandas frame.

    Args:
        path: ``results.parquet``, or the folder of a partitioned data set.

    Returns:
        A row per face with the columns of the contract; `source`, `camera`, `media` and `label` are categoricals,
        `captured_at` is a UTC timestamp.

    Raises:
        UsageError: there is no such file, or it is no Parquet file.
    """
    try:
        return pq.read_table(path).to_pandas()
    except FileNotFoundError:
        raise UsageError(f"{os.fspath(path)}: no such result") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{os.fspath(path)}: not a result of maskbatch ({error})") from None
