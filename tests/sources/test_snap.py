"""`--snap`: of each sampling point the key frame near it, where there is one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from video_makers import number_in, write_video
from video_reading import source_of

from maskbatch.cli.values import sampling_from
from maskbatch.config import Limits, Sampling, ScanConfig
from maskbatch.errors import UsageError
from maskbatch.sources.videos.reader import VideoReader
from maskbatch.sources.videos.sampling import chosen
from maskbatch.types import Piece, with_range

TIME_BASE = Fraction(1, 1000)


def times_taken(times: list[int], keys: list[int], sampling: Sampling, origin: int = 0) -> list[int]:
    stamps = np.array(times, np.int64)
    return stamps[chosen(stamps, np.isin(stamps, keys), TIME_BASE, origin, sampling)].tolist()


def test_near_key_frames_stand_in_and_far_ones_do_not() -> None:
    times = list(range(0, 4000, 100))
    found = times_taken(times, [0, 800, 2300, 3600], Sampling(every_s=1, snap_s=0.3))
    assert found == [0, 800, 2300, 3000]  # 3600 is .6 s from 3 s, and 4 s is not in the file
    assert times_taken(times, [0, 800, 2300, 3600], Sampling(every_s=1, snap_s=0.25)) == [0, 800, 2000, 3000]
    assert times_taken(times, [900, 1100], Sampling(every_s=1, snap_s=0.5)) == [
        0,
        900,
        2000,
        3000,
    ]  # as near: the earlier
    assert times_taken(times, [], Sampling(every_s=1, snap_s=0.5)) == [0, 1000, 2000, 3000]


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=80),
    st.sets(st.integers(0, 79)),
    st.integers(-(10**6), 10**14),
    st.sampled_from([0.1, 1 / 29.97, 0.7, 3.0]),
)
def test_what_is_taken_is_as_brute_force_says(gaps: list[int], keys: set[int], origin: int, step: float) -> None:
    times = (np.cumsum([0, *gaps]) + origin).tolist()
    key_times = [times[k] for k in keys if k < len(times)]
    exact = Fraction(step).limit_denominator(1_000_000)
    plain = times_taken(times, key_times, Sampling(every_s=step), origin)
    wanted = set()
    for time in plain:
        point = origin + (time - origin) * TIME_BASE // exact * exact / TIME_BASE
        near = [k for k in key_times if abs(k - point) * TIME_BASE <= Fraction(step / 2).limit_denominator(1_000_000)]
        wanted.add(min(near, key=lambda k: (abs(k - point), k)) if near else time)
    assert times_taken(times, key_times, Sampling(every_s=step, snap_s=step / 2), origin) == sorted(wanted)


def test_a_real_clip_gives_its_key_frames_however_it_is_cut(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "clip.mp4", 300, options={"g": "40", "keyint_min": "40", "sc_threshold": "0", "bf": "2"}
    )
    whole = Piece(source_of(path), 0, 1)
    sampling = Sampling(every_s=1, snap_s=0.4)

    def read(*pieces: Piece) -> list[tuple[int, int]]:
        found = []
        for piece in pieces:
            with VideoReader(piece, sampling, Limits(), 160) as reader:
                found += [(number_in(frame.load_full()), int(frame.pts or 0)) for frame in reader]
        return found

    uncut = read(whole)
    # Key frames at 0, 1.6, 3.2, 4.8 … s; 2 s takes that of 1.6, 3 s that of 3.2, 5 s that of 4.8; 1 s has none near.
    assert [number for number, _ in uncut] == [0, 25, 40, 80, 100, 120, 160, 175, 200, 225, 240, 280]
    cut = dict(uncut)[120]
    assert read(with_range(whole, 0, 2, None, cut), with_range(whole, 1, 2, cut, None)) == uncut


def test_off_by_default_and_refused_where_it_means_nothing() -> None:
    assert "sampling.snap_s" not in ScanConfig().row_settings()
    assert ScanConfig().with_options(snap_s=0.5).row_settings()["sampling.snap_s"] == 0.5
    assert sampling_from("2s", None, False, False, None, None, "none", 10, "500ms").snap_s == 0.5
    with pytest.raises(UsageError, match="half of the 1 s between samples"):
        Sampling(every_s=1, snap_s=0.6)
    with pytest.raises(UsageError, match="leave it out with --keyframes"):
        Sampling(mode="keyframes", snap_s=0.2)
