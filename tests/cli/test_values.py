"""Times and samplings as people write them."""

from __future__ import annotations

import pytest

from maskbatch.cli.reporters import clock, printable
from maskbatch.cli.values import sampling_from, seconds
from maskbatch.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1s", 1),
        ("500ms", 0.5),
        ("2m", 120),
        ("1.5", 1.5),
        ("2h", 7200),
        ("1:30", 90),
        ("01:02:03", 3723),
        ("0:00.5", 0.5),
    ],
)
def test_times_are_read_in_every_usual_spelling(text: str, expected: float) -> None:
    assert seconds(text, "--every") == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1:2:3:4", "3 weeks", "1:xx"])
def test_what_is_no_time_is_refused_with_the_option_named(text: str) -> None:
    with pytest.raises(UsageError, match="--start"):
        seconds(text, "--start")


def test_default_is_one_frame_per_second() -> None:
    sampling = sampling_from(None, None, False, False, None, None, "none", 10.0)
    assert (sampling.mode, sampling.every_s, sampling.start_s, sampling.end_s) == ("every", 1.0, 0.0, None)


def test_frames_per_second_are_the_inverse_of_a_step() -> None:
    assert sampling_from(None, 4.0, False, False, None, None, "none", 10.0).every_s == 0.25


def test_samplings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="--every and --keyframes"):
        sampling_from("1s", None, True, False, None, None, "none", 10.0)
    with pytest.raises(UsageError, match="not after"):
        sampling_from(None, None, False, False, "10s", "5s", "none", 10.0)
    with pytest.raises(UsageError, match="more than 0"):
        sampling_from("0s", None, False, False, None, None, "none", 10.0)


def test_file_names_cannot_steer_a_terminal() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert printable("größe 😷.jpg") == "größe 😷.jpg"


def test_clock_shows_hours() -> None:
    assert clock(3723.4) == "1:02:03"
