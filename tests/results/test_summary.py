"""`maskbatch summary`: people by camera and hour."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from face_rows import result_row
from typer.testing import CliRunner

from maskbatch.cli import summary as command
from maskbatch.errors import UsageError
from maskbatch.results.schema import RESULTS
from maskbatch.results.summary import summarize
from maskbatch.results.tracks import tracks_table
from maskbatch.tasks.mask import LABELS

HOUR = 3_600_000_000
NOON = 1_710_244_800_000_000  # 2024-03-12 12:00 UTC


def row(label: str, **values: Any) -> dict[str, Any]:
    """A face at the gate at noon."""
    return result_row(label, **{"camera": "gate", "captured_at": NOON, **values})


def write(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "results.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=RESULTS), path, row_group_size=3)
    return str(path)


@pytest.fixture
def untracked(tmp_path: Path) -> str:
    """Three faces at the gate at noon, one at one o'clock, one in the hall at noon."""
    return write(
        tmp_path,
        [
            row("with_mask"),
            row("with_mask", captured_at=NOON + HOUR - 1),
            row("without_mask", captured_at=NOON + HOUR // 2),
            row("mask_weared_incorrect", captured_at=NOON + HOUR),
            row("with_mask", camera="hall"),
        ],
    )


@pytest.fixture
def tracked(tmp_path: Path) -> str:
    """Two people in five sightings, one faint face of nobody, and a picture with one face."""
    return write(
        tmp_path,
        [
            row("with_mask", track=0, captured_at=NOON + HOUR - 1),
            row("without_mask", track=0, frame=1, captured_at=NOON + HOUR, confidence=0.5),
            row("with_mask", track=0, frame=2, captured_at=NOON + HOUR + 1),
            row("without_mask", track=1, captured_at=NOON + 2 * HOUR),
            row("without_mask", track=1, captured_at=NOON + 2 * HOUR + 1),
            row("with_mask", captured_at=NOON),
            row(
                "mask_weared_incorrect",
                media="image",
                source="b.jpg",
                camera=None,
                captured_at=None,
                time_s=None,
                frame=None,
            ),
        ],
    )


def test_faces_are_counted_by_camera_and_hour_without_tracking(untracked: str) -> None:
    found = summarize(untracked)
    assert found.counted == "faces"
    keys = [(r["camera"], r["hour"], r["count"], *(r[label] for label in LABELS)) for r in found.rows]
    assert keys == [
        ("gate", "2024-03-12 12:00", 3, 2, 1, 0),
        ("gate", "2024-03-12 13:00", 1, 0, 0, 1),
        ("hall", "2024-03-12 12:00", 1, 1, 0, 0),
    ]
    assert found.rows[0]["share"] == pytest.approx(2 / 3)
    assert found.total == {"count": 5, "with_mask": 3, "without_mask": 1, "mask_weared_incorrect": 1, "share": 0.6}


def test_people_are_counted_once_in_the_hour_they_are_first_seen(tracked: str) -> None:
    found = summarize(tracked)
    assert found.counted == "people and faces"
    assert found.untracked == 1
    keys = [(r["camera"], r["hour"], r["count"], *(r[label] for label in LABELS)) for r in found.rows]
    assert keys == [
        ("gate", "2024-03-12 12:00", 1, 1, 0, 0),
        ("gate", "2024-03-12 14:00", 1, 0, 1, 0),
        (None, None, 1, 0, 0, 1),
    ]


def test_tracks_table_beside_the_result_gives_the_same_counts(tracked: str) -> None:
    without = summarize(tracked)
    table = tracks_table([pq.read_table(tracked)])
    pq.write_table(table, tracked.replace(".parquet", ".tracks.parquet"))
    assert summarize(tracked) == without


def test_counts_agree_with_pandas(untracked: str) -> None:
    frame = pd.read_parquet(untracked)
    hours = frame.captured_at.dt.floor("h").dt.strftime("%Y-%m-%d %H:00")
    expected = frame.groupby(["camera", hours], observed=True).size().to_dict()
    assert {(r["camera"], r["hour"]): r["count"] for r in summarize(untracked).rows} == expected


def test_hours_and_dates_are_in_the_zone_that_was_asked_for(untracked: str) -> None:
    hours = {r["hour"] for r in summarize(untracked, ("hour",), "Asia/Kathmandu").rows}
    assert hours == {"2024-03-12 17:00", "2024-03-12 18:00"}
    assert [r["date"] for r in summarize(untracked, ("date",), "Pacific/Auckland").rows] == ["2024-03-13"]
    assert [r["hour-of-day"] for r in summarize(untracked, ("hour-of-day",)).rows] == ["12:00", "13:00"]
    assert [r["weekday"] for r in summarize(untracked, ("weekday",)).rows] == ["2 Tue"]


def test_hour_of_the_recording_stands_in_where_no_clock_is_known(tmp_path: Path) -> None:
    rows = [row("with_mask", captured_at=None, time_s=3600.0 * h, camera=None) for h in (0.0, 0.99, 1.0, 25.5)]
    path = write(tmp_path, rows)
    assert [(r["hour"], r["count"]) for r in summarize(path).rows] == [("+00:00", 2), ("+01:00", 1), ("+25:00", 1)]


def test_empty_result_is_summarised_as_nothing(tmp_path: Path) -> None:
    found = summarize(write(tmp_path, []))
    assert found.rows == ()
    assert found.total["count"] == 0
    assert found.total["share"] is None


def test_wrong_key_zone_or_file_is_a_usage_error(untracked: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose from"):
        summarize(untracked, ("colour",))
    with pytest.raises(UsageError, match="choose from"):
        summarize(untracked, ("hour", "hour"))
    with pytest.raises(UsageError, match="time zone"):
        summarize(untracked, timezone="Nowhere")
    with pytest.raises(UsageError, match="no such result"):
        summarize(str(tmp_path / "none.parquet"))
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(UsageError, match="not a result"):
        summarize(str(tmp_path / "text.parquet"))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(UsageError, match="not a result"):
        summarize(str(tmp_path / "other.parquet"))


def run(*arguments: str) -> str:
    app = typer.Typer()
    command.register(app)
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_text_says_what_is_counted(untracked: str) -> None:
    lines = run(untracked).splitlines()
    assert lines[0].startswith("faces: every sighting counts")
    assert lines[3].split() == ["gate", "2024-03-12", "12:00", "3", "2", "1", "0", "66.7", "%"]
    assert lines[6].split() == ["total", "5", "3", "1", "1", "60.0", "%"]


def test_text_of_a_tracked_result_names_people_and_the_rest(tracked: str) -> None:
    text = run(tracked)
    assert text.startswith("people in tracked videos, faces in all other inputs")
    assert "--track" not in text
    assert "1 low-score face " in text
    assert any(line.startswith("total") and " 3 " in line for line in text.splitlines())


def test_csv_and_json_hold_the_same_numbers(untracked: str) -> None:
    table = list(csv.DictReader(io.StringIO(run(untracked, "--format", "csv"))))
    found = json.loads(run(untracked, "--format", "json"))
    assert found["counted"] == "faces"
    assert [int(line["faces"]) for line in table] == [r["count"] for r in found["rows"]] == [3, 1, 1]
    assert table[0]["share_with_mask"] == "0.6667"
    assert list(table[0])[:2] == ["camera", "hour"]
    total = list(csv.DictReader(io.StringIO(run(untracked, "--format", "csv", "--by", ""))))
    assert [line["faces"] for line in total] == ["5"]


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    path = write(tmp_path, [row("with_mask", camera="\x1b[31mred\n")])
    assert "\x1b" not in run(path)


def test_repeated_hour_of_a_clock_change_is_two_rows_in_order(tmp_path: Path) -> None:
    moments = [dt.datetime(2026, 10, 24, 23, 30, tzinfo=dt.UTC) + dt.timedelta(hours=n) for n in range(4)]
    rows = [result_row("with_mask", source=f"{n}.jpg", media="image", captured_at=at) for n, at in enumerate(moments)]
    pq.write_table(pa.Table.from_pylist(rows, schema=RESULTS), tmp_path / "results.parquet")
    found = summarize(tmp_path / "results.parquet", ("hour",), "Europe/Berlin").rows
    assert [row["hour"] for row in found] == [
        "2026-10-25 01:00",
        "2026-10-25 02:00 +02:00",
        "2026-10-25 02:00 +01:00",
        "2026-10-25 03:00",
    ]
    assert [row["count"] for row in found] == [1, 1, 1, 1]
