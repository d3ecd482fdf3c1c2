"""The report of a result: the same figures in HTML, Markdown and JSON, for results of every kind."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results_maker import MONDAY, face, two_label_result, write_result
from typer.testing import CliRunner
from video_makers import number_in, write_video

from maskbatch.cli import build_app
from maskbatch.draw.originals import Originals
from maskbatch.errors import UsageError
from maskbatch.report.make import ReportOptions, make_report
from maskbatch.report.packed import for_public
from maskbatch.report.people import STEPS, read_people
from maskbatch.results.reader import ResultReader


def report(result: Path, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(make_report(result, "json", ReportOptions(**options)))
    return found


def table(found: dict[str, Any], section: str, title: str) -> dict[str, list[Any]]:
    tables = {one["title"]: one for one in found["sections"][section]["tables"]}
    return {row[0]: row[1:] for row in tables[title]["rows"]}


def test_the_answer_counts_sightings_and_says_so(tmp_path: Path) -> None:
    found = report(write_result(tmp_path, [face(), face("without_mask", face=1), face(face=2), face(face=3)]))
    answer = found["sections"]["answer"]
    assert answer["values"]["share"] == 0.75
    assert "75.0 % of 4 sightings" in answer["sentences"][0]
    assert any("not people" in note for note in answer["notes"])
    assert "not independent" in found["sections"]["association"]["sentences"][0]
    assert '"p"' not in json.dumps(found), "no p-value without tracks"


def test_people_are_counted_once_where_they_were_followed(tmp_path: Path) -> None:
    rows = [face(track=0, frame=i, time_s=float(i), x2=10.0 + i) for i in range(5)] + [
        face("without_mask", track=1, frame=9, face=1)
    ]
    people = read_people(ResultReader(write_result(tmp_path, rows)))
    assert people.counted == "people"
    assert len(people.label) == 2
    assert sorted(people.size.tolist())[-1] == round(8 * np.log2(14)), "the largest face of a person"


def test_hours_and_weekdays_are_local(tmp_path: Path) -> None:
    late = dt.datetime(2026, 3, 1, 23, 30, tzinfo=dt.UTC)  # Sunday in UTC, Monday half past midnight in Berlin
    found = report(write_result(tmp_path, [face(captured_at=late)]), timezone="Europe/Berlin")
    assert list(table(found, "compliance", "By hour")) == ["00:00"]
    assert list(table(found, "compliance", "By weekday")) == ["Monday"]
    with pytest.raises(UsageError, match="not a time zone"):
        report(tmp_path / "results.parquet", timezone="Mars/Base")


def test_coverage_counts_inputs_without_faces_and_names_the_failed(tmp_path: Path) -> None:
    inputs = [
        {"source": "a.mp4", "faces": 1, "duration_s": 3600.0, "frames_read": 60},
        {
            "source": "gate/20260302_090000.mp4",
            "duration_s": 1800.0,
            "status": "partial",
            "error": "truncated",
            "frames_failed": 7,
        },
        {"source": "x.jpg", "media": "image", "status": "error", "error": "corrupt", "message": "broken"},
    ]
    found = report(write_result(tmp_path, [face()], inputs))
    assert found["sections"]["coverage"]["values"]["total"]["inputs"] == 3
    assert table(found, "coverage", "By camera")["gate"][:4] == [2, 1, 1, 0]
    assert "read in part: 1, not at all: 1;" in found["sections"]["coverage"]["warnings"][0]
    assert found["sections"]["coverage"]["values"]["by_error"] == {"truncated": 1, "corrupt": 1}
    assert next(iter(table(found, "failures", "The worst 2 of 2"))) == "x.jpg"


def test_the_packed_columns_hold_every_row(tmp_path: Path) -> None:
    rows = [
        face(
            "without_mask" if i % 3 else "with_mask",
            0.6,
            face=i,
            camera=f"cam {i % 2}",
            captured_at=MONDAY + dt.timedelta(hours=i % 5),
        )
        for i in range(40)
    ]
    html = make_report(write_result(tmp_path, rows))
    match = re.search(r'id="columns">([^<]*)<', html)
    layout = json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])["layout"]  # type: ignore[index]
    assert match is not None
    data = gzip.decompress(base64.b64decode(match[1]))
    kinds = {"Int32Array": "<i4", "Uint32Array": "<u4", "Float32Array": "<f4", "Uint16Array": "<u2", "Uint8Array": "u1"}
    columns, at = {}, 0
    for name, (kind, count) in layout.items():
        columns[name] = np.frombuffer(data, kinds[kind], count, at)
        assert at % columns[name].itemsize == 0, "a typed array must begin at a multiple of its size"
        at += columns[name].nbytes
    assert at == len(data)
    assert columns["cell_count"].sum() == 40
    assert np.bincount(columns["label"]).tolist()[:2] == [14, 26]
    assert set(columns["confidence"]) == {round(0.6 * STEPS)}


def test_names_are_data(tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=alert(1)>&\u2028.mp4"
    inputs = [{"source": evil, "status": "error", "error": "corrupt", "message": "<b>|x"}]
    result = write_result(tmp_path, [face(source=evil, camera="<i>cam|1</i>")], inputs)
    html = make_report(result)
    assert "<img" not in html
    assert "<i>" not in html
    assert html.count("</script>") == 4, "data, columns and two scripts"
    markdown = make_report(result, "md")
    assert "<img" not in markdown
    assert "cam\\|1" in markdown


def test_the_policy_allows_nothing_but_what_is_inside(tmp_path: Path) -> None:
    html = make_report(write_result(tmp_path, [face()]))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert "unsafe" not in policy[1]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html), "nothing is fetched"
    assert " style=" not in html


def test_public_reports_tell_no_small_group_apart(tmp_path: Path) -> None:
    rows = [face(face=i) for i in range(6)] + [face(face=9, captured_at=MONDAY + dt.timedelta(hours=3))]
    rows += [face(face=20 + i, camera="lone", captured_at=MONDAY) for i in range(2)]
    inputs = [{"source": "secret/a.mp4", "status": "error", "error": "corrupt"}]
    result = write_result(tmp_path, rows, inputs)
    people, left_out = for_public(read_people(ResultReader(result)))
    assert left_out == 3, "one of the gate at eleven, two of the lone camera"
    assert people.cell_count.tolist() == [6]
    for form in ("html", "md", "json"):
        text = make_report(result, form, ReportOptions(public=True))  # type: ignore[arg-type]
        assert "secret" not in text
        assert "a.mp4" not in text


@pytest.mark.parametrize("kind", ["empty", "images", "unknown clocks", "two labels", "a thousand cameras"])
def test_every_kind_of_result_has_a_report(tmp_path: Path, kind: str) -> None:
    rows = {
        "empty": [],
        "images": [face(media="image", source="a.jpg", captured_at=None, time_s=None, frame=None, camera=None)],
        "unknown clocks": [face(captured_at=None, track=i, face=i) for i in range(3)],
        "a thousand cameras": [face(camera=f"cam {i}", source=f"{i}.mp4", track=0) for i in range(1000)],
    }
    result = two_label_result(tmp_path) if kind == "two labels" else write_result(tmp_path, rows[kind], [])
    for form in ("html", "md", "json"):
        assert make_report(result, form)  # type: ignore[arg-type]
    found = report(result)
    if kind == "empty":
        assert found["sections"]["answer"]["sentences"] == ["No face was found in the inputs that could be read."]
    if kind == "two labels":
        assert found["sections"]["answer"]["values"]["label"] == "helmet"
    if kind == "a thousand cameras":
        assert list(table(found, "compliance", "By camera"))[:3] == ["cam 0", "cam 1", "cam 2"]


def test_a_partitioned_result_has_the_same_report(tmp_path: Path) -> None:
    from maskbatch.results.dataset import Dataset
    from maskbatch.results.merge import with_run_metadata
    from maskbatch.results.schema import RESULTS
    from maskbatch.storage.local import LocalStore

    rows = [face(face=i, camera=f"cam {i % 3}", source=f"cam {i % 3}.mp4") for i in range(9)]
    single = report(write_result(tmp_path, rows))
    schema = with_run_metadata(RESULTS, {"tool": "maskbatch test"})
    with Dataset(LocalStore(tmp_path), "parts/").writing(schema, "abc") as writer:
        writer.add(ResultReader(tmp_path / "results.parquet").read().cast(schema))
        writer.close()
    parted = report(tmp_path / "parts")
    assert parted["sections"]["compliance"] == single["sections"]["compliance"]


def test_the_command_writes_a_file_or_prints(tmp_path: Path) -> None:
    result = write_result(tmp_path, [face()])
    run = CliRunner().invoke(build_app(), ["report", str(result)])
    assert run.exit_code == 0, run.output
    assert (tmp_path / "results.html").read_text().startswith("<!doctype html>")
    printed = CliRunner().invoke(build_app(), ["report", str(result), "--format", "md"])
    assert printed.stdout.startswith("# Face masks")
    with pytest.raises(UsageError, match="no such result"):
        make_report(tmp_path / "nothing.parquet")


def test_faces_are_shown_only_if_asked_for_and_redaction_covers_the_eyes(tmp_path: Path, face_photo: Any) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), face_photo)
    box = {"x1": 165.0, "y1": 60.0, "x2": 285.0, "y2": 210.0}
    eyes = [200.0, 118.0, 246.0, 116.0, 224.0, 145.0, 205.0, 168.0, 244.0, 167.0]
    row = face(source="a.png", media="image", time_s=None, frame=None, landmarks=eyes, **box)
    result = write_result(tmp_path, [row, face(source="gone.png", media="image", **box)])
    (tmp_path / "results.run.json").write_text(json.dumps({"roots": {"x": str(tmp_path)}}))
    assert "<img" not in make_report(result)
    shown = []
    for redact in (False, True):
        html = make_report(result, options=ReportOptions(faces=2, redact=redact))
        picture = re.search(r'src="data:image/jpeg;base64,([^"]*)"', html)
        assert picture is not None
        shown.append(cv2.imdecode(np.frombuffer(base64.b64decode(picture[1]), np.uint8), cv2.IMREAD_GRAYSCALE))
        assert "3 of the chosen faces cannot be shown" in html
        assert ("mitigation, not anonymity" in html) is redact
    beside = make_report(result, options=ReportOptions(faces=1), beside=tmp_path)
    assert '<a href="a.png">' in beside
    assert "<a href" not in make_report(result, options=ReportOptions(faces=1), beside=tmp_path / "elsewhere")
    assert 'href="a.png"' not in make_report(result, options=ReportOptions(faces=1, redact=True), beside=tmp_path)
    height = shown[1].shape[0]
    eye_line = shown[1][round(height * 0.385), round(shown[1].shape[1] * 0.2) : round(shown[1].shape[1] * 0.75)]
    assert eye_line.max() < 30
    assert shown[1][round(height * 0.6) :].mean() > 60, "nose and mouth stay judgeable"
    with pytest.raises(UsageError, match="--public"):
        make_report(result, options=ReportOptions(public=True, faces=1))


def test_faces_of_a_video_come_from_their_own_frame_and_are_linked_at_their_second(tmp_path: Path) -> None:
    import cv2

    write_video(tmp_path / "a clip.mp4", frames=40, rate=10)
    rows = [face(source="a clip.mp4", media="video", time_s=2.5, frame=25, x1=0.0, y1=0.0, x2=160.0, y2=120.0)]
    result = write_result(tmp_path, rows)
    (tmp_path / "results.run.json").write_text(json.dumps({"roots": {"x": str(tmp_path)}}))
    html = make_report(result, options=ReportOptions(faces=1), beside=tmp_path)
    assert '<a href="a%20clip.mp4#t=2.50">' in html
    picture = re.search(r'src="data:image/jpeg;base64,([^"]*)"', html)
    assert picture is not None
    assert picture[1]
    assert number_in(Originals({"roots": {"x": str(tmp_path)}}).frame("a clip.mp4", 25)) == 25
    assert cv2.imdecode(np.frombuffer(base64.b64decode(picture[1]), np.uint8), cv2.IMREAD_COLOR).shape[:2] == (120, 160)
