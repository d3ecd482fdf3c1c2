"""Reading videos: what comes out of every kind of file, and that the cut does not matter."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import video_makers as make
from video_reading import ALL, LIMITS, counts, read, source_of

from maskbatch.config import Sampling
from maskbatch.sources.videos import gops
from maskbatch.sources.videos.packets import packet_index
from maskbatch.sources.videos.reader import VideoReader, split_video
from maskbatch.types import Piece, PieceResult

H264 = ("libx264", {"g": "20", "bf": "3"}, "yuv420p")
OPEN_GOP = ("libx264", {"x264-params": "keyint=20:open-gop=1:bframes=3"}, "yuv420p")
HEVC = ("libx265", {"x265-params": "keyint=20:log-level=none"}, "yuv420p")
HEVC_LAYERS = ("libx265", {"x265-params": "keyint=20:temporal-layers=3:log-level=none"}, "yuv420p")
MPEG4 = ("mpeg4", {"g": "20"}, "yuv420p")
MPEG4_B = ("mpeg4", {"g": "20", "bf": "2"}, "yuv420p")
MJPEG = ("mjpeg", {}, "yuvj420p")
VP9 = ("libvpx-vp9", {"g": "20", "deadline": "realtime", "cpu-used": "8"}, "yuv420p")
AV1 = ("libsvtav1", {"g": "20", "preset": "12"}, "yuv420p")
VARIANTS = {
    "h264.mp4": H264,
    "h264.mov": H264,
    "h264.mkv": H264,
    "h264.ts": H264,
    "h264.avi": ("libx264", {"g": "20", "bf": "0"}, "yuv420p"),
    "h264_b_frames.avi": H264,
    "h264.flv": H264,
    "mpeg2.mpg": ("mpeg2video", {"g": "20", "bf": "2"}, "yuv420p"),
    "mpeg2.ts": ("mpeg2video", {"g": "20", "bf": "2"}, "yuv420p"),
    "h264.h264": H264,
    "open_gop.ts": OPEN_GOP,
    "open_gop.mp4": OPEN_GOP,
    "intra_refresh.mkv": ("libx264", {"x264-params": "keyint=20:intra-refresh=1:bframes=0"}, "yuv420p"),
    "hevc.mp4": HEVC,
    "hevc.mkv": HEVC,
    "hevc.ts": HEVC,
    "hevc_layers.mp4": HEVC_LAYERS,
    "mpeg4.mp4": MPEG4_B,
    "mpeg4.avi": MPEG4,
    "mpeg4_b_frames.avi": MPEG4_B,
    "mjpeg.avi": MJPEG,
    "mjpeg.mkv": MJPEG,
    "mjpeg.mov": MJPEG,
    "vp9.mkv": VP9,
    "vp9.webm": VP9,
    "vp9.mp4": VP9,
    "av1.mp4": AV1,
    "av1.mkv": AV1,
}


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a video of 60 frames at 25 per second, once per name."""
    folder = tmp_path_factory.mktemp("variants")

    @functools.cache
    def made(name: str) -> Path:
        codec, options, pix_fmt = VARIANTS[name]
        try:
            av.Codec(codec, "w")
        except av.codec.codec.UnknownCodecError:
            pytest.skip(f"this FFmpeg cannot encode with {codec}")
        return make.write_video(folder / name, codec=codec, options=options, pix_fmt=pix_fmt)

    return made


@pytest.mark.parametrize("name", VARIANTS)
def test_every_frame_of_every_codec_and_container_is_read_once(name: str, variant: Callable[[str], Path]) -> None:
    path = variant(name)
    rows, results = read(path)
    plain = make.decode_all(path)
    assert counts(results) == (len(plain), 0, 0) == (60, 0, 0)
    assert {r.status for r in results} == {"ok"}
    assert [row[0] for row in rows] == list(range(60))
    assert [row[5] for row in rows] == [image.tobytes() for _, image in plain]
    assert [make.number_in(np.frombuffer(row[5], np.uint8).reshape(row[3])) for row in rows] == list(range(60))
    if name not in ("h264.h264", "h264_b_frames.avi"):  # those have no time stamps that say when a frame is shown
        assert [row[1] for row in rows] == [pts for pts, _ in plain]
    steps = np.diff([row[2] for row in rows])
    assert steps == pytest.approx(0.04, abs=0.0011)
    assert results[0].duration_s == pytest.approx(
        rows[-1][2] + 0.04 - (rows[0][2] if path.suffix in (".ts", ".mpg") else 0), abs=0.002
    )


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    "sampling",
    [
        ALL,
        Sampling(every_s=0.3),
        Sampling(every_s=0.9),
        Sampling(mode="keyframes"),
        Sampling(every_s=0.1, start_s=0.5, end_s=2.0),
        Sampling(every_s=0.08, gate="motion", gate_refresh_s=0.7),
    ],
    ids=["all", "0.3s", "0.9s", "keyframes", "range", "gate"],
)
def test_cut_equals_uncut_row_by_row(name: str, sampling: Sampling, variant: Callable[[str], Path]) -> None:
    path = variant(name)
    whole, whole_results = read(path, sampling)
    cut, cut_results = read(path, sampling, unit_seconds=0.5)
    if packet_index(source_of(path), LIMITS).ordered and len(packet_index(source_of(path), LIMITS).keys) > 1:
        assert len(cut_results) > 1
    assert cut == whole
    assert counts(cut_results) == counts(whole_results)
    assert sum(counts(cut_results)) == 60
    assert len({r.duration_s for r in cut_results + whole_results}) == 1


@pytest.mark.parametrize("name", VARIANTS)
def test_sampled_frames_are_those_of_a_full_decode(name: str, variant: Callable[[str], Path]) -> None:
    path = variant(name)
    full = {row[0]: row for row in read(path)[0]}
    for every in (0.3, 0.13, 1.0):
        rows, results = read(path, Sampling(every_s=every))
        assert [full[row[0]] for row in rows] == rows
        assert counts(results) == (len(rows), 0, 60 - len(rows))


def test_times_are_exact_to_the_time_base_at_variable_frame_rate(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    pts = np.cumsum(rng.integers(1, 2000, 90)).tolist()
    path = make.write_video(
        tmp_path / "vfr.mp4", 90, pts=pts, time_base=Fraction(1, 1000), options={"g": "15", "bf": "2"}
    )
    plain = [p for p, _ in make.decode_all(path)]
    base = packet_index(source_of(path), LIMITS).time_base
    assert [float(Fraction(p or 0) * base) for p in plain] == [p / 1000 for p in pts]
    rows, results = read(path, Sampling(every_s=2.5))
    expected = []
    for multiple in range(100):
        after = [i for i, p in enumerate(pts) if Fraction(p - pts[0], 1000) >= multiple * Fraction(5, 2)]
        if after and after[0] not in expected:
            expected.append(after[0])
    assert [row[0] for row in rows] == expected
    assert [row[2] for row in rows] == [(pts[i] - pts[0]) / 1000 for i in expected]
    assert counts(results) == (len(expected), 0, 90 - len(expected))
    assert read(path, Sampling(every_s=2.5), 5.0)[0] == rows


@pytest.mark.parametrize("name", ["late.mkv", "late.mp4", "late.flv", "late.ts"])
def test_times_count_from_the_first_frame_wherever_the_clock_begins(name: str, tmp_path: Path) -> None:
    path = make.write_video(tmp_path / name, 40, pts=list(range(510, 550)), time_base=Fraction(1, 25))
    rows, results = read(path, Sampling(every_s=1.0))
    assert [row[2] for row in rows] == pytest.approx([0.0, 1.0])
    assert results[0].duration_s == pytest.approx(1.6)


TURNS = [
    (0, False, False),
    (90, False, False),
    (180, False, False),
    (270, False, False),
    (0, True, False),
    (90, True, False),
]


@pytest.mark.parametrize("turn", TURNS)
def test_pictures_are_in_display_orientation(turn: tuple[int, bool, bool], tmp_path: Path) -> None:
    degrees, mirrored, _ = turn
    path = make.write_video(tmp_path / "turned.mp4", 5, turn=turn)
    stored = make.decode_all(path)[0][1]
    expected = np.rot90(stored, degrees // 90)  # counter-clockwise, as FFmpeg states it
    if mirrored:
        expected = expected[:, ::-1]
    with VideoReader(Piece(source_of(path)), ALL, LIMITS, 80) as reader:
        frame = next(iter(reader))
        assert np.array_equal(frame.load_full(), expected)
        assert (frame.height, frame.width) == expected.shape[:2]
        assert max(frame.image.shape[:2]) == 80
        assert frame.image.shape[0] / frame.image.shape[1] == frame.height / frame.width
        result = PieceResult("a", "b")
        reader.fill(result)
    assert (result.height, result.width) == expected.shape[:2]


def test_long_step_is_sought_not_read_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make.write_video(
        tmp_path / "hours.mkv",
        3 * 3600 * 2,
        rate=2,
        size=(64, 48),
        codec="libx264",
        options={"g": "50", "bf": "0", "preset": "ultrafast"},
        picture=lambda i: np.full((48, 64, 3), i % 200, np.uint8),
    )
    sampling = Sampling(every_s=600.0)
    source = source_of(path)
    index = packet_index(source, LIMITS)
    assert len(index) == 21600
    packets = 0

    def count() -> None:
        nonlocal packets
        packets += 1

    with VideoReader(Piece(source), sampling, LIMITS, 64, count) as reader:
        times = [frame.time_s for frame in reader]
    assert times == [600.0 * i for i in range(18)]
    assert packets < 2500
    pieces = split_video(source, sampling, 300.0, LIMITS)
    assert len(pieces) == 62  # of 175 s: seven groups of pictures, the next key frame after a 64th
    assert all(a.stop_pts == b.start_pts for a, b in itertools.pairwise(pieces))
    cut, results = read(path, Sampling(every_s=100.0), 300.0)
    assert [row[2] for row in cut] == [100.0 * i for i in range(108)]
    assert sum(counts(results)) == 21600
    assert cut == read(path, Sampling(every_s=100.0))[0]


def test_key_frames_only_are_decoded_alone(variant: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = variant("h264.mp4")
    fed: list[int] = []
    original = gops.Packets.between

    def spy(self: Any, first: int, last: int) -> Any:
        for position, packet in original(self, first, last):
            fed.append(position)
            yield position, packet

    monkeypatch.setattr(gops.Packets, "between", spy)
    rows, results = read(path, Sampling(mode="keyframes"))
    assert [row[0] for row in rows] == [0, 20, 40]
    assert fed == packet_index(source_of(path), LIMITS).keys.tolist()
    assert counts(results) == (3, 0, 57)


def test_small_picture_covers_the_detector_and_is_never_enlarged(variant: Callable[[str], Path]) -> None:
    path = variant("h264.mp4")
    for cover, size in ((64, (48, 64)), (160, (120, 160)), (640, (120, 160))):
        with VideoReader(Piece(source_of(path)), ALL, LIMITS, cover) as reader:
            frame = next(iter(reader))
        assert frame.image.shape == (*size, 3)
        assert frame.image.flags.c_contiguous
        assert frame.scale == size[1] / 160


def test_full_picture_can_be_had_after_reading_on(variant: Callable[[str], Path]) -> None:
    path = variant("h264.mp4")
    with VideoReader(Piece(source_of(path)), ALL, LIMITS, 64) as reader:
        frames = list(reader)
        late = [frame.load_full() for frame in frames]
    assert [make.number_in(image) for image in late] == list(range(60))


def test_shared_videos_have_the_counts_of_a_full_sequential_decode(shared_dir: Path) -> None:
    paths = [p for p in sorted((shared_dir / "data/videos").iterdir()) if p.suffix in (".mp4", ".mkv")]
    assert len(paths) >= 6
    for path in paths:
        plain: list[int | None] = []
        with av.open(str(path)) as container:
            plain = [frame.pts for frame in container.decode(video=0)]
        source = source_of(path)
        for sampling in (ALL, Sampling(), Sampling(every_s=0.7)):
            results = []
            seen: list[int | None] = []
            for piece in split_video(source, sampling, 20.0, LIMITS):
                result = PieceResult("a", "b")
                with VideoReader(piece, sampling, LIMITS, 96) as reader:
                    seen += [frame.pts for frame in reader]
                    reader.fill(result)
                results.append(result)
            base = packet_index(source, LIMITS).time_base
            step = Fraction(str(sampling.every_s))
            number = [((p or 0) - (plain[0] or 0)) * base // step for p in plain]
            first = [p for i, p in enumerate(plain) if i == 0 or number[i] != number[i - 1]]
            assert seen == (plain if sampling is ALL else first), path.name
            assert sum(counts(results)) == len(plain)
            assert counts(results)[1] == 0


def test_office_clip_that_reports_63_frames_holds_27(shared_dir: Path) -> None:
    path = shared_dir / "data/videos/cctv_office_short2.mp4"
    rows, results = read(path)
    assert counts(results) == (27, 0, 0)
    assert [row[0] for row in rows] == list(range(27))
    assert rows[0][1] == 0


def test_start_and_end_count_from_the_first_frame(tmp_path: Path) -> None:
    stream = make.write_video(tmp_path / "a.ts", 30, container={"output_ts_offset": "5000"})
    rows, results = read(stream)
    assert rows[0][2] == 0.0
    assert results[0].duration_s == pytest.approx(1.2)
    late, _ = read(stream, Sampling(mode="all", start_s=1.0))
    assert [row[0] for row in late] == list(range(25, 30))


def test_watcher_sees_progress(variant: Callable[[str], Path]) -> None:
    path = variant("h264.mp4")
    ticks: list[int] = []
    source = replace(source_of(path), mtime_ns=1)
    with VideoReader(Piece(source), Sampling(every_s=10.0), LIMITS, 64, lambda: ticks.append(1)) as reader:
        list(reader)
    assert ticks
