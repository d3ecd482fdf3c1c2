"""Files with several video streams, and streams that change their identifier: each is followed, or named as not looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import pyarrow.parquet as pq
import pytest
from video_makers import encoded, numbered, write_video

import maskbatch
from maskbatch.draw.originals import Originals
from maskbatch.errors import UsageError

RATE = 25
OPTIONS = {"executor": "inline", "device": "cpu", "det_size": 160, "overwrite": True}


def two_cameras(path: Path, frames: tuple[int, int] = (50, 75), second: Any = None) -> Path:
    """A file of two video streams of other sizes and lengths; `second` makes the other one's pictures, by default from number 1000 on."""
    with av.open(str(path), "w") as output:
        streams: list[Any] = []
        for width, height in ((160, 120), (320, 240)):
            stream: Any = output.add_stream("libx264", rate=RATE)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        packets: list[Any] = []
        for stream, count, (width, height), base in zip(
            streams, frames, ((160, 120), (320, 240)), (0, 1000), strict=True
        ):
            packets += encoded(
                stream, count, RATE, (width, height), picture=second if base and second else _from(base, width, height)
            )
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return path


def _from(base: int, width: int, height: int) -> Any:
    return lambda i: numbered(base + i, width, height)


def inputs(paths: list[Path], out: Path, **options: Any) -> dict[str, dict[str, Any]]:
    maskbatch.scan(paths, out, **{**OPTIONS, **options})
    return {row["source"]: row for row in maskbatch.read_inputs(out).to_dict("records")}


def total(row: dict[str, Any]) -> int:
    return int(row["frames_read"] + row["frames_skipped"] + row["frames_failed"])


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_streams_that_are_not_looked_at_are_named(tmp_path: Path, ending: str) -> None:
    path = two_cameras(tmp_path / f"rear.{ending}")
    (row,) = inputs([path], tmp_path / "r.parquet").values()
    assert (row["status"], total(row)) == ("ok", 50)
    assert "video stream 0 of 2 was looked at, not 1 (h264, 320×240, 75 frames" in row["message"]


def test_every_stream_is_an_input_of_its_own(tmp_path: Path) -> None:
    write_video(tmp_path / "one.mp4", 30)
    two_cameras(tmp_path / "rear.mp4")
    rows = inputs([tmp_path], tmp_path / "r.parquet", video_stream="all", skip_duplicates=True)
    assert {name: (total(row), row["width"], row["status"]) for name, row in rows.items()} == {
        "one.mp4": (30, 160, "ok"),
        "rear.mp4": (50, 160, "ok"),
        "rear.mp4#v1": (75, 320, "ok"),
    }
    assert not any("stream" in str(row["message"]) for row in rows.values())


def test_one_stream_by_its_number(tmp_path: Path) -> None:
    path = two_cameras(tmp_path / "rear.mp4")
    (first,) = inputs([path], tmp_path / "r.parquet", video_stream="0").values()
    assert (first["source"], total(first)) == ("rear.mp4", 50)
    (second,) = inputs([path], tmp_path / "r.parquet", video_stream="1").values()
    assert (second["source"], total(second), second["width"]) == ("rear.mp4#v1", 75, 320)
    assert "not 0 (h264, 160×120, 50 frames" in second["message"]
    (none,) = inputs([path], tmp_path / "r.parquet", video_stream="2").values()
    assert (none["status"], none["error"]) == ("error", "unsupported")
    assert "the file has 2 video streams" in none["message"]


def test_rows_of_a_stream_carry_its_name_and_its_frames_are_found_again(tmp_path: Path, red_model: Path) -> None:
    path = tmp_path / "in" / "rear.mp4"
    path.parent.mkdir()
    two_cameras(path, (30, 30), _red)
    out = tmp_path / "r.parquet"
    options = {"detector": f"red:{red_model}", "det_size": 320, "annotate": tmp_path / "drawn", "mode": "all"}
    rows = inputs([path.parent], out, video_stream="all", **options)
    assert {name: row["faces"] > 0 for name, row in rows.items()} == {"rear.mp4": False, "rear.mp4#v1": True}
    assert set(pq.read_table(out).to_pandas()["source"]) == {"rear.mp4#v1"}
    assert {file.name for file in (tmp_path / "drawn").iterdir()} == {"rear.mp4", "rear.mp4#v1.mp4"}
    originals = Originals(json.loads(out.with_name("r.run.json").read_text()))
    image = originals.frame("rear.mp4#v1", 3)
    blue, _, red = image[100, 100].tolist()
    assert red > 150 > blue + 50, "the second stream's picture, which is red there"


def _red(_number: int) -> Any:
    image = numbered(0, 320, 240) // 4 + 60
    image[60:140, 60:140] = (0, 0, 255)
    return image


def pid_changes(path: Path, clips: tuple[int, ...] = (50, 50)) -> Path:
    """A transport stream whose video gets another PID in the middle, with another version of the program map."""
    data = b""
    first = 0
    for number, frames in enumerate(clips):
        part = path.with_name(f"part{number}.ts")
        options = {"mpegts_start_pid": str(0x100 * (number + 1)), "mpegts_pmt_start_pid": "4096"}
        with av.open(str(part), "w", format="mpegts", options={**options, "tables_version": str(number)}) as output:
            stream: Any = output.add_stream("libx264", rate=RATE)
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
            stream.options = {"bf": "0"}
            for packet in encoded(stream, frames, RATE, (160, 120), first=first):
                output.mux(packet)
        data += part.read_bytes()
        part.unlink()
        first += frames
    path.write_bytes(data)
    return path


def test_a_stream_whose_pid_changes_is_followed(tmp_path: Path) -> None:
    path = pid_changes(tmp_path / "cam.ts")
    with av.open(str(path)) as container:
        assert len({stream.id for stream in container.streams.video}) == 2, "two streams, by FFmpeg's defaults"
    (row,) = inputs([path], tmp_path / "r.parquet", mode="all").values()
    assert (row["status"], total(row), row["frames_failed"]) == ("ok", 100, 0)
    assert row["duration_s"] == pytest.approx(4.0, abs=0.2)


def test_streams_that_follow_each_other_are_a_recording_of_which_a_part_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "cam.mkv"
    with av.open(str(path), "w") as output:
        streams: list[Any] = []
        for _ in range(2):
            stream: Any = output.add_stream("libx264", rate=RATE)
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
            stream.options = {"bf": "0"}
            streams.append(stream)
        for number, stream in enumerate(streams):
            for packet in encoded(stream, 50, RATE, (160, 120), first=50 * number):
                output.mux(packet)
    (row,) = inputs([path], tmp_path / "r.parquet").values()
    # The muxer may put the last packets of one beside the first of the other; then they are named, and no more.
    assert "not 1 (h264, 160×120, 50 frames" in row["message"]
    assert (row["status"] == "partial") == ("a part of the recording is missing" in row["message"])
    assert row["status"] == "partial"


def test_a_stream_that_is_announced_and_never_comes_hides_no_other(tmp_path: Path) -> None:
    path = two_cameras(tmp_path / "whole.ts")
    packets = [data[at : at + 188] for data in (path.read_bytes(),) for at in range(0, len(data), 188)]
    kept = [packet for packet in packets if (packet[1] & 0x1F) << 8 | packet[2] != 0x100]
    (tmp_path / "cam.ts").write_bytes(b"".join(kept))
    (row,) = inputs([tmp_path / "cam.ts"], tmp_path / "r.parquet").values()
    assert (row["status"], row["width"], total(row)) == ("ok", 320, 75)
    assert "video stream 1 of 2 was looked at, not 0" in row["message"]


def test_settings_without_the_option_keep_the_key_of_their_run() -> None:
    config = maskbatch.ScanConfig()
    assert "sampling.video_stream" not in config.row_settings()
    assert config.with_options(video_stream="all").row_settings()["sampling.video_stream"] == "all"
    for wrong in ("first", "-1", "", "1.5"):
        with pytest.raises(UsageError, match="--video-stream"):
            config.with_options(video_stream=wrong)


@pytest.mark.shared
def test_files_of_field_reports_have_all_their_frames(shared_dir: Path, tmp_path: Path) -> None:
    folder = shared_dir / "data" / "field_reports" / "videos" / "second-stream-lost"
    rows = inputs([folder], tmp_path / "r.parquet", video_stream="all")
    assert {name: (row["status"], total(row)) for name, row in rows.items()} == {
        "frontrear.mp4": ("ok", 200),
        "frontrear.mp4#v1": ("ok", 204),
        "pidchange.ts": ("ok", 206),
        "subfirst.mkv": ("ok", 41),
        "subfirst.mkv#v1": ("ok", 204),
    }
    told = inputs([folder], tmp_path / "d.parquet")
    assert "1 (h264, 640×360, 204 frames, marked as the default)" in told["subfirst.mkv"]["message"]
