"""Counts that add up: frames read, skipped and failed are all frames of a recording, also where it begins without a key frame, or has none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from face_rows import NO_ROWS

import maskbatch
from maskbatch.config import Limits, Sampling
from maskbatch.draw.videos import annotate_video
from maskbatch.sources.discovery.discover import discover
from maskbatch.sources.videos.reader import VideoReader
from maskbatch.types import Piece, Source

FRAMES, GOP, RATE = 90, 30, 25


def encoded() -> tuple[list[bytes], list[bool]]:
    """Packets of an H.264 stream (Annex B) with a key frame every `GOP` frames, and which of them are."""
    packets, keys = [], []
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 160, 96, "yuv420p", Fraction(1, RATE)
    codec.framerate = Fraction(RATE)
    codec.options = {
        "g": str(GOP),
        "keyint_min": str(GOP),
        "bf": "0",
        "sc_threshold": "0",
        "x264-params": "repeat-headers=1",
    }
    for number in range(FRAMES):
        image = np.full((96, 160, 3), 40 + number, np.uint8)
        image[20:60, number : number + 40] = 200
        frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        for packet in codec.encode(frame):
            packets.append(bytes(packet))
            keys.append(packet.is_keyframe)
    for packet in codec.encode(None):
        packets.append(bytes(packet))
        keys.append(packet.is_keyframe)
    return packets, keys


def write_from(path: Path, first: int, count: int | None = None) -> int:
    """A transport stream that was cut out of another one at packet `first`; returns its frames."""
    packets, keys = encoded()
    chosen = list(zip(packets, keys, strict=True))[first : None if count is None else first + count]
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number, (data, key) in enumerate(chosen):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, RATE)
            packet.pts = packet.dts = number
            packet.is_keyframe = key
            container.mux(packet)
    return len(chosen)


def scanned(path: Path, out: Path) -> dict[str, object]:
    maskbatch.scan([path], out / "r.parquet", executor="inline", device="cpu", det_size=160, overwrite=True)
    row: dict[str, object] = maskbatch.read_inputs(out / "r.parquet").iloc[0].to_dict()
    return row


def total(row: dict[str, object]) -> int:
    return sum(int(row[name]) for name in ("frames_read", "frames_skipped", "frames_failed"))  # type: ignore[call-overload]


@pytest.mark.parametrize("first", [0, 7, 29])
def test_frames_before_the_first_key_frame_are_counted_and_told(tmp_path: Path, first: int) -> None:
    frames = write_from(tmp_path / "cut.ts", first)
    row = scanned(tmp_path / "cut.ts", tmp_path)
    assert total(row) == frames
    lost = (GOP - first) % GOP
    assert row["frames_failed"] == lost
    assert row["status"] == "ok"
    assert (f"{lost} frame" in str(row["message"])) == bool(lost)


def test_recording_without_any_key_frame_is_an_error_with_its_frames(tmp_path: Path) -> None:
    frames = write_from(tmp_path / "none.ts", 5, 20)
    row = scanned(tmp_path / "none.ts", tmp_path)
    assert row["status"] == "error"
    assert row["frames_read"] == row["frames_skipped"] == 0
    assert row["frames_failed"] in (0, frames), "none of its frames is called read"


def test_raw_motion_jpeg_is_read(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "stream.mjpg"), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuvj420p"
        for number in range(50):
            image = np.full((96, 160, 3), number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuvj420p")))
        container.mux(stream.encode())
    row = scanned(tmp_path / "stream.mjpg", tmp_path)
    assert (total(row), row["frames_read"], row["status"]) == (50, 2, "ok")


def test_extensions_that_recordings_share_with_others_are_looked_into(tmp_path: Path) -> None:
    write_from(tmp_path / "a.ts", 0, 40)
    data = (tmp_path / "a.ts").read_bytes()
    for name in ("cam_20240312_140000", "rec.dat", "rec.tp", "rec.ps", "rec.m2t", "rec.avc"):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "hik").write_bytes(b"IMKH".ljust(40, b"\0") + b"\x00\x00\x01\xba" + bytes(2000))
    (tmp_path / "README").write_text("no recording")
    (tmp_path / "table.dat").write_bytes(b"\x00\x01\x02" * 50)
    (tmp_path / "figure.ps").write_text("%!PS-Adobe")
    found = {source.name: source.media for source in discover([str(tmp_path)]).sources}
    assert set(found) == {"a.ts", "hik", "cam_20240312_140000", "rec.dat", "rec.tp", "rec.ps", "rec.m2t", "rec.avc"}
    assert set(found.values()) == {"video"}


@pytest.mark.shared
def test_recordings_of_field_reports_add_up(shared_dir: Path, tmp_path: Path) -> None:
    videos = shared_dir / "data" / "field_reports" / "videos"
    expected = {
        "first-key-frame-late/cut12s_20240312_140000.ts": ("ok", 175 + 124),
        "no-key-frame-ok/h264.mp4": ("error", 149),
        "mjpeg/stream.mjpg": ("ok", 50),
    }
    for name, (status, frames) in expected.items():
        row = scanned(videos / name, tmp_path)
        assert (row["status"], total(row)) == (status, frames), name


@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(2), (320, 96)), (Fraction(1, 2), (160, 192)), (Fraction(1), (160, 96))]
)
def test_videos_are_seen_in_the_pixels_that_a_player_shows(
    tmp_path: Path, aspect: Fraction, size: tuple[int, int]
) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for number in range(5):
            image = np.full((96, 160, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")))
        container.mux(stream.encode())
    row = scanned(path, tmp_path)
    assert (row["width"], row["height"]) == size
    with VideoReader(Piece(Source(str(path), path.name, "video")), Sampling(mode="all"), Limits(), 100) as reader:
        frame = next(iter(reader))
        assert (frame.width, frame.height) == size
        assert frame.load_full().shape[:2] == size[::-1]
        assert max(frame.image.shape[:2]) == 100
        assert frame.image.shape[1] / frame.image.shape[0] == pytest.approx(size[0] / size[1], rel=0.03)
    copy = annotate_video(Source(str(path), path.name, "video"), NO_ROWS, tmp_path / "out")
    with av.open(str(copy)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == size
        assert stream.sample_aspect_ratio in (None, 1)


def test_rate_of_a_stream_without_time_stamps_can_be_given(tmp_path: Path) -> None:
    packets, _ = encoded()
    (tmp_path / "cam.h264").write_bytes(b"".join(packets))
    settings = {"executor": "inline", "device": "cpu", "det_size": 160, "mode": "all", "overwrite": True}
    durations = {}
    for rate in (0.0, 10.0, 12.5):
        maskbatch.scan([tmp_path / "cam.h264"], tmp_path / "r.parquet", assume_fps=rate, **settings)  # type: ignore[arg-type]
        row = maskbatch.read_inputs(tmp_path / "r.parquet").iloc[0]
        durations[rate] = row["duration_s"]
        assert (row["frames_read"], row["frames_failed"]) == (FRAMES, 0)
        assert f"{rate or RATE:g} frames per second" in row["message"]
    assert durations == pytest.approx({0.0: FRAMES / RATE, 10.0: FRAMES / 10, 12.5: FRAMES / 12.5})
    keys = [maskbatch.ScanConfig().with_options(assume_fps=rate).row_settings() for rate in (0.0, 10.0)]
    assert "sampling.assume_fps" not in keys[0], "runs without it keep their key"
    assert keys[1]["sampling.assume_fps"] == 10.0
