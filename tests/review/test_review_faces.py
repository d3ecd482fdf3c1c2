"""Which faces the page shows, what decisions do, and what is refused: on real results, through the application itself."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from face_rows import result_row
from toy_scan import copy_result, toy_scan

import maskbatch
from maskbatch.draw.originals import Originals
from maskbatch.errors import UsageError
from maskbatch.results.correction_log import CorrectionLog
from maskbatch.results.reader import ResultReader
from maskbatch.results.schema import RESULTS
from maskbatch.review.app import Review, make_app
from maskbatch.review.faces import NO_DECISION, Decisions, FaceTable, read_faces
from maskbatch.review.images import Images
from maskbatch.review.query import Query, poster_group, select

DAY = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)


def faces_of(folder: Path, *rows: dict[str, Any]) -> FaceTable:
    path = folder / "results.parquet"
    pq.write_table(pa.Table.from_pylist(list(rows), schema=RESULTS), path)
    return read_faces(ResultReader(path))


def face(at: int, **values: Any) -> dict[str, Any]:
    box = dict(zip(("x1", "y1", "x2", "y2"), values.pop("box", (10, 10, 50, 60)), strict=True))
    label = values.pop("label", "with_mask")
    when = DAY + dt.timedelta(seconds=at)
    base = {"frame": at, "time_s": float(at), "captured_at": when, "camera": "gate"}
    return result_row(label, values.pop("confidence", 0.8), **(base | box | values))


class Client:
    """Asks the application as the page does."""

    def __init__(self, review: Review) -> None:
        self._app = make_app(review)

    def __call__(self, path: str, body: Any = None) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await (client.get(path) if body is None else client.post(path, json=body))

        return asyncio.run(ask())


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_scan(tmp_path_factory.mktemp("scan"))


@pytest.fixture
def result(scanned: Path, tmp_path: Path) -> Path:
    return copy_result(scanned.parent, tmp_path)


def opened(result: Path, **options: Any) -> tuple[Client, FaceTable]:
    reader = ResultReader(result)
    faces = read_faces(reader)
    review = Review(
        faces, Decisions(faces, reader.corrections_path), Images(faces, Originals(reader.run()), **options), "results"
    )
    return Client(review), faces


def test_filters_and_orders_choose_rows(tmp_path: Path) -> None:
    faces = faces_of(
        tmp_path,
        face(0, confidence=0.9),
        face(1, confidence=0.5, label="without_mask", camera="yard"),
        face(2, confidence=0.7, box=(0, 0, 100, 90), source="b.mp4"),
    )
    chosen = {
        "camera": Query(camera=faces.cameras.index("yard")),
        "label": Query(label=1),
        "confidence": Query(confidence=(0.0, 0.6)),
        "file": Query(source="B.MP"),
        "size": Query(size=(90, 1e9)),
        "time": Query(time=((DAY + dt.timedelta(seconds=2)).timestamp(), 1e12)),
    }
    assert {name: select(faces, query).tolist() for name, query in chosen.items()} == {
        "camera": [1],
        "label": [1],
        "confidence": [1],
        "file": [2],
        "size": [2],
        "time": [2],
    }
    assert select(faces, Query(queue="uncertain")).tolist() == [1, 2, 0]
    assert select(faces, Query(sort="-confidence")).tolist() == [0, 2, 1]
    assert sorted(select(faces, Query(queue="random")).tolist()) == [0, 1, 2]
    with pytest.raises(UsageError, match="no queue"):
        select(faces, Query(queue="x"))
    with pytest.raises(UsageError, match="sorted by"):
        select(faces, Query(sort="beauty"))


def test_disagreement_shows_whole_tracks_with_several_labels(tmp_path: Path) -> None:
    rows = [face(at, track=0, label="with_mask" if at else "without_mask") for at in range(3)]
    rows += [face(at, track=1, face=1) for at in range(3)]
    faces = faces_of(tmp_path, *sorted(rows, key=lambda row: (row["frame"], row["face"])))
    assert faces.track[select(faces, Query(queue="disagreement"))].tolist() == [0, 0, 0]
    assert len(select(faces, Query(row=1))) == 3


def test_what_hangs_on_a_wall_for_hours_is_a_suspected_poster(tmp_path: Path) -> None:
    rows = [face(900 * at, sharpness=50.0 + at % 3) for at in range(12)]
    rows += [face(900 * at + 5, face=1, box=(100 + 30 * at, 10, 140 + 30 * at, 60), sharpness=50.0) for at in range(12)]
    faces = faces_of(tmp_path, *rows)
    found = select(faces, Query(queue="posters"))
    assert sorted(found.tolist()) == list(range(12))
    assert sorted(poster_group(faces, int(found[0])).tolist()) == list(range(12))
    assert poster_group(faces, 15).tolist() == [15]


def test_a_million_faces_are_chosen_in_time(tmp_path: Path) -> None:
    import time

    rng = np.random.default_rng(0)
    small = faces_of(tmp_path, *(face(at) for at in range(10)))
    count = 1_000_000
    values = {
        name: np.resize(getattr(small, name), count)
        for name in FaceTable.__slots__
        if hasattr(getattr(small, name), "dtype") and name != "boxes"
    }
    boxes = rng.uniform(0, 500, (count, 4)).astype(np.float32)
    boxes[:, 2:] = boxes[:, :2] + 40
    large = FaceTable(
        small.task,
        small.sources,
        small.cameras,
        boxes=boxes,
        hashes={},
        **(values | {"confidence": rng.random(count, np.float32)}),
    )
    before = time.process_time()
    rows = select(large, Query(queue="uncertain", confidence=(0.2, 0.9), source="mp4"))
    assert time.process_time() - before < 2.0
    assert 600_000 < len(rows) < 800_000


def test_decision_is_on_the_disk_before_it_is_shown(result: Path) -> None:
    ask, faces = opened(result)
    answer = ask("/api/decide", {"rows": [0, 2], "action": "label", "label": 1}).json()
    assert answer["count"] == 2
    assert [row["decided"] for row in answer["rows"]] == [1, 1]
    log = CorrectionLog(result.with_name("results.corrections.csv")).read()
    assert [record.label for record in log] == ["without_mask"] * 2
    assert maskbatch.read_results(result, corrections=True)["corrected"].sum() == 2
    again, _ = opened(result)
    assert again("/api/about").json()["progress"]["decided"] == 2, "who comes back finds the decisions"
    assert len(faces) == 13


def test_undo_takes_back_the_last_decision_and_both_stay_in_the_log(result: Path) -> None:
    ask, _ = opened(result)
    ask("/api/decide", {"rows": [0], "action": "label", "label": 1})
    ask("/api/decide", {"rows": [0, 1], "action": "not_a_face"})
    assert ask("/api/undo", {}).json()["count"] == 2
    assert ask("/api/about").json()["progress"]["decided"] == 1
    assert ask("/api/undo", {}).json()["progress"]["decided"] == 0
    assert ask("/api/undo", {}).json()["count"] == 0
    assert len(CorrectionLog(result.with_name("results.corrections.csv")).read()) == 6


def test_second_person_at_the_same_face_wins_and_the_first_stays_in_the_log(result: Path) -> None:
    first, second = opened(result)[0], opened(result)[0]
    first("/api/decide", {"rows": [0], "action": "label", "label": 1})
    second("/api/decide", {"rows": [0], "action": "label", "label": 2})
    assert maskbatch.read_results(result, corrections=True)["label"].iloc[0] == "mask_weared_incorrect"
    assert len(CorrectionLog(result.with_name("results.corrections.csv")).read()) == 2


def test_full_disk_is_told_and_nothing_is_shown_as_decided(result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask, faces = opened(result)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    answer = ask("/api/decide", {"rows": [0], "action": "not_a_face"})
    assert (answer.status_code, "No space" in answer.json()["error"]) == (500, True)
    assert (faces.decided == NO_DECISION).all()


def test_frame_and_crop_show_the_exact_frame(result: Path) -> None:
    ask, faces = opened(result)
    row = int(np.flatnonzero(faces.video)[3])
    detail = ask(f"/api/face/{row}").json()
    assert (detail["width"], detail["height"], len(detail["neighbours"])) == (320, 192, 5)
    image = cv2.imdecode(np.frombuffer(ask(f"/frame/{row}.jpg").content, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(image[2 * 32 + 16, 4 * 32 + 16].astype(int) - (0, 0, 255)).max() < 20
    crop = cv2.imdecode(np.frombuffer(ask(f"/crop/{row}.jpg").content, np.uint8), cv2.IMREAD_COLOR)
    assert crop.shape[:2] == (144, 144)
    covered = opened(result, redact=True)[0](f"/frame/{row}.jpg").content
    hidden = cv2.imdecode(np.frombuffer(covered, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(hidden.astype(int) - image).max() > 60


def test_missed_face_is_drawn_and_read_back(result: Path) -> None:
    ask, _ = opened(result)
    assert ask("/api/draw", {"row": 0, "box": [200, 100, 250, 160], "label": 0}).status_code == 200
    assert ask("/api/face/0").json()["drawn"] == [{"box": [200, 100, 250, 160], "label": 0}]
    assert len(maskbatch.read_results(result, corrections=True)) == 14
    assert ask("/api/draw", {"row": 0, "box": [200, 100, 190, 160], "label": 0}).status_code == 400


def test_input_that_vanished_is_one_sentence(result: Path, tmp_path: Path) -> None:
    text = result.with_name("results.run.json").read_text()
    import json

    described = json.loads(text)
    described["roots"] = {name: str(tmp_path / "gone") for name in described["roots"]}
    result.with_name("results.run.json").write_text(json.dumps(described))
    ask, _ = opened(result)
    answer = ask("/crop/0.jpg")
    assert (answer.status_code, "not where the scan found it" in answer.json()["error"]) == (404, True)
    assert ask("/api/decide", {"rows": [0], "action": "not_a_face"}).status_code == 200, "and can still be decided"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/crop/13.jpg", None),
        ("/api/face/99999999999", None),
        ("/api/window?id=7&from=0&count=10", None),
        ("/api/select?camera=x", None),
        ("/api/decide", {"rows": [-1], "action": "label", "label": 0}),
        ("/api/decide", {"rows": [0], "action": "label", "label": 7}),
        ("/api/decide", {"rows": [0], "action": "missed", "label": 0}),
        ("/api/decide", {"rows": "abc", "action": "label", "label": 0}),
        ("/api/decide", [1]),
        ("/api/draw", {"row": 0}),
    ],
)
def test_requests_that_make_no_sense_are_refused(result: Path, path: str, body: Any) -> None:
    answer = opened(result)[0](path, body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert not result.with_name("results.corrections.csv").exists()


@pytest.mark.parametrize("path", ["/crop/../../etc/passwd", "/crop/0.png", "/static/review.js", "/frame/%2e%2e.jpg"])
def test_no_path_reaches_the_file_system(result: Path, path: str) -> None:
    assert opened(result)[0](path).status_code == 404
