"""The code in docs/cctv.md runs as it stands, and both ways give the same numbers."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskbatch.results.tracks import TRACKS

GUIDE = Path(__file__).parents[2] / "docs" / "cctv.md"


def code(name: str) -> str:
    match = re.search(rf"<!-- {name} -->\n```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert match is not None
    return match.group(1)


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six people: two of three with a mask in the hour from 9, none of two from 10 (Berlin), one at an unknown time."""
    moments = [dt.datetime(2024, 3, 12, 8, m, tzinfo=dt.UTC) for m in (0, 30, 59)]
    moments += [dt.datetime(2024, 3, 13, 9, m, tzinfo=dt.UTC) for m in (0, 1)]
    labels = ["with_mask", "with_mask", "without_mask", "mask_weared_incorrect", "without_mask", "with_mask"]
    rows: list[dict[str, Any]] = []
    for number, (label, moment) in enumerate(zip(labels, [*moments, None], strict=True)):
        row = {"source": "a.mp4", "track": number, "first_at": moment, "sightings": 1, "label": label, "share": 1.0}
        rows.append({**row, "best_face": 0, **{f"best_{side}": 0.0 for side in ("x1", "y1", "x2", "y2")}})
    pq.write_table(pa.Table.from_pylist(rows, schema=TRACKS), tmp_path / "results.tracks.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")


@pytest.mark.filterwarnings("default")  # those of the libraries that draw are not ours
@pytest.mark.parametrize("name", ["pandas", "duckdb"])
def test_example_from_result_to_chart_runs_and_is_short(name: str, result: None) -> None:
    pytest.importorskip("matplotlib", reason="the example draws with matplotlib")
    pytest.importorskip(name, reason=f"the example needs {name}")
    text = code(name)
    assert len(text.splitlines()) < 20
    scope: dict[str, Any] = {}
    exec(compile(text, f"{GUIDE.name}:{name}", "exec"), scope)
    by_hour = scope["by_hour"]
    assert by_hour["size"].to_dict() == {9: 3, 10: 2}
    assert by_hour["mean"].to_dict() == pytest.approx({9: 2 / 3, 10: 0.0})
    assert Path("compliance.png").stat().st_size > 1000
