"""Odd, broken and hostile files: no crash, no hang, each file one row with a status and a message that a person understands."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from durability_kit import CONFIG, OPTIONS, face_picture, input_rows, inputs_in, run, write_jpeg, write_video

SEED = 20261122
TRACES = ("Traceback", "0x7f", "NoneType", "errno")


def check_rows(rows: list[dict[str, object]]) -> None:
    """Each row is in order, and what it says is for a person."""
    assert len({row["source"] for row in rows}) == len(rows)
    for row in rows:
        message = str(row["message"] or "")
        if row["status"] == "ok":
            assert row["error"] is None, row
            assert row["width"], row
        else:
            assert row["error"], row
            assert len(message) >= 10, row
        assert row["error"] not in ("crashed", "hung", "out_of_memory", "internal"), row
        assert not any(trace in message for trace in TRACES), row
        assert message.isprintable(), row


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_media_corpus_through_the_command_line(shared_dir: Path, tmp_path: Path) -> None:
    corpus = shared_dir / "data" / "media_corpus"
    out = tmp_path / "results.parquet"
    arguments = [sys.executable, "-m", "maskbatch", "scan", str(corpus), "--out", str(out), *OPTIONS, "--keyframes"]
    arguments.remove("--all")
    process = subprocess.Popen(
        [*arguments, "--timeout", "120"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    peak = 0
    while True:
        try:
            _, stderr = process.communicate(timeout=0.2)
            break
        except subprocess.TimeoutExpired:
            for worker in psutil.Process(process.pid).children(recursive=True):
                try:
                    peak = max(peak, worker.memory_info().rss)
                except psutil.Error:
                    continue
    assert process.returncode == 3, stderr
    assert "Traceback" not in stderr
    rows = input_rows(out)
    check_rows(rows)
    counts = {status: sum(row["status"] == status for row in rows) for status in ("ok", "partial", "error")}
    print(f"{len(rows)} inputs: {counts}; largest worker {peak >> 20} MB")
    assert len(rows) > 400
    assert counts["ok"] > 100
    assert peak < 2 << 30


def variants(data: bytes, chance: random.Random) -> dict[str, bytes]:
    """What bad disks and lost connections make of a file."""
    flipped, holed = bytearray(data), bytearray(data)
    for _ in range(12):
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    start = chance.randrange(len(data) // 2)
    holed[start : start + len(data) // 4] = bytes(len(data) // 4)
    return {
        "flipped": bytes(flipped),
        "holed": bytes(holed),
        "cut": data[: chance.randrange(len(data))],
        "head": data[:40],
        "tail": data[len(data) // 2 :],
        "twice": data + data,
        "empty": b"",
        "noise": chance.randbytes(len(data)),
    }


def test_damaged_variants_are_rows(face_photo: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    import cv2

    chance = random.Random(SEED)
    whole, folder = tmp_path / "whole", tmp_path / "in"
    folder.mkdir()
    picture = face_picture(face_photo, 3)
    write_jpeg(whole / "a.jpg", picture)
    for ending in ("png", "webp", "bmp", "tiff", "ppm"):
        cv2.imwrite(str(whole / f"a.{ending}"), picture)
    for ending in ("mp4", "mkv", "avi"):
        write_video(whole / f"v.{ending}", face_photo, 1.0)
    for path in whole.iterdir():
        for name, data in variants(path.read_bytes(), chance).items():
            (folder / f"{name}-{path.name}").write_bytes(data)
    for number, path in enumerate(sorted(whole.iterdir())):  # right content under a wrong name
        others = sorted(whole.iterdir())
        shutil.copy(path, folder / f"mislabelled{number}{others[(number + 4) % len(others)].suffix}")
    out = tmp_path / "results.parquet"
    summary = run(folder, out)
    rows = input_rows(out)
    check_rows(rows)
    assert summary.inputs == inputs_in(folder) >= 80
    named = {str(row["source"]): row for row in rows}
    assert {named[name]["error"] for name in named if name.startswith("empty-")} == {"empty"}
    assert all(named[name]["status"] == "error" for name in named if name.startswith(("noise-", "head-")))
    assert summary.status["ok"] >= 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_damaged_files_in_workers(face_photo: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    """The same at random with other seeds, in isolated workers: even a decoder's crash would be a row."""
    chance = random.Random(SEED + 1)
    whole, folder = tmp_path / "whole", tmp_path / "in"
    folder.mkdir()
    write_jpeg(whole / "a.jpg", face_picture(face_photo, 3))
    write_video(whole / "v.mp4", face_photo, 1.0)
    for round_ in range(63):
        for path in whole.iterdir():
            for name, data in variants(path.read_bytes(), chance).items():
                (folder / f"{round_:03d}-{name}-{path.name}").write_bytes(data)
    config = replace(CONFIG, execution=replace(CONFIG.execution, executor="processes", workers=2, unit_images=64))
    summary = run(folder, tmp_path / "results.parquet", config)
    check_rows(input_rows(tmp_path / "results.parquet"))
    print(f"{summary.inputs} damaged files: {summary.status}")
    assert summary.inputs == 1008
