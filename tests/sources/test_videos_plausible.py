"""A result that cannot be right is `partial` with a remark, never `ok` in silence: durations, counts and times."""

from __future__ import annotations

import datetime as dt
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video_makers import write_video

import maskbatch
from maskbatch.sources.videos.clock import out_of_proportion

MS = Fraction(1, 1000)


def scanned(path: Path, **options: Any) -> dict[str, Any]:
    out = path.with_name("r.parquet")
    settings = {"executor": "inline", "device": "cpu", "det_size": 160, "overwrite": True, **options}
    maskbatch.scan([path], out, **settings)
    row: dict[str, Any] = maskbatch.read_inputs(out).iloc[0].to_dict()
    return row


def total(row: dict[str, Any]) -> int:
    return int(row["frames_read"] + row["frames_skipped"] + row["frames_failed"])


def with_stamps(path: Path, pts: list[int]) -> Path:
    return write_video(path, len(pts), codec="mjpeg", pix_fmt="yuvj420p", pts=pts, time_base=MS)


@pytest.mark.parametrize(
    ("pts", "words"),
    [
        ([i * 40 for i in range(49)] + [26 * 3_600_000], "frames at their usual distance make 0:00:02"),
        ([i * 3_600_000 for i in range(50)], "seconds for each of its 50 frames"),
    ],
)
def test_a_recording_that_lasts_too_long_for_its_frames_is_partial(tmp_path: Path, pts: list[int], words: str) -> None:
    row = scanned(with_stamps(tmp_path / "cam.mkv", pts))
    assert (row["status"], total(row)) == ("partial", 50)
    assert words in row["message"]
    assert "cannot be right" in row["message"]


@pytest.mark.parametrize(
    "pts",
    [
        [i * 40 for i in range(50)],
        [i * 40 for i in range(25)] + [1_800_000 + i * 40 for i in range(25)],  # half an hour's pause
        [i * 60_000 for i in range(61)],  # one a minute, for an hour
    ],
)
def test_pauses_and_slow_cameras_are_left_in_peace(tmp_path: Path, pts: list[int]) -> None:
    row = scanned(with_stamps(tmp_path / "cam.mkv", pts))
    assert (row["status"], row["message"]) == ("ok", row["message"])
    assert "cannot be right" not in str(row["message"])


def test_a_day_of_recording_on_motion_is_left_in_peace() -> None:
    starts = np.arange(24 * 4) * 900_000
    times = (starts[:, None] + np.arange(125) * 40).ravel().astype(np.int64)
    assert out_of_proportion(times, 40, MS, 10_000_000) is None


def test_a_recording_too_short_for_its_frames_or_bytes_is_partial(tmp_path: Path) -> None:
    path = tmp_path / "cam.mp4"
    write_video(path, 102, codec="mpeg4", pts=list(range(102)), time_base=Fraction(1, 60_000))
    row = scanned(path)
    assert (row["status"], total(row)) == ("partial", 102)
    assert "too short for 102 frames" in row["message"]
    steady = np.arange(25, dtype=np.int64) * 40
    assert out_of_proportion(steady, 40, MS, 1_000_000_000) is None
    assert out_of_proportion(steady, 40, MS, 3_000_000_000) is not None


def test_frames_that_the_decoder_keeps_silent_about_are_counted_as_failed(tmp_path: Path) -> None:
    write_video(tmp_path / "cam.avi", 2, codec="mpeg4")
    with av.open(str(tmp_path / "cam.avi")) as container:
        real = [bytes(packet) for packet in container.demux() if packet.size]
    # Frames "not coded" (ISO/IEC 14496-2, vop_coded 0): FFmpeg gives out nothing for them, and no error.
    silent = b"\x00\x00\x01\xb6\x50\xdf"
    (tmp_path / "cam.m4v").write_bytes(b"".join(real) + silent * 100)
    with av.open(str(tmp_path / "cam.m4v"), format="m4v") as container:
        packets = sum(packet.size > 0 for packet in container.demux())
    row = scanned(tmp_path / "cam.m4v", mode="all")
    assert (packets, total(row), row["status"]) == (102, 102, "partial")
    assert row["frames_read"] <= 3
    assert "frames for the 102 of the file" in row["message"]


@pytest.mark.parametrize("how", ["start_time", "manifest"])
def test_a_start_after_today_is_partial(tmp_path: Path, how: str) -> None:
    path = write_video(tmp_path / "cam.mp4", 30, codec="mpeg4")
    options: dict[str, Any] = {"start_time": "2078-05-24T04:00:00"}
    if how == "manifest":
        (tmp_path / "cameras.csv").write_text("path,start_time\ncam.mp4,2078-05-24T04:00:00\n")
        options = {"manifest": tmp_path / "cameras.csv"}
    row = scanned(path, **options)
    assert row["status"] == "partial"
    assert "begin 2078-05-24 04:00 UTC, after today" in row["message"]


def test_a_recording_that_would_go_on_until_after_today_is_partial(tmp_path: Path) -> None:
    start = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    path = with_stamps(tmp_path / "cam.mkv", [i * 40 for i in range(49)] + [80 * 3_600_000])
    row = scanned(path, start_time=start.isoformat())
    assert row["status"] == "partial"
    assert "go on until" in row["message"]
    whole = scanned(write_video(tmp_path / "whole.mp4", 30, codec="mpeg4"), start_time=start.isoformat())
    assert whole["status"] == "ok"
