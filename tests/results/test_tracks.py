"""Tracks of persons and their table."""

from __future__ import annotations

import builtins
import importlib.util
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from face_rows import result_row

from maskbatch.errors import MissingExtraError
from maskbatch.results import tracks
from maskbatch.results.schema import RESULTS
from maskbatch.results.tracks import TRACKS, track_video, tracks_table

needs_scipy = pytest.mark.skipif(importlib.util.find_spec("scipy") is None, reason="needs the extra `track` (SciPy)")


def faces(rows: list[tuple[float, float, float, float]], step: float = 1.0) -> pa.Table:
    """Rows of (time, centre x, side, score), one face each, on one line of the picture."""
    time = np.array([row[0] for row in rows])
    x, side, score = (np.array([row[i] for row in rows], np.float32) for i in (1, 2, 3))
    frame = np.round(time / step).astype(np.int64)
    face = np.zeros(len(rows), np.int32)
    for i in range(1, len(rows)):
        face[i] = face[i - 1] + 1 if frame[i] == frame[i - 1] else 0
    return pa.table(
        {
            "frame": frame,
            "time_s": time,
            "face": face,
            "x1": x - side / 2,
            "y1": 100 - side / 2,
            "x2": x + side / 2,
            "y2": 100 + side / 2,
            "score": score,
        }
    )


@needs_scipy
def test_two_people_keep_their_numbers_at_a_frame_a_second() -> None:
    rows = []
    for second in range(12):
        rows.append((float(second), 100 + 25.0 * second, 30.0, 0.95))
        rows.append((float(second), 600 - 10.0 * second, 32.0, 0.9))
    found = track_video(faces(rows)).to_pylist()
    assert found == [0, 1] * 12


@needs_scipy
def test_person_seen_once_is_a_person_and_an_absence_ends_a_track() -> None:
    rows = [(0.0, 100, 30, 0.9), (1.0, 100, 30, 0.9), (5.0, 500, 30, 0.9), (60.0, 100, 30, 0.9), (61.0, 105, 30, 0.9)]
    assert track_video(faces(rows)).to_pylist() == [0, 0, 1, 2, 2]


@needs_scipy
def test_short_occlusion_does_not_end_a_track() -> None:
    rows = [(t, 100 + 4 * t, 30, 0.9) for t in (0.0, 1.0, 2.0, 4.0, 5.0, 6.0)]
    assert track_video(faces(rows)).to_pylist() == [0] * 6


@needs_scipy
def test_faint_face_prolongs_a_track_but_begins_none() -> None:
    rows = [(0.0, 100, 30, 0.9), (0.0, 500, 30, 0.3), (1.0, 101, 30, 0.35), (2.0, 102, 30, 0.9)]
    assert track_video(faces(rows)).to_pylist() == [0, None, 0, 0]


@needs_scipy
def test_every_sampling_rate_gives_the_same_people() -> None:
    for step in (0.04, 0.2, 1.0):
        times = np.arange(0, 10, step)
        rows = []
        for t in times:
            rows += [(float(t), 100 + 20 * t, 30, 0.9), (float(t), 500 - 15 * t, 30, 0.8)]
        found = track_video(faces(rows, step)).to_pylist()
        assert set(found[::2]) == {0}, step
        assert set(found[1::2]) == {1}, step


@needs_scipy
def test_clock_that_jumps_back_begins_new_people_and_equal_times_are_borne() -> None:
    rows = [(0.0, 100, 30, 0.9), (1.0, 100, 30, 0.9), (1.0, 101, 30, 0.9), (0.0, 100, 30, 0.9), (1.0, 100, 30, 0.9)]
    table = faces(rows)
    table = table.set_column(0, "frame", pa.array([0, 1, 2, 3, 4]))
    assert track_video(table).to_pylist() == [0, 0, 0, 1, 1]


@needs_scipy
def test_numbers_follow_the_first_appearance_in_a_crowd() -> None:
    rng = np.random.default_rng(3)
    rows = []
    for second in range(30):
        people = rng.permutation(8)
        rows += [(float(second), 100.0 * p + second, 25.0, float(rng.uniform(0.5, 1))) for p in people]
    found = track_video(faces(rows)).to_pylist()
    firsts = list(dict.fromkeys(found))
    assert firsts == list(range(8))
    by_place: dict[int, set[int]] = {}
    for (second, x, _, _), number in zip(rows, found, strict=True):
        by_place.setdefault(round((x - second) / 100), set()).add(number)
    assert all(len(numbers) == 1 for numbers in by_place.values())


@needs_scipy
def test_nothing_gives_nothing() -> None:
    assert track_video(faces([]).cast(faces([(0, 1, 1, 1)]).schema)).to_pylist() == []


def test_missing_library_is_told_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"maskbatch\[track\]"):
        track_video(faces([(0.0, 1, 1, 1)]))


def results(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows in the public schema; only what matters is given."""
    full = []
    for row in rows:
        label, confidence = row.pop("vote", ("with_mask", 0.9))
        full.append(result_row(label, confidence, **{"camera": "cam1", "track": 0, **row}))
    return pa.Table.from_pylist(full, schema=RESULTS)


def test_label_is_voted_by_confidence_and_the_share_is_told() -> None:
    table = tracks_table(
        [
            results(
                [
                    {"vote": ("without_mask", 0.5)},
                    {"vote": ("without_mask", 0.5), "frame": 1},
                    {"vote": ("with_mask", 0.98), "frame": 2},
                    {"vote": ("with_mask", 0.42), "frame": 3},
                ]
            )
        ]
    )
    assert table.schema == TRACKS
    row = table.to_pylist()[0]
    assert row["label"] == "with_mask"
    assert row["share"] == pytest.approx(1.4 / 2.4)
    assert row["sightings"] == 4


def test_best_face_is_the_largest_and_sharpest() -> None:
    table = tracks_table(
        [
            results(
                [
                    {"frame": 1, "x2": 40.0, "sharpness": 1.0},
                    {"frame": 2, "x2": 20.0, "sharpness": 9.0, "face": 3},
                    {"frame": 3, "x2": 10.0, "sharpness": 10.0},
                ]
            )
        ]
    )
    row = table.to_pylist()[0]
    assert (row["best_frame"], row["best_face"], row["best_x2"]) == (2, 3, 20.0)


def test_times_are_those_of_first_and_last_sighting_and_batches_do_not_matter() -> None:
    rows = []
    for name in ("a.mp4", "b.mp4"):
        for second in range(5):
            for track in (0, 1, None):
                rows.append(
                    {
                        "source": name,
                        "camera": name[0],
                        "frame": second * 25,
                        "time_s": float(second),
                        "captured_at": 1_000_000 * (1000 + second),
                        "track": track,
                        "face": track or 0,
                    }
                )
    table = results(rows)
    whole = tracks_table([table])
    pieces = tracks_table(table.to_batches(max_chunksize=2))
    assert pieces == whole
    got = whole.to_pylist()
    assert [(r["source"], r["camera"], r["track"]) for r in got] == [
        ("a.mp4", "a", 0), ("a.mp4", "a", 1), ("b.mp4", "b", 0), ("b.mp4", "b", 1)
    ]  # fmt: skip
    assert {(r["first_s"], r["last_s"], r["sightings"]) for r in got} == {(0.0, 4.0, 5)}
    assert {r["last_at"].timestamp() - r["first_at"].timestamp() for r in got} == {4.0}


def test_result_without_tracks_gives_an_empty_table_with_the_full_schema() -> None:
    assert tracks_table([results([{"track": None}])]).schema == TRACKS
    assert len(tracks_table([])) == 0
    assert tracks.TRACKS.names[:3] == ["source", "camera", "track"]
