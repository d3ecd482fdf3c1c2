"""A result that is kept current: files count when they are finished, and each merge replaces the result in one step."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import live_kit
import onnx_maker
import pytest
import red_squares

import maskbatch
from maskbatch.errors import UsageError
from maskbatch.results.reader import ResultReader
from maskbatch.scanning.follow import follow_folders
from maskbatch.sources.discovery.discover import discover
from maskbatch.sources.live.rest import Rest, is_complete


@pytest.fixture
def settings(red_model: Path, tmp_path: Path) -> dict[str, Any]:
    classifier = tmp_path / "exact.onnx"
    classifier.write_bytes(onnx_maker.share_classifier(("with_mask", "without_mask", "mask_weared_incorrect")))
    return {
        "detector": f"red:{red_model}",
        "classifier": str(classifier),
        "det_size": 320,
        "workers": 1,
        "executor": "inline",
        "device": "cpu",
    }


def sources(folder: Path) -> list[Any]:
    return list(discover([folder]).sources)


def test_a_file_counts_when_it_stood_still_and_its_container_is_whole(tmp_path: Path) -> None:
    now = [0.0]
    rest = Rest(5, 100, lambda: now[0])
    clip = live_kit.write_clip(tmp_path / "whole.mp4", 16)
    data = clip.read_bytes()
    (tmp_path / "partial.mp4").write_bytes(data[:-300])
    assert rest.look(sources(tmp_path)) == {}
    now[0] = 6
    assert set(rest.look(sources(tmp_path))) == {"whole.mp4"}
    with (tmp_path / "growing.mp4").open("wb") as file:
        for step in range(4):  # a slow writer: it is never at rest for long enough
            file.write(data[step * len(data) // 4 : (step + 1) * len(data) // 4])
            file.flush()
            now[0] += 4
            assert "growing.mp4" not in rest.look(sources(tmp_path))
    now[0] += 5
    assert "growing.mp4" in rest.look(sources(tmp_path))
    (tmp_path / "segment.mp4.part").write_bytes(data)
    (tmp_path / "segment.mp4.part").rename(tmp_path / "segment.mp4")
    rest.look(sources(tmp_path))
    now[0] += 5
    assert "segment.mp4" in rest.look(sources(tmp_path))
    assert "partial.mp4" not in rest.look(sources(tmp_path))
    now[0] = 200
    assert "partial.mp4" in rest.look(sources(tmp_path)), "it will not be completed any more"
    whole = rest.look(sources(tmp_path))["whole.mp4"]
    shutil.copy(tmp_path / "growing.mp4", tmp_path / "whole.mp4")
    assert rest.look(sources(tmp_path)).get("whole.mp4") != whole


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_picture_is_whole_when_its_end_is_there(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert cv2.imwrite(str(path), red_squares.picture([(2, 2, "blue")]))
    assert is_complete(sources(tmp_path)[0])
    path.write_bytes(path.read_bytes()[:-20])
    assert not is_complete(sources(tmp_path)[0])


def test_files_that_arrive_end_in_the_same_rows_as_one_scan(settings: dict[str, Any], tmp_path: Path) -> None:
    folder, out = tmp_path / "recorder", tmp_path / "live.parquet"
    folder.mkdir()
    stop = threading.Event()
    passes: list[Any] = []

    def run() -> None:
        passes.extend(follow_folders([folder], out, stop, settle_s=0.3, **settings))

    thread = threading.Thread(target=run)
    thread.start()
    clip = live_kit.write_clip(tmp_path / "clip.mp4", 16)
    data = clip.read_bytes()
    shown: list[int] = []

    def inputs() -> int:
        if out.with_suffix(".inputs.parquet").exists():
            shown.append(len(ResultReader(out).read()))  # every state that can be read is a whole result
            return len(ResultReader(out).inputs())
        return 0

    try:
        shutil.copy(clip, folder / "gate_20260301_080000.mp4")
        live_kit.wait_for(lambda: inputs() == 1)
        with (folder / "gate_20260301_090000.mp4").open("wb") as file:
            for begin in range(0, len(data), len(data) // 5):
                file.write(data[begin : begin + len(data) // 5])
                file.flush()
                time.sleep(0.15)
                assert inputs() == 1, "half a file is no input"
        live_kit.wait_for(lambda: inputs() == 2)
        cv2.imwrite(str(folder / "gate_2026-03-01_10-00-00.png"), red_squares.picture([(1, 1, "green")]))
        live_kit.wait_for(lambda: inputs() == 3)
    finally:
        stop.set()
        thread.join()
    maskbatch.scan([folder], tmp_path / "once.parquet", **settings)
    assert out.read_bytes() == (tmp_path / "once.parquet").read_bytes()
    assert shown == sorted(shown)
    assert [summary.inputs for summary in passes] == [1, 2, 3]
    assert sum(summary.pieces for summary in passes) == 3, "nothing was done twice"


def test_the_command_follows_until_it_is_told_to_stop(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "recorder"
    folder.mkdir()
    live_kit.write_clip(folder / "gate_20260301_080000.mp4", 8)
    process = live_kit.command(
        "scan", str(folder), "--out", str(tmp_path / "r.parquet"), "--watch", "--settle", "200ms",
        "--detector", settings["detector"], "--classifier", settings["classifier"], "--det-size", "320",
        "--device", "cpu", "--executor", "inline",
    )  # fmt: skip
    live_kit.wait_for((tmp_path / "r.run.json").exists, 40)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    told, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors
    assert "1 inputs, 1 new" in told


def test_standard_input_cannot_be_followed() -> None:
    with pytest.raises(UsageError, match="standard input"):
        next(follow_folders(["-"], "x.parquet", threading.Event()))
