"""The data set that grows: what the manifest names is the result, whatever happens between two commits."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest

from maskbatch.errors import OutputError
from maskbatch.live import rolling
from maskbatch.live.rolling import Identity, RollingResult
from maskbatch.results.paths import OutputPaths
from maskbatch.results.reader import ResultReader
from maskbatch.results.schema import RESULTS
from maskbatch.tasks import MASK
from maskbatch.types import PieceResult

IDENTITY = Identity({"sampling.every_s": 1.0}, {"m": "0" * 64}, "CPUExecutionProvider")
BEGIN = dt.datetime(2026, 11, 27, 23, 59, 50, tzinfo=dt.UTC)


SMALL_FILES = 6


@pytest.fixture(autouse=True)
def few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "SMALL_FILES", SMALL_FILES)


def rows(number: int, camera: str = "gate") -> pa.Table:
    """Two faces of second `number`."""
    table = {name: [None, None] for name in RESULTS.names}
    table |= {
        "source": [f"{camera}/s"] * 2, "camera": [camera] * 2, "media": ["video"] * 2, "frame": [number] * 2,
        "time_s": [float(number)] * 2, "captured_at": [BEGIN + dt.timedelta(seconds=number)] * 2, "face": [0, 1],
        "label": ["with_mask"] * 2,
    }  # fmt: skip
    for name in RESULTS.names:
        if not RESULTS.field(name).nullable and table[name][0] is None:
            table[name] = [0.5, 0.5]
    return pa.table({n: pa.array(table[n], RESULTS.field(n).type) for n in RESULTS.names}, schema=RESULTS)


def opened(folder: Path) -> RollingResult:
    return RollingResult(OutputPaths.of(f"{folder}/live/"), MASK, IDENTITY)


def commit(result: RollingResult, number: int, at: float | None = None, *, closed: bool = False) -> None:
    state = [PieceResult("gate/s", "live", frames_read=number, faces=2 * number)]
    result.commit(rows(number), state, cameras={"gate": "rtsp://h/1"}, at=number if at is None else at, closed=closed)


def frames(folder: Path) -> list[int]:
    return [int(frame) for frame in ResultReader(folder / "live").read()["frame"].to_pylist()[::2]]


def test_rows_add_up_over_commits_days_and_small_files_that_are_joined(tmp_path: Path) -> None:
    result = opened(tmp_path)
    result.commit(None, [], cameras={}, at=0.0)
    assert frames(tmp_path) == []
    count = 3 * SMALL_FILES
    for number in range(count):
        commit(result, number)
        assert frames(tmp_path) == list(range(number + 1))
    folders = sorted(path.name for path in (tmp_path / "live" / "camera=gate").iterdir())
    assert folders == ["date=2026-11-27", "date=2026-11-28"]
    named = [entry["path"] for entry in result._files if "camera=gate" in entry["path"]]
    assert len(named) < 2 * SMALL_FILES
    assert result.rows == 2 * count
    assert [row["frames_read"] for row in ResultReader(tmp_path / "live").inputs().to_pylist()] == [count - 1]


def test_files_that_were_joined_stay_for_their_readers_and_go_later(tmp_path: Path) -> None:
    result = opened(tmp_path)
    for number in range(SMALL_FILES - 1):
        commit(result, number, 0.0)
    reader = ResultReader(tmp_path / "live")
    assert len(reader._files) >= SMALL_FILES - 1
    commit(result, SMALL_FILES - 1, 1.0)
    assert len(reader.read()) == 2 * (SMALL_FILES - 1), "who began to read before the files were joined"
    on_disk = len(list(tmp_path.rglob("camera=gate/*/*.parquet")))
    assert on_disk == SMALL_FILES + 1
    commit(result, SMALL_FILES, 700.0)
    assert len(list(tmp_path.rglob("camera=gate/*/*.parquet"))) == 2
    assert frames(tmp_path) == list(range(SMALL_FILES + 1))


def test_a_commit_that_fails_leaves_the_result_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = opened(tmp_path)
    commit(result, 0)
    before = result._store.write

    def full(name: str, data: bytes) -> None:
        if "manifest" in name:
            raise OutputError("the disk is full")
        before(name, data)

    with monkeypatch.context() as patched:
        patched.setattr(result._store, "write", full)
        with pytest.raises(OutputError):
            commit(result, 1)
    assert frames(tmp_path) == [0]
    commit(result, 1)
    assert frames(tmp_path) == [0, 1]
    again = opened(tmp_path)
    assert again.resumed == (1.0, False)
    assert again.open_cameras == ["gate"]
    commit(again, 2, closed=True)
    assert opened(tmp_path).resumed == (2.0, True)
    assert frames(tmp_path) == [0, 1, 2]
