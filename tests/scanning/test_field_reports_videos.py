"""The recordings of the field reports, each with the values that are right by a full demux; skipped where the folder of them is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pyarrow.parquet as pq
import pytest
from av.stream import Disposition

import maskbatch
from maskbatch.config import Limits, Sampling
from maskbatch.errors import InputError
from maskbatch.sources.discovery.discover import discover
from maskbatch.sources.videos.reader import VideoReader
from maskbatch.types import Piece, PieceResult, Source

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def videos(shared_dir: Path) -> Path:
    folder = shared_dir / "data" / "field_reports" / "videos"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    return folder


def scanned(path: Path, out: Path, **options: Any) -> tuple[dict[str, dict[str, Any]], Any]:
    """Rows of the inputs table by the last part of their name, and the table of faces as pandas has it."""
    maskbatch.scan([path], out / "r.parquet", executor="inline", device="cpu", det_size=320, overwrite=True, **options)
    rows = maskbatch.read_inputs(out / "r.parquet").to_dict("records")
    return {row["source"].rpartition("/")[2]: row for row in rows}, pq.read_table(out / "r.parquet").to_pandas()


def total(row: dict[str, Any]) -> int:
    return int(row["frames_read"] + row["frames_skipped"] + row["frames_failed"])


CASES: dict[str, tuple[str, int, float, str]] = {
    # file: status, frames by a full demux, seconds, what must be said
    "dav-year-2078/NVR_ch1_main_20240312140000_20240312140008.dav": ("ok", 204, 8.1, ""),
    "clock-not-zero/cam7_20240312_140000.flv": ("ok", 204, 8.16, ""),
    "clock-not-zero/seg_mkv/cam1_20240312140004.mkv": ("ok", 50, 2.0, ""),
    "clock-not-zero/seg_mp4/cam1_20240312140004.mp4": ("ok", 50, 2.0, ""),
    "hour-of-recording/hall.ts": ("ok", 204, 8.16, ""),
    "joined-ts/ahead_20240312_140000.ts": ("partial", 206, 8.24, "the clock jumps once"),
    "joined-ts/back90s_20240312_140000.ts": ("partial", 206, 8.24, "the clock jumps once"),
    "raw-stream-one-frame/cam_20240312_140000.264": ("ok", 102, 4.08, "25 frames per second"),
    "raw-stream-one-frame/novui_20240312_140000.h265": ("ok", 102, 4.08, "25 frames per second"),
    "stuck-pts/stuck_20240312_140000.mkv": ("ok", 204, 8.16, "stand still"),
    "no-key-frame-ok/h264.mp4": ("error", 149, 5.96, "no key frame"),
    "no-key-frame-ok/ir1cut.ts": ("error", 177, 7.08, "no key frame"),
    "first-key-frame-late/cut12s_20240312_140000.ts": ("ok", 299, 14.0, "124 frames before the first key frame"),
    "second-stream-lost/frontrear.mp4": ("ok", 200, 8.0, "not 1 (h264, 640×360, 204 frames, marked as the default)"),
    "second-stream-lost/subfirst.mkv": ("ok", 41, 8.2, "not 1 (h264, 640×360, 204 frames, marked as the default)"),
    "second-stream-lost/pidchange.ts": ("ok", 206, 8.08, ""),
    "mjpeg/stream.mjpg": ("ok", 50, 2.0, ""),
    "extensions/cam_20240312_140000": ("ok", 204, 8.16, ""),
}


@pytest.mark.parametrize("name", CASES)
def test_counts_and_durations_are_those_of_a_full_demux(name: str, videos: Path, tmp_path: Path) -> None:
    status, frames, seconds, says = CASES[name]
    (row,) = scanned(videos / name, tmp_path)[0].values()
    assert (row["status"], total(row)) == (status, frames)
    assert row["duration_s"] == pytest.approx(seconds, abs=0.06)
    assert says in str(row["message"])


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("dav-year-2078/NVR_ch1_main_20240312140000_20240312140008.dav", "14:00:00", "14:00:08"),
        ("clock-not-zero/cam7_20240312_140000.flv", "14:00:00", "14:00:08"),
        ("clock-not-zero/seg_mkv/cam1_20240312140004.mkv", "14:00:04", "14:00:05"),
        ("clock-not-zero/seg_mp4/cam1_20240312140004.mp4", "14:00:04", "14:00:05"),
        ("joined-ts/ahead_20240312_140000.ts", "14:00:00", "14:00:08"),
        ("joined-ts/back90s_20240312_140000.ts", "14:00:00", "14:00:08"),
    ],
)
def test_faces_are_at_the_time_of_the_name(name: str, first: str, last: str, videos: Path, tmp_path: Path) -> None:
    _, faces = scanned(videos / name, tmp_path)
    times = faces["captured_at"]
    assert f"2024-03-12 {first}" <= str(times.min())[:19] <= str(times.max())[:19] <= f"2024-03-12 {last}"
    assert len(faces) > 0


def test_end_is_counted_from_the_first_frame_of_a_segment(videos: Path, tmp_path: Path) -> None:
    rows, _ = scanned(videos / "clock-not-zero" / "seg_mkv", tmp_path, end_s=1.0)
    assert {row["frames_read"] for row in rows.values()} == {1}


def test_every_stream_is_read_on_request(videos: Path, tmp_path: Path) -> None:
    rows, _ = scanned(videos / "second-stream-lost", tmp_path, video_stream="all")
    counts = {name: total(row) for name, row in rows.items()}
    assert counts == {
        "frontrear.mp4": 200,
        "frontrear.mp4#v1": 204,
        "pidchange.ts": 206,
        "subfirst.mkv": 41,
        "subfirst.mkv#v1": 204,
    }


def test_squeezed_pixels_are_seen_as_a_player_shows_them(videos: Path, tmp_path: Path) -> None:
    (row,) = scanned(videos / "anamorphic", tmp_path)[0].values()
    assert (row["width"], row["height"], total(row)) == (640, 360, 204)


def test_hour_of_a_recording_begins_at_nought(videos: Path, tmp_path: Path) -> None:
    scanned(videos / "hour-of-recording", tmp_path)
    assert [row["hour"] for row in maskbatch.summarize(tmp_path / "r.parquet").rows] == ["+00:00"]


def demuxed(path: str) -> int:
    """Frames of the first video stream that are part of the presentation, as FFmpeg's demuxer gives them; it follows PIDs."""
    count = 0
    with av.open(path, options={"merge_pmt_versions": "1"}) as container:
        stream = next(s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
        try:
            for packet in container.demux(stream):
                count += packet.size > 0 and not packet.is_discard
        except av.error.FFmpegError:
            pass
    return count


def counted(source: Source) -> int | None:
    """Frames read, skipped and failed of a whole recording; None where it is refused."""
    result = PieceResult(source.name, source.fingerprint)
    try:
        with VideoReader(Piece(source), Sampling(every_s=5), Limits(), 96) as reader:
            for _ in reader:
                pass
            reader.fill(result)
    except InputError:
        return None
    return result.frames_read + result.frames_skipped + result.frames_failed


def test_frames_of_every_recording_add_up_to_those_of_a_demux(videos: Path, shared_dir: Path) -> None:
    folders = [str(folder) for folder in (videos, shared_dir / "data" / "media_corpus") if folder.is_dir()]
    found = [source for source in discover(folders).sources if source.media == "video" and source.size < 30_000_000]
    totals = {source.name: (source.path, counted(source)) for source in found}
    read = {name: (path, total) for name, (path, total) in totals.items() if total is not None}
    assert len(read) > 40
    assert {name: total for name, (_, total) in read.items()} == {
        name: demuxed(path) for name, (path, _) in read.items()
    }
