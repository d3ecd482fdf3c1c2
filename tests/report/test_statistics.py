"""Planted effects are found; where there are none, and people of a camera-day resemble each other, one in twenty is called significant."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest

from maskbatch.report.people import People
from maskbatch.report.statistics.intervals import share_interval, t_quantile
from maskbatch.tasks import MASK

sm = pytest.importorskip("statsmodels.api", reason="needs the extra stats")
models = pytest.importorskip("maskbatch.report.statistics.models")
plan = pytest.importorskip("maskbatch.report.statistics.plan")


def archive(
    rng: np.random.Generator,
    cameras: int = 6,
    days: int = 14,
    *,
    spread: float = 0.6,
    place: float = 0.0,
    evening: float = 0.0,
    each: int = 10,
) -> People:
    """People of camera-days that differ by chance (`spread`, in log-odds); the first camera and the evenings may differ for good."""
    camera, day, hour = (
        part.ravel() for part in np.meshgrid(np.arange(cameras), np.arange(days), np.arange(8, 20), indexing="ij")
    )
    logit = (
        1.0
        + spread * rng.standard_normal((cameras, days))[camera, day]
        - place * (camera == 0)
        - evening * (hour >= 18)
    )
    count = rng.poisson(each, len(camera)) + 1
    correct = rng.binomial(count, 1 / (1 + np.exp(-logit)))
    label = np.concatenate([np.r_[np.zeros(y), np.ones(n - y)] for y, n in zip(correct, count, strict=True)]).astype(
        np.uint8
    )
    names = tuple(f"cam {i}" for i in range(cameras))
    zero = np.zeros(len(label), np.uint8)
    return People(
        MASK, "people", names, camera, day * 24 + hour, count, label, zero, zero, dt.date(2026, 3, 2), "UTC", 0, {}
    )


def p_values(people: People) -> dict[str, float]:
    found: dict[str, float] = plan.answer_questions(people).values["p"]
    return found


def test_planted_effects_are_found_and_their_size_too() -> None:
    content = plan.answer_questions(archive(np.random.default_rng(3), days=40, place=1.0, evening=0.8))
    assert content.values["p_holm"]["camera"] < 0.001
    assert content.values["p_holm"]["hour of day"] < 0.001
    assert content.values["p_holm"]["weekday"] > 0.01
    odds = {row[1]: row[3:6] for row in content.tables[1].rows}
    ratio, low, high = odds["evening 18–24"]
    assert low < np.exp(-0.8) < high
    assert ratio == pytest.approx(np.exp(-0.8), rel=0.15)


@pytest.mark.slow
def test_without_an_effect_one_in_twenty_is_called_significant_and_the_naive_test_errs() -> None:
    rng = np.random.default_rng(11)
    hits, naive, draws = dict.fromkeys(("camera", "hour of day", "weekday"), 0), 0, 1000
    for _ in range(draws):
        content = plan.answer_questions(archive(rng))
        for question, p in content.values["p"].items():
            hits[question] += p < 0.05
        naive += content.tables[0].rows[0][5] < 0.05
    rates = {question: count / draws for question, count in hits.items()}
    print(f"called significant: {rates}; naive chi-square on cameras: {naive / draws}")
    for question, rate in rates.items():
        assert 0.035 <= rate <= 0.065, (question, rates)
    assert naive / draws > 0.5


def test_without_an_effect_few_are_called_significant() -> None:
    rng = np.random.default_rng(5)
    found = [p_values(archive(rng))["camera"] < 0.05 for _ in range(60)]
    assert sum(found) <= 9, "5 % of 60 is 3; more than 9 has a chance of 1 in 1,000"


def test_sparse_cells_are_permuted() -> None:
    people = archive(np.random.default_rng(1), cameras=3, days=8, spread=0.0, each=0)
    content = plan.answer_questions(people)
    assert content.values["tested"]
    sizes = models.two_way(np.arange(6), np.array([1, 0, 1, 0, 1, 0]), np.full(6, 2))
    assert sizes.sparse


def test_permutation_has_its_level() -> None:
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(4), 6)
    found = [
        models.permute_clusters(group, rng.binomial(20, rng.beta(4, 2, 24)), np.full(24, 20), 99, int(i)) <= 0.05
        for i in range(200)
    ]
    assert 0.01 <= np.mean(found) <= 0.10


def test_gee_equals_that_of_statsmodels_on_single_people() -> None:
    people = archive(np.random.default_rng(4), cameras=3, days=6)
    cells = people.cells
    camera = people.cell_camera
    design, _ = models.dummies(camera, 0)
    design = np.column_stack([np.ones(len(camera)), design])
    ours = models.gee(
        design, ("a", "b", "c"), people.cell_correct.astype(float), people.cell_count.astype(float), people.cell_cluster
    )
    judge = sm.GEE(
        (people.label == 0).astype(float), design[cells], people.cell_cluster[cells], family=sm.families.Binomial()
    )
    fitted = judge.fit(cov_type="bias_reduced")
    assert np.allclose(ours.log_odds, fitted.params, atol=1e-6)
    # statsmodels applies the correction to correlated residuals by a symmetric root in place of the inverse, hence not to the last digit.
    assert np.allclose(np.sqrt(np.diag(ours.covariance)), fitted.bse, rtol=0.1)
    uncorrected = judge.fit(cov_type="robust")
    assert np.all(np.sqrt(np.diag(ours.covariance)) >= np.asarray(uncorrected.bse))


def test_firth_is_finite_under_separation_and_equals_half_a_person_more_per_cell() -> None:
    """Of a saturated 2×2 table Firth's estimate is that of the table with ½ added to each cell (Heinze and Schemper 2002)."""
    design = np.array([[1.0, 0.0], [1.0, 1.0]])
    found = models.firth(design, ("a", "b"), np.array([7.0, 10.0]), np.array([10.0, 10.0]), np.arange(2))
    expected = np.log(7.5 / 3.5), np.log(10.5 / 0.5) - np.log(7.5 / 3.5)
    assert np.allclose(found.log_odds, expected, atol=1e-6)


def test_holm_is_that_of_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    p = [0.04, 0.001, 0.03]
    assert np.allclose(models.holm(p), multipletests(p, method="holm")[1])


def test_quantiles_of_t() -> None:
    from scipy.stats import t

    for freedom in (4, 9, 30, 500):
        assert t_quantile(freedom) == pytest.approx(t.ppf(0.975, freedom), abs=0.01)


@pytest.mark.parametrize(("days", "method"), [(3, "bootstrap over camera-days"), (14, "cluster-robust")])
def test_intervals_cover_what_they_promise(days: int, method: str) -> None:
    rng = np.random.default_rng(8)
    big = archive(rng, cameras=60, days=60)
    truth = big.cell_correct.sum() / big.cell_count.sum()
    hits: list[Any] = []
    for _ in range(150):
        people = archive(rng, days=days)
        found = share_interval(people.cell_correct, people.cell_count, people.cell_cluster)
        assert found.method == method
        hits.append(found.low <= truth <= found.high)  # type: ignore[operator]
    assert 0.86 <= np.mean(hits) <= 0.99


def test_no_interval_where_nothing_is_known_of_the_spread() -> None:
    found = share_interval(np.array([3, 4]), np.array([5, 5]), np.array([0, 1]))
    assert (found.share, found.low, found.clusters) == (0.7, None, 2)
    full = share_interval(np.full(40, 5), np.full(40, 5), np.arange(40))
    assert full.low is not None
    assert 0.85 < full.low < 1.0, "all correct is not certainty"
