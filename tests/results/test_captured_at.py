"""The wall-clock time of a face in a video."""

from __future__ import annotations

import pyarrow as pa
import pytest

from maskbatch.results.merge import Merged, combine, result_rows
from maskbatch.results.schema import PART
from maskbatch.types import PieceResult, Source


@pytest.mark.parametrize("named", [True, False], ids=["time in the name", "time in the metadata"])
def test_it_is_the_start_of_the_recording_and_the_time_in_it(named: bool) -> None:
    face = {"frame": 60, "time_s": 2.5, "face": 0, "x1": 0.0, "y1": 0.0, "x2": 9.0, "y2": 9.0, "score": 0.9}
    face |= {"landmarks": None, "p_with_mask": 1.0, "p_without_mask": 0.0, "p_mask_weared_incorrect": 0.0}
    rows = pa.Table.from_pylist([{**face, "sharpness": 1.0}], schema=PART)
    source = Source("a.ts", "a.ts", "video", start_time=1_710_252_000.0 if named else None)
    piece = PieceResult("a.ts", source.fingerprint, frames_read=1, faces=1)
    if not named:
        piece.started_at = 1_710_252_000.0
    table = result_rows([Merged(source, combine(source, [piece]), rows)], [None])
    assert table["captured_at"].to_pylist()[0].timestamp() == 1_710_252_002.5
