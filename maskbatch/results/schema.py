"""The public contract: the columns of the results, the inputs and the tracks, and the parts they are merged from.

The columns ``p_<label>`` follow from the task, everything else is the same for all.
"""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa

from maskbatch.tasks import MASK, Task

SCHEMA_VERSION = "1"

DICTIONARY = pa.dictionary(pa.int32(), pa.string())
SMALL_DICTIONARY = pa.dictionary(pa.int8(), pa.string())
_LANDMARKS = pa.list_(pa.float32(), 10)


def _numbers(names: tuple[str, ...]) -> list[pa.Field]:
    return [pa.field(name, pa.float32(), nullable=False) for name in names]


@lru_cache(maxsize=16)
def part_schema(task: Task) -> pa.Schema:
    """What a worker writes: everything that needs pixels. What needs only the source (name, camera, clock) is added by the merge."""
    return pa.schema(
        [
            ("frame", pa.int64()),
            ("time_s", pa.float64()),
            pa.field("face", pa.int32(), nullable=False),
            *_numbers(("x1", "y1", "x2", "y2", "score")),
            ("landmarks", _LANDMARKS),
            *_numbers(task.probability_columns),
            *_numbers(("sharpness",)),
        ]
    )


@lru_cache(maxsize=16)
def results_schema(task: Task) -> pa.Schema:
    """`results.parquet`: a row per face, ordered by source, frame, face.

    `sharpness` is the variance of the Laplacian of the grey crop.
    """
    return pa.schema(
        [
            pa.field("source", DICTIONARY, nullable=False),
            ("camera", DICTIONARY),
            pa.field("media", SMALL_DICTIONARY, nullable=False),
            ("frame", pa.int64()),
            ("time_s", pa.float64()),
            ("captured_at", pa.timestamp("us", tz="UTC")),
            pa.field("face", pa.int32(), nullable=False),
            *_numbers(("x1", "y1", "x2", "y2", "score")),
            ("landmarks", _LANDMARKS),
            pa.field("label", SMALL_DICTIONARY, nullable=False),
            *_numbers(("confidence", *task.probability_columns, "sharpness")),
            ("track", pa.int64()),
        ]
    )


PART = part_schema(MASK)
RESULTS = results_schema(MASK)
"""Of the default task."""

INPUTS = pa.schema(
    [
        # The type it has in the results: some readers join columns of one type only.
        pa.field("source", DICTIONARY, nullable=False),
        pa.field("media", SMALL_DICTIONARY, nullable=False),
        pa.field("status", SMALL_DICTIONARY, nullable=False),
        ("error", SMALL_DICTIONARY),
        ("message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        pa.field("frames_read", pa.int64(), nullable=False),
        pa.field("frames_failed", pa.int64(), nullable=False),
        pa.field("frames_skipped", pa.int64(), nullable=False),
        pa.field("faces", pa.int64(), nullable=False),
        ("duration_s", pa.float64()),
        pa.field("decode_s", pa.float64(), nullable=False),
        pa.field("detect_s", pa.float64(), nullable=False),
        pa.field("classify_s", pa.float64(), nullable=False),
        ("sha256", pa.string()),
    ]
)
"""`results.inputs.parquet`: a row per input that was found, in the order of the results."""

DUPLICATE_COLUMNS = ("duplicate_of", "near_duplicate_of")


def inputs_schema(duplicates: bool) -> pa.Schema:
    """`INPUTS`; where duplicates are looked for, with the names of the inputs whose copy or look-alike each one is."""
    return pa.schema([*INPUTS, *((name, pa.string()) for name in DUPLICATE_COLUMNS)]) if duplicates else INPUTS
