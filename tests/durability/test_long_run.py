"""An archive of 20,000 small pictures and a two-hour video, end to end, while the memory of every process is watched."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from durability_kit import face_picture, input_rows, write_jpeg, write_video

PICTURES = 20_000
VIDEO_S = 7200
MEMORY_LIMIT_MB = 1200


def make_large_archive(folder: Path, photo: npt.NDArray[np.uint8]) -> None:
    """Forty different pictures, linked under many names (each name is an input), and a video at five frames a second."""
    for number in range(40):
        write_jpeg(folder / "originals" / f"{number:02d}.jpg", face_picture(photo, number))
    for number in range(PICTURES - 40):
        target = folder / f"day{number // 1000:02d}" / f"{number:05d}.jpg"
        target.parent.mkdir(exist_ok=True)
        os.link(folder / "originals" / f"{number % 40:02d}.jpg", target)
    write_video(folder / "two-hours.mp4", photo, VIDEO_S, rate=5)


def resident_mb(process: psutil.Process) -> dict[int, float]:
    """Resident memory of a process and its workers, by process id."""
    found = {}
    for member in [process, *process.children(recursive=True)]:
        try:
            found[member.pid] = member.memory_info().rss / 2**20
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_thousand_pictures_and_two_hours_of_video(face_photo: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "results.parquet"
    make_large_archive(folder, face_photo)
    arguments = [sys.executable, "-m", "maskbatch", "scan", str(folder), "--out", str(out), "--det-size", "160"]
    arguments += ["--min-score", "0.4", "--every", "2s", "--device", "cpu", "--max-memory", str(MEMORY_LIMIT_MB)]
    started = time.monotonic()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*arguments, "--progress", "jsonl"], stdout=log, stderr=log)
    samples: list[dict[int, float]] = []
    while process.poll() is None:
        try:
            samples.append(resident_mb(psutil.Process(process.pid)))
        except psutil.Error:
            break
        time.sleep(0.5)
    wall_s = time.monotonic() - started
    assert process.wait() == 0, (tmp_path / "log").read_text()[-2000:]
    rows = input_rows(out)
    assert len(rows) == PICTURES + 1
    assert all(row["status"] == "ok" for row in rows)
    (video,) = [row for row in rows if row["media"] == "video"]
    assert video["frames_read"] == VIDEO_S // 2
    peak = {pid: max(sample.get(pid, 0.0) for sample in samples) for sample in samples for pid in sample}
    assert max(peak.values()) < MEMORY_LIMIT_MB
    assert "a worker was lost" not in (tmp_path / "log").read_text()
    # Flat: the second half of the run needs no more than the first, but for a tenth.
    workers = [
        pid for pid in peak if pid != process.pid and sum(pid in sample for sample in samples) > len(samples) // 2
    ]
    assert workers
    middle = len(samples) // 2
    for pid in workers:
        first = max(sample.get(pid, 0.0) for sample in samples[:middle])
        second = max(sample.get(pid, 0.0) for sample in samples[middle:])
        assert second < first * 1.1 + 30, (first, second)
    faces = sum(row["faces"] for row in rows)
    print(
        f"{wall_s:.0f} s, {faces} faces; MB at most: parent {peak[process.pid]:.0f}, workers {max(peak[p] for p in workers):.0f}"
    )
