"""What people put right: a log that loses nothing, and results read as people decided."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from face_rows import result_row
from hypothesis import given, settings
from hypothesis import strategies as st

import maskbatch
from maskbatch.errors import UsageError
from maskbatch.results.correction_log import CorrectionLog
from maskbatch.results.corrections import Correction, Corrections
from maskbatch.results.reader import ResultReader
from maskbatch.results.schema import RESULTS
from maskbatch.results.summary import summarize

BOX = (10.0, 10.0, 50.0, 60.0)
OTHER = (110.0, 10.0, 150.0, 60.0)


def row(source: str = "a.mp4", time_s: float | None = 1.0, box: Any = BOX, **more: Any) -> dict[str, Any]:
    media = "image" if time_s is None else "video"
    names = ("x1", "y1", "x2", "y2")
    label = more.pop("label", "with_mask")
    return result_row(label, source=source, media=media, time_s=time_s, **dict(zip(names, box, strict=True)), **more)


def result(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "results.parquet"
    pq.write_table(pa.Table.from_pylist(list(rows), schema=RESULTS), path)
    return path


def corrected(path: Path, *corrections: Correction) -> list[dict[str, Any]]:
    CorrectionLog(ResultReader(path).corrections_path).append(corrections)
    return ResultReader(path, corrections=True).read().to_pylist()


def test_label_is_replaced_and_the_models_own_figures_stay(tmp_path: Path) -> None:
    path = result(tmp_path, row(), row(time_s=2.0))
    before = path.read_bytes()
    rows = corrected(path, Correction("a.mp4", BOX, "label", "without_mask", time_s=1.0))
    assert [(r["label"], r["corrected"]) for r in rows] == [("without_mask", True), ("with_mask", False)]
    assert rows[0]["confidence"] == pytest.approx(0.8)
    assert path.read_bytes() == before


def test_what_is_not_a_face_is_gone_and_a_missed_face_is_there(tmp_path: Path) -> None:
    path = result(tmp_path, row(camera="gate"), row(box=OTHER, face=1, camera="gate"))
    rows = corrected(
        path,
        Correction("a.mp4", OTHER, "not_a_face", time_s=1.0),
        Correction("a.mp4", (200, 10, 240, 60), "missed", "with_mask", time_s=3.0),
    )
    assert [(r["x1"], r["label"], r["corrected"]) for r in rows] == [
        (10, "with_mask", False),
        (200, "with_mask", True),
    ]
    assert rows[1]["camera"] == "gate"
    assert np.isnan(rows[1]["score"])


def test_last_decision_counts_and_undo_takes_it_back(tmp_path: Path) -> None:
    first = Correction("a.mp4", BOX, "label", "without_mask", time_s=1.0)
    second = Correction("a.mp4", BOX, "not_a_face", time_s=1.0)
    undo = Correction("a.mp4", BOX, "undo", time_s=1.0)
    assert [c.action for c in Corrections.of([first, second])] == ["not_a_face"]
    assert [c.label for c in Corrections.of([first, second, undo])] == ["without_mask"]
    assert not len(Corrections.of([first, second, undo, undo]))
    assert not len(Corrections.of([undo]))


def test_drawn_face_can_be_given_another_label_or_withdrawn() -> None:
    drawn = Correction("a.jpg", BOX, "missed", "with_mask")
    again = Correction("a.jpg", BOX, "label", "without_mask")
    assert [(c.action, c.label) for c in Corrections.of([drawn, again])] == [("missed", "without_mask")]
    assert not Corrections.of([drawn, Correction("a.jpg", BOX, "not_a_face")]).missed(["with_mask"])


def test_corrections_fit_the_boxes_of_another_model_and_no_other_moment(tmp_path: Path) -> None:
    moved = tuple(value + 4 for value in BOX)
    path = result(tmp_path, row(box=moved), row(time_s=1.04, box=moved), row("b.mp4", box=moved))
    rows = corrected(path, Correction("a.mp4", BOX, "label", "without_mask", time_s=1.0000004))
    assert [r["label"] for r in rows] == ["without_mask", "with_mask", "with_mask"]


def test_each_decision_goes_to_one_face(tmp_path: Path) -> None:
    close = tuple(value + 6 for value in BOX)
    path = result(tmp_path, row(), row(box=close, face=1))
    rows = corrected(path, Correction("a.mp4", close, "label", "without_mask", time_s=1.0))
    assert [r["label"] for r in rows] == ["with_mask", "without_mask"]


def test_source_that_was_renamed_is_found_by_its_bytes(tmp_path: Path) -> None:
    decided = Corrections([Correction("old.jpg", BOX, "not_a_face", sha256="ab")])
    assert [c.source for c in decided.renamed({"new.jpg": "ab"})] == ["new.jpg"]
    assert not len(decided.renamed({"old.jpg": "cd"}))
    assert [c.source for c in decided.renamed({})] == ["old.jpg"]


def test_columns_that_are_asked_for_come_alone(tmp_path: Path) -> None:
    path = result(tmp_path, row())
    CorrectionLog(tmp_path / "results.corrections.csv").append([Correction("a.mp4", BOX, "not_a_face", time_s=1.0)])
    tables = list(ResultReader(path, corrections=True).tables(("label",)))
    assert [table.column_names for table in tables] == [["label"]]
    assert sum(map(len, tables)) == 0


def test_summary_counts_faces_and_votes_of_tracks_as_decided(tmp_path: Path) -> None:
    path = result(tmp_path, *(row(time_s=float(t), frame=t, track=0) for t in range(3)), row("b.jpg", None))
    log = [Correction("a.mp4", BOX, "label", "without_mask", time_s=float(t)) for t in range(2)]
    corrected(path, *log, Correction("b.jpg", BOX, "not_a_face"))
    assert summarize(path).total["with_mask"] == 2
    total = summarize(path, corrections=True).total
    assert (total["with_mask"], total["without_mask"], total["count"]) == (0, 1, 1)


def test_pandas_frame_has_the_column_corrected(tmp_path: Path) -> None:
    path = result(tmp_path, row())
    corrected(path, Correction("a.mp4", BOX, "label", "without_mask", time_s=1.0))
    frame = maskbatch.read_results(path, corrections=True)
    assert frame["corrected"].tolist() == [True]
    assert "corrected" not in maskbatch.read_results(path)


def test_label_that_the_result_does_not_have_is_an_error(tmp_path: Path) -> None:
    path = result(tmp_path, row())
    with pytest.raises(UsageError, match="'beard'; the labels"):
        corrected(path, Correction("a.mp4", BOX, "label", "beard", time_s=1.0))


@pytest.mark.parametrize("text", ["not,a,log\n1,2,3\n", "source,x1,y1,x2,y2,action\na,1,2,3,4,guess\n"])
def test_file_that_is_no_log_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"x\.csv"):
        CorrectionLog(path).read()


def test_named_log_must_exist_and_the_one_beside_the_result_need_not(tmp_path: Path) -> None:
    path = result(tmp_path, row())
    assert len(ResultReader(path, corrections=True).read()) == 1
    with pytest.raises(UsageError, match="no such file"):
        ResultReader(path, tmp_path / "none.csv").read()


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_text, _text, st.none() | st.floats(0, 1e6)), min_size=1, max_size=5))
def test_any_name_comes_back_and_no_cell_is_a_formula(tmp_path_factory: Any, values: list[Any]) -> None:
    log = CorrectionLog(tmp_path_factory.mktemp("log") / "c.csv")
    records = [Correction(s, BOX, "label", "with_mask", by=by, time_s=t) for s, by, t in values]
    for record in records:
        log.append([record])
    assert log.read() == records
    assert len(log.path.read_bytes().splitlines()) >= len(records) + 1
    assert not any(line.startswith((b"=", b"+", b"-", b"@")) for line in log.path.read_bytes().split(b"\n"))


def test_torn_last_line_is_dropped_and_the_next_record_follows(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path / "c.csv")
    first, second = (Correction(name, BOX, "not_a_face") for name in ("a.jpg", "b.jpg"))
    log.append([first])
    with log.path.open("ab") as file:
        file.write(b'"torn, nam')
    assert log.read() == [first]
    log.append([second])
    assert log.read() == [first, second]


def test_records_of_many_writers_stay_whole(tmp_path: Path) -> None:
    def write(writer: int) -> None:
        for number in range(20):
            CorrectionLog(tmp_path / "c.csv").append([Correction(f"{writer}-{number}", BOX, "not_a_face")])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = CorrectionLog(tmp_path / "c.csv").read()
    assert sorted(record.source for record in records) == sorted(f"{w}-{n}" for w in range(4) for n in range(20))


def test_full_disk_is_an_error_and_nothing_of_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = CorrectionLog(tmp_path / "c.csv")
    log.append([Correction("a.jpg", BOX, "not_a_face")])

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(maskbatch.OutputError, match="No space"):
        log.append([Correction("b.jpg", BOX, "not_a_face")])
    assert [record.source for record in log.read()] == ["a.jpg"]
