"""`--since` takes a time or a duration, and old is what was captured before it."""

from __future__ import annotations

import datetime as dt
import zoneinfo

import pytest

from maskbatch.errors import UsageError
from maskbatch.sources.since import is_since, iso_time, since_time
from maskbatch.types import Problem, Source

NOW = dt.datetime(2026, 3, 8, 12, tzinfo=dt.UTC).timestamp()
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", "2026-03-01T12:00:00Z"),
        ("1.5h", "2026-03-08T10:30:00Z"),
        ("90 m", "2026-03-08T10:30:00Z"),
        ("2w", "2026-02-22T12:00:00Z"),
        ("2026-03-01", "2026-02-28T23:00:00Z"),
        ("2026-03-01T08:00", "2026-03-01T07:00:00Z"),
        ("2026-03-01T08:00:00Z", "2026-03-01T08:00:00Z"),
        ("2026-03-01T08:00-05:00", "2026-03-01T13:00:00Z"),
    ],
)
def test_times_and_durations(text: str, expected: str) -> None:
    assert iso_time(since_time(text, BERLIN, NOW)) == expected


def test_python_times() -> None:
    moment = dt.datetime(2026, 3, 1, 8)
    assert since_time(moment, BERLIN, NOW) == since_time("2026-03-01T07:00Z", dt.UTC, NOW)
    assert since_time(1e9, BERLIN, NOW) == 1e9


@pytest.mark.parametrize("text", ["yesterday", "7", "7 years", "", "12:00", "nan d"])
def test_anything_else_is_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="--since is a time such as"):
        since_time(text, dt.UTC, NOW)


def test_nothing_is_newer_than_the_future() -> None:
    with pytest.raises(UsageError, match="--since 2027-01-01 is in the future"):
        since_time("2027-01-01", dt.UTC, NOW)


def test_the_time_of_capture_goes_before_that_of_the_file() -> None:
    copied_today = Source("/a", "a", "image", 1, round(NOW * 1e9), start_time=NOW - 1e6)
    assert not is_since(copied_today, NOW - 1e5)
    assert is_since(copied_today, NOW - 1e6)
    assert is_since(Source("/a", "a", "image", 1, round(NOW * 1e9)), NOW)
    assert not is_since(Source("/a", "a", "image", 1, round(NOW * 1e9) - 1_000_000), NOW)


def test_what_has_no_time_and_what_cannot_be_read_stays() -> None:
    assert is_since(Source("https://x/a.jpg", "a.jpg", "image", 1), NOW)
    assert is_since(Source("/a", "a", "image", 0, 1, problem=Problem("error", "permission", "no")), NOW)
