"""Which frames are taken, and which the motion gate holds back."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import video_makers as make
from hypothesis import given
from hypothesis import strategies as st

from maskbatch.config import Limits, Sampling
from maskbatch.errors import UsageError
from maskbatch.sources.videos.motion import MotionGate
from maskbatch.sources.videos.reader import VideoReader, split_video
from maskbatch.sources.videos.sampling import RunningSampler, bounds, chosen, multiples, step_of
from maskbatch.types import Image, Piece, PieceResult, Source

BASES = st.sampled_from(
    [Fraction(1, 90000), Fraction(1, 1000), Fraction(1001, 30000), Fraction(1, 25), Fraction(1, 12800)]
)
STEPS = st.sampled_from([1.0, 0.5, 0.1, 1 / 3, 1 / 29.97, 2.5, 60.0])


@given(st.lists(st.integers(-(10**6), 10**9), min_size=1, max_size=60, unique=True), BASES, STEPS)
def test_first_frame_at_or_after_each_multiple_is_taken_and_no_other(
    pts: list[int], base: Fraction, every: float
) -> None:
    times = np.array(sorted(pts), np.int64)
    step = step_of(Sampling(every_s=every))
    taken = chosen(times, np.zeros(len(times), bool), base, 0, Sampling(every_s=every))
    expected = set()
    for i, t in enumerate(times.tolist()):
        before = times[i - 1] if i else None
        multiple = (t * base) // step * step  # the last multiple at or before the frame
        if before is None or int(before) * base < multiple:
            expected.add(i)
    assert set(np.flatnonzero(taken).tolist()) == expected


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=60, unique=True), BASES, STEPS)
def test_frame_by_frame_choice_is_the_same(pts: list[int], base: Fraction, every: float) -> None:
    times = np.array(sorted(pts), np.int64)
    for sampling in (Sampling(every_s=every), Sampling(every_s=every, start_s=1.5, end_s=1000.0), Sampling(mode="all")):
        sampler = RunningSampler(base, 0, sampling)
        one_by_one = [sampler.takes(t, False) for t in times.tolist()]
        assert one_by_one == chosen(times, np.zeros(len(times), bool), base, 0, sampling).tolist()


def test_choice_does_not_depend_on_where_reading_begins() -> None:
    times = np.arange(0, 100_000, 37, dtype=np.int64)
    key = np.zeros(len(times), bool)
    whole = chosen(times, key, Fraction(1, 1000), 0, Sampling())
    late = chosen(times, key, Fraction(1, 1000), 0, Sampling(start_s=40.0))
    assert np.array_equal(late[times >= 40_000], whole[times >= 40_000])
    assert not late[times < 40_000].any()


def test_decimal_steps_and_bounds_mean_what_was_typed() -> None:
    assert step_of(Sampling(every_s=0.1)) == Fraction(1, 10)
    assert step_of(Sampling(every_s=1 / 29.97)) == Fraction(100, 2997)
    assert bounds(Sampling(start_s=0.1, end_s=0.3), Fraction(1, 10), 0) == (1, 3)
    assert bounds(Sampling(start_s=1.0), Fraction(1, 90000), 7200) == (97200, None)


def test_large_time_stamps_are_exact() -> None:
    times = np.array([2**52 - 1, 2**52], np.int64)
    assert multiples(times, Fraction(1, 90000), Fraction(100, 2997)).tolist() == [
        (2**52 - 1) * 2997 // 9_000_000,
        2**52 * 2997 // 9_000_000,
    ]


@pytest.mark.parametrize("every", [0.0, -1.0, float("nan"), float("inf")])
def test_step_must_be_positive(every: float) -> None:
    with pytest.raises(UsageError, match="positive"):
        step_of(Sampling(every_s=every))


def scene(person: int | None, level: int = 0, noise: int = 3, seed: int = 0) -> Image:
    """A room with sensor noise, and a person of 24×60 pixels in 320×240, or none."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[0:240, 0:320]
    room = 60 + (xs // 40 % 2) * 40 + (ys // 60 % 2) * 30 + level
    image = np.repeat(room[:, :, None], 3, axis=2) + rng.integers(-noise, noise + 1, (240, 320, 3))
    if person is not None:
        image[120:180, person : person + 24] = (60, 90, 200)
    return np.clip(image, 0, 255).astype(np.uint8)


def test_gate_holds_back_a_still_scene_and_lets_movement_through() -> None:
    gate = MotionGate(10_000)
    assert gate.lets_through(scene(None), 0)
    assert not any(gate.lets_through(scene(None, seed=i), i * 100) for i in range(1, 20))
    assert gate.lets_through(scene(40, seed=30), 3000)
    assert not gate.lets_through(scene(40, seed=31), 3100)
    assert gate.lets_through(scene(52, seed=32), 3200)
    assert gate.lets_through(scene(None, seed=33), 3300)


def test_gate_ignores_slow_light_and_is_reset_by_a_switch() -> None:
    gate = MotionGate(10_000)
    assert gate.lets_through(scene(None), 0)
    assert not gate.lets_through(scene(None, level=6, seed=1), 100)
    assert gate.lets_through(scene(None, level=60, seed=2), 200)
    assert not gate.lets_through(scene(None, level=60, seed=3), 300)


def test_gate_lets_one_frame_per_window_through_at_least() -> None:
    gate = MotionGate(1000)
    passed = [t for t in range(0, 5000, 100) if gate.lets_through(scene(None, seed=t), t)]
    assert passed == [0, 1000, 2000, 3000, 4000]


def test_gated_frames_are_counted_as_skipped_however_the_file_is_cut(tmp_path: Path) -> None:
    def picture(i: int) -> Image:
        return scene((i - 60) * 4 if 60 <= i < 100 else None, noise=0)

    options = {"g": "25", "bf": "2", "x264-params": "scenecut=0"}
    path = make.write_video(tmp_path / "door.mp4", 200, size=(320, 240), options=options, picture=picture)
    source = Source(str(path), path.name, "video", 1)
    sampling = Sampling(every_s=0.2, gate="motion", gate_refresh_s=3.0)
    by_cut = []
    for unit_seconds in (1e9, 1.0, 2.0):
        rows, read, skipped = [], 0, 0
        pieces = split_video(source, sampling, unit_seconds, Limits()) if unit_seconds < 1e9 else (Piece(source),)
        assert (len(pieces) > 1) == (unit_seconds < 1e9)
        for piece in pieces:
            result = PieceResult("a", "b")
            with VideoReader(piece, sampling, Limits(), 160) as reader:
                rows += [(frame.ordinal, frame.skip_detection) for frame in reader]
                reader.fill(result)
            read += result.frames_read
            skipped += result.frames_skipped
        by_cut.append((rows, read, skipped))
    rows, read, skipped = by_cut[0]
    assert by_cut[1:] == [by_cut[0]] * 2
    assert [ordinal for ordinal, _ in rows] == list(range(0, 200, 5))
    assert read == sum(not held for _, held in rows)
    assert read + skipped == 200
    passed = [ordinal for ordinal, held in rows if not held]
    assert {0, 75, 150} <= set(passed)
    assert set(range(60, 100, 5)) <= set(passed)
    assert len(passed) <= 14
