"""A folder that a recorder fills, watched: every sampled frame of every finished file, once, also over an interruption."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import live_kit
import onnx_maker
import pytest

import maskbatch
from maskbatch.config import ModelSettings, Sampling
from maskbatch.live.options import WatchOptions
from maskbatch.live.watch import Watch
from maskbatch.results.reader import ResultReader
from maskbatch.sources.live.cameras import cameras_of
from maskbatch.sources.videos.frames import FrameConverter

NAMES = ("frame", "face", "time_s", "captured_at", "x1", "y1", "x2", "y2", "score", "label", "p_with_mask", "sharpness")


@pytest.fixture
def models(red_model: Path, tmp_path: Path) -> ModelSettings:
    classifier = tmp_path / "exact.onnx"
    classifier.write_bytes(onnx_maker.share_classifier(("with_mask", "without_mask", "mask_weared_incorrect")))
    return ModelSettings(f"red:{red_model}", str(classifier), det_size=320)


def started(folder: Path, out: str, models: ModelSettings) -> tuple[Watch, threading.Event, threading.Thread]:
    options = WatchOptions(
        models=models, sampling=Sampling(every_s=0.25), device="cpu", out=out, commit_s=0.3, settle_s=0.3
    )
    watch, stop = Watch(cameras_of([f"gate={folder}"]), options), threading.Event()
    thread = threading.Thread(target=watch.run, args=(stop,))
    thread.start()
    return watch, stop, thread


def inputs(out: str) -> list[dict[str, Any]]:
    return list(ResultReader(out).inputs().to_pylist())


def test_a_watched_folder_has_the_rows_of_a_scan_also_over_interruptions(models: ModelSettings, tmp_path: Path) -> None:
    folder, out = tmp_path / "recorder", f"{tmp_path}/live/"
    folder.mkdir()
    live_kit.write_clip(folder / "gate_20260301_080000.mp4", 400)
    watch, stop, thread = started(folder, out, models)
    live_kit.wait_for(lambda: watch.view().cameras[0].samples > 10)
    stop.set()  # in the middle of the first file
    thread.join()
    (first,) = inputs(out)
    assert 10 < first["frames_read"] < 200
    watch, stop, thread = started(folder, out, models)
    try:
        data = live_kit.write_clip(tmp_path / "next.mp4", 32).read_bytes()
        half = folder / "gate_20260301_090000.mp4"
        half.write_bytes(data[: len(data) // 2])
        shutil.copy(tmp_path / "next.mp4", folder / "hidden.part")
        (folder / "hidden.part").rename(folder / "gate_20260301_100000.mp4")
        (folder / "broken.mp4").write_bytes(b"no video" * 100)
        live_kit.wait_for(lambda: sum("ended: the file ended" in str(row["message"]) for row in inputs(out)) == 2, 30)
        assert not any("090000" in row["source"] for row in inputs(out)), "half a file is no recording"
        half.write_bytes(data)
        live_kit.wait_for(lambda: sum("ended: the file ended" in str(row["message"]) for row in inputs(out)) == 3, 30)
    finally:
        stop.set()
        thread.join()
    watch, stop, thread = started(folder, out, models)  # finds nothing to do
    live_kit.wait_for(lambda: watch.view().cameras[0].state == "live")
    stop.wait(1.0)
    stop.set()
    thread.join()
    assert watch.view().cameras[0].samples == 0
    (folder / "broken.mp4").unlink()
    maskbatch.scan(
        [folder], tmp_path / "scan.parquet", detector=models.detector, classifier=models.classifier, det_size=320,
        every_s=0.25, workers=1, executor="inline", device="cpu",
    )  # fmt: skip
    for name in ("080000", "090000", "100000"):
        found, expected = (
            [
                {n: row[n] for n in NAMES}
                for row in sorted(ResultReader(path).read().to_pylist(), key=lambda r: (r["frame"], r["face"]))
                if name in row["source"]
            ]
            for path in (out, tmp_path / "scan.parquet")
        )
        assert found == expected
    assert sum(row["frames_read"] for row in inputs(out) if "080000" in row["source"]) == 200
    assert [row["source"] for row in inputs(out) if "080000" in row["source"]] == [
        "gate/gate_20260301_080000.mp4",
        "gate/gate_20260301_080000.mp4~2",
    ]


def test_a_frame_that_converts_only_reduced_is_told_and_its_faces_stay(
    models: ModelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(FrameConverter, "full", fails)
    folder, out = tmp_path / "recorder", f"{tmp_path}/live/"
    folder.mkdir()
    live_kit.write_clip(folder / "large.mp4", picture=lambda number: live_kit.walking(number).repeat(2, 0).repeat(2, 1))
    watch, stop, thread = started(folder, out, models)
    try:
        live_kit.wait_for(lambda: watch.view().cameras[0].samples > 0)
        live_kit.wait_for(lambda: any("ended: the file ended" in str(row["message"]) for row in inputs(out)), 30)
    finally:
        stop.set()
        thread.join()
    (row,) = inputs(out)
    assert (row["status"], row["error"]) == ("partial", "out_of_memory")
    assert "not enough memory for decoding" in row["message"]
    assert row["faces"] == len(ResultReader(out).read()) > 0
