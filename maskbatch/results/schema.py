"""The public contract: the columns of the results, the inputs and the tracks, and the parts they are merged from."""

from __future__ import annotations

import pyarrow as pa

from maskbatch.tasks.mask import LABELS

SCHEMA_VERSION = "1"

_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
_SMALL_DICTIONARY = pa.dictionary(pa.int8(), pa.string())
_LANDMARKS = pa.list_(pa.float32(), 10)

PROBABILITY_COLUMNS: tuple[str, ...] = tuple(f"p_{label}" for label in LABELS)

PART = pa.schema(
    [
        ("frame", pa.int64()),
        ("time_s", pa.float64()),
        pa.field("face", pa.int32(), nullable=False),
        *[pa.field(name, pa.float32(), nullable=False) for name in ("x1", "y1", "x2", "y2", "score")],
        ("landmarks", _LANDMARKS),
        *[pa.field(name, pa.float32(), nullable=False) for name in PROBABILITY_COLUMNS],
        pa.field("sharpness", pa.float32(), nullable=False),
    ]
)
"""What a worker writes: everything that needs pixels. What needs only the source (name, camera, clock) is added by the merge."""

RESULTS = pa.schema(
    [
        pa.field("source", _DICTIONARY, nullable=False),
        ("camera", _DICTIONARY),
        pa.field("media", _SMALL_DICTIONARY, nullable=False),
        ("frame", pa.int64()),
        ("time_s", pa.float64()),
        ("captured_at", pa.timestamp("us", tz="UTC")),
        pa.field("face", pa.int32(), nullable=False),
        *[pa.field(name, pa.float32(), nullable=False) for name in ("x1", "y1", "x2", "y2", "score")],
        ("landmarks", _LANDMARKS),
        pa.field("label", _SMALL_DICTIONARY, nullable=False),
        pa.field("confidence", pa.float32(), nullable=False),
        *[pa.field(name, pa.float32(), nullable=False) for name in PROBABILITY_COLUMNS],
        pa.field("sharpness", pa.float32(), nullable=False),
        ("track", pa.int64()),
    ]
)
"""`results.parquet`: a row per face, ordered by source, frame, face. `sharpness` is the variance of the Laplacian of the grey crop."""

INPUTS = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("media", _SMALL_DICTIONARY, nullable=False),
        pa.field("status", _SMALL_DICTIONARY, nullable=False),
        ("error", _SMALL_DICTIONARY),
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
