"""One model of time: whatever stamps a file has, times rise, gaps are the file's own or are remarked, and a cut changes nothing."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskbatch.sources.videos.clock import ASSUMED_RATE, Clock, counted, plausible_rate, read_clock

BASE = Fraction(1, 90_000)
SPAN = 3_600  # 25 frames per second
WRAP = 1 << 33


def clock(stamps: list[int | None], *, mpeg: bool = True, rate: Fraction | None = Fraction(25)) -> Clock:
    return read_clock(stamps, stamps, BASE, rate, mpeg=mpeg)


def seconds(found: Clock) -> list[float]:
    times = np.sort(found.pts)
    return ((times - times[0]) * float(BASE)).tolist()


steps = st.lists(st.integers(1, 30 * 90_000), min_size=3, max_size=60)


@given(steps, st.integers(-(1 << 32), 1 << 40))
def test_a_sound_clock_is_left_as_it_is_wherever_it_starts(gaps: list[int], start: int) -> None:
    stamps = (start + np.cumsum(gaps)).tolist()
    found = clock(stamps)
    assert found.by_stamp
    assert found.problem is None
    assert found.pts.tolist() == stamps


@given(steps, st.data())
def test_a_wrapped_clock_goes_on_without_a_word(gaps: list[int], data: st.DataObject) -> None:
    times = np.cumsum(gaps)
    where = int(times[data.draw(st.integers(1, len(gaps) - 1))])
    stamps = ((times - where) % WRAP).tolist()
    found = clock(stamps)
    assert found.problem is None
    assert seconds(found) == pytest.approx(((times - times[0]) * float(BASE)).tolist())


@given(steps, steps, st.integers(2 * 90_000, 1 << 31), st.booleans())
def test_joined_clips_follow_on_and_that_is_said(first: list[int], second: list[int], jump: int, back: bool) -> None:
    a, b = np.cumsum(first), np.cumsum(second)
    jump = max(jump, 3_601 * 90_000) if not back else jump
    stamps = [*a.tolist(), *(a[-1] + (-jump if back else jump) + b - b[0]).tolist()]
    found = clock(stamps)
    assert found.problem is not None
    assert found.problem.status == "partial"
    assert "follow on" in found.problem.message
    expected = [*np.diff(a).tolist(), SPAN, *np.diff(b).tolist()]
    assert np.diff(np.sort(found.pts)).tolist() == expected


def test_a_pause_in_a_file_that_has_one_clock_is_kept() -> None:
    stamps: list[int | None] = [0, SPAN, 10 * 3600 * 90_000, 10 * 3600 * 90_000 + SPAN]
    assert clock(stamps, mpeg=False).pts.tolist() == stamps
    assert clock([0, SPAN, 600 * 90_000], mpeg=True).problem is None


@given(st.lists(st.integers(0, 3), min_size=4, max_size=40))
def test_times_never_fall_and_stay_within_the_file(values: list[int]) -> None:
    stamps = sorted(value * 10 * SPAN for value in values)
    found = clock(list(stamps), mpeg=False)
    times = np.sort(found.pts)
    assert (np.diff(times) >= 0).all()
    if found.by_stamp:
        assert np.unique(stamps, return_counts=True)[1].max() < 3
    else:
        assert found.problem is not None
        assert np.diff(times).max(initial=0) <= max(10 * SPAN * 3, SPAN)


def test_standing_stamps_are_spread_and_all_equal_ones_counted() -> None:
    found = clock([0, SPAN, SPAN, SPAN, 4 * SPAN, 5 * SPAN])
    assert found.pts.tolist() == [0, SPAN, 2 * SPAN, 3 * SPAN, 4 * SPAN, 5 * SPAN]
    assert found.problem is not None
    assert found.problem.status == "ok"
    still = clock([7] * 10)
    assert seconds(still) == pytest.approx([i / 25 for i in range(10)])
    assert still.problem is not None
    assert "stand still" in still.problem.message


def test_missing_stamps_are_counted_at_the_rate_of_the_header_or_an_assumed_one() -> None:
    found = read_clock([None] * 5, [None] * 5, BASE, None, mpeg=False)
    assert found.pts.tolist() == [0, 3_600, 7_200, 10_800, 14_400]
    assert found.problem is not None
    assert "assumed" in found.problem.message
    assert counted(3, BASE, Fraction(10)).problem is None
    assert plausible_rate(Fraction(1_200_000), None, Fraction(15)) == 15
    assert plausible_rate(Fraction(1_200_000), None) is None
    assert ASSUMED_RATE == 25


@given(steps, st.integers(1, 58))
def test_a_cut_changes_no_time(gaps: list[int], cut: int) -> None:
    stamps = np.cumsum(gaps).tolist()
    cut = min(cut, len(stamps) - 1)
    whole = clock(stamps).pts.tolist()
    assert clock(stamps[:cut]).pts.tolist() + clock(stamps[cut:]).pts.tolist() == whole


@pytest.mark.parametrize("at_the_end", [True, False])
def test_a_single_packet_that_comes_late_is_no_jump(at_the_end: bool) -> None:
    times = [i * SPAN for i in range(250)]
    late = times.pop(100)
    times.insert(len(times) - (0 if at_the_end else 1), late)
    found = clock(times)
    assert seconds(found) == pytest.approx([i / 25 for i in range(250)])
    assert found.problem is not None
    assert (found.problem.status, found.problem.message) == ("ok", "1 packet lies behind its place in the file")
    clip = clock([*times[:-2], times[-1] + 600 * SPAN, late, late + SPAN])
    assert clip.problem is not None
    assert clip.problem.status == "partial", "two are a clip"
