"""People are counted once: passers-by with known truth, at the steps that archives are scanned with."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from shared_data import REPOSITORY

pytest.importorskip("scipy", reason="needs the extra `track`")
sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from walkers import Walkers, make, measure

from maskbatch.config import FOLLOWING_FPS, WIDEST_STEP_S
from maskbatch.results.following import Follower


@pytest.mark.parametrize("people", [1.0, 3.0, 10.0])
@pytest.mark.parametrize("fps", [FOLLOWING_FPS, 5.0, 10.0])
def test_from_three_frames_a_second_the_count_is_right_to_a_tenth(people: float, fps: float) -> None:
    assert measure(Walkers(people, seconds=90), fps, 1)["count_over_truth"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("people", [1.0, 3.0])
def test_at_a_frame_a_second_it_is_right_to_a_fifth(people: float) -> None:
    assert measure(Walkers(people, seconds=150), 1.0, 2)["count_over_truth"] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("speed", [0.8, 2.0])
def test_one_passer_by_is_one_person(speed: float) -> None:
    """At .8 m/s and a frame a second it was four, at 2 m/s and five frames a second seven."""
    for fps in (1.0, 2.0, 5.0):
        found = measure(Walkers(0.3, (speed, speed), seconds=300, stops=0.0), fps, 1)
        assert found["count_over_truth"] == pytest.approx(1, abs=0.15), fps


def test_nobody_becomes_somebody_else_at_five_frames_a_second() -> None:
    assert measure(Walkers(3.0, seconds=90), 5.0, 1)["changes_per_100_sightings"] < 1


def test_the_step_for_following_is_not_one_that_is_warned_of() -> None:
    assert 1 / FOLLOWING_FPS < WIDEST_STEP_S


def test_who_stands_still_while_others_pass_stays_the_same() -> None:
    follower = Follower(np.arange(0, 10, 0.5))
    numbers = []
    for time_s in np.arange(0, 10, 0.5):
        x = 60.0 * time_s
        boxes = np.array([[300, 100, 340, 150], [x, 105, x + 40, 155.0]])
        numbers.append(follower.update(boxes, np.array([0.9, 0.8]), float(time_s)).tolist())
    assert {pair[0] for pair in numbers} == {0}


def test_synthetic_rows_are_in_the_order_that_a_result_has() -> None:
    table, truth = make(Walkers(3.0, seconds=20), 2.0, 0)
    assert len(table) == len(truth)
    assert (np.diff(table["frame"].to_numpy()) >= 0).all()
