"""Arrow columns to and from numpy by their buffers.

`pyarrow.array` and `Array.to_numpy` look whether an object of pandas is involved and import pandas to find out: up to a second
in every worker and in every short run. Buffers do without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]


def numbers(values: Array | Sequence[float | None], kind: pa.DataType, missing: Array | None = None) -> pa.Array:
    """A column of integers or floats.

    Args:
        values: n numbers; in a list, None is null.
        kind: the Arrow type.
        missing: n bool, true where the column is null; for arrays.
    """
    if not isinstance(values, np.ndarray):
        missing = np.array([value is None for value in values], np.bool_)
        values = np.array([0 if value is None else value for value in values])
    stored = np.ascontiguousarray(values, kind.to_pandas_dtype())
    validity = None if missing is None or not missing.any() else _bits(~missing)
    return pa.Array.from_buffers(kind, len(stored), [validity, pa.py_buffer(stored)])


def flags(values: Array) -> pa.Array:
    """A column of bool without nulls."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bits(values)])


def strings(values: Sequence[str | None]) -> pa.Array:
    """A column of strings; None is null."""
    encoded = [b"" if value is None else value.encode() for value in values]
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    missing = np.array([value is None for value in values], np.bool_)
    validity = _bits(~missing) if missing.any() else None
    return pa.Array.from_buffers(
        pa.string(), len(values), [validity, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    )


def to_numpy(column: pa.ChunkedArray) -> Array:
    """The numbers of a column; 0 where it is null."""
    dtype = np.dtype(column.type.to_pandas_dtype())
    parts = [np.empty(0, dtype)]
    for chunk in column.chunks:
        validity, data = chunk.buffers()
        values = np.frombuffer(data, dtype, len(chunk), chunk.offset * dtype.itemsize) if len(chunk) else parts[0]
        if chunk.null_count:
            valid = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")
            values = np.where(valid[chunk.offset : chunk.offset + len(chunk)], values, dtype.type(0))
        parts.append(values)
    return np.concatenate(parts)


def _bits(values: Array) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))
