"""Tests of association on cells: naive chi-square, permutation within or of clusters, logistic GEE, Firth's logistic regression.

All take people aggregated in cells (one camera and hour), which changes neither estimates nor tests but makes a million people cheap.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskbatch.errors import MissingExtraError
from maskbatch.report.people import Array

PERMUTATIONS = 999


@dataclass(frozen=True, slots=True)
class Table2:
    """Groups by correct or not.

    Attributes:
        chi2: Pearson's statistic, whose naive p-value takes people as independent.
        naive_p: that p-value; shown beside the others to tell the difference, never as the answer.
        cramers_v: effect size, 0 to 1.
        residuals: k, adjusted standardised residual of "correct" per group (Agresti 2013, 3.3.1), naive as well.
        sparse: more than a fifth of the expected counts is below five (Cochran 1954).
    """

    chi2: float
    naive_p: float
    cramers_v: float
    residuals: Array
    sparse: bool


@dataclass(frozen=True, slots=True)
class Logistic:
    """A logistic regression with a cluster-robust covariance.

    Attributes:
        names: of the coefficients.
        log_odds: k.
        covariance: k×k.
        method: ``GEE`` or ``Firth``.
        clusters: g.
    """

    names: tuple[str, ...]
    log_odds: Array
    covariance: Array
    method: str
    clusters: int

    def joint_p(self, chosen: list[int]) -> float:
        """Wald's test that these coefficients are all 0, referred to F with clusters − coefficients degrees of freedom."""
        from scipy.stats import f

        beta, cov = self.log_odds[chosen], self.covariance[np.ix_(chosen, chosen)]
        freedom = max(1, self.clusters - len(self.log_odds))
        return float(f.sf(beta @ np.linalg.pinv(cov) @ beta / len(chosen), len(chosen), freedom))


def two_way(group: Array, correct: Array, people: Array) -> Table2:
    """Chi-square of group by correct; groups without people must not occur."""
    from scipy.stats import chi2 as distribution

    yes = np.bincount(group, correct)
    total = np.bincount(group, people)
    share = yes.sum() / total.sum()
    expected = np.concatenate([total * share, total * (1 - share)])
    if share in (0.0, 1.0) or len(total) < 2:
        return Table2(0.0, 1.0, 0.0, np.zeros(len(total)), True)
    statistic = float(((yes - total * share) ** 2 / (total * share * (1 - share))).sum())
    spread = np.sqrt(total * share * (1 - share) * (1 - total / total.sum()))
    residuals = (yes - total * share) / np.where(spread > 0, spread, 1)
    p = float(distribution.sf(statistic, len(total) - 1))
    return Table2(statistic, p, float(np.sqrt(statistic / total.sum())), residuals, bool((expected < 5).mean() > 0.2))


def permute_clusters(group: Array, correct: Array, people: Array, draws: int = PERMUTATIONS, seed: int = 0) -> float:
    """p-value of "groups are alike" where each row is a whole cluster: groups are dealt out anew among the clusters."""
    rng = np.random.default_rng(seed)
    observed = _between(group, correct, people)
    hits = sum(_between(rng.permutation(group), correct, people) >= observed * (1 - 1e-12) for _ in range(draws))
    return (1 + hits) / (1 + draws)


def permute_within(
    group: Array, cluster: Array, correct: Array, people: Array, draws: int = PERMUTATIONS, seed: int = 0
) -> float:
    """The same for groups that vary within clusters (hours): who was correct is dealt out anew within each cluster."""
    rng = np.random.default_rng(seed)
    order = np.argsort(cluster, kind="stable")
    group, correct, people, cluster = group[order], correct[order], people[order], cluster[order]
    bounds = [*np.flatnonzero(np.diff(cluster, prepend=cluster[:1] - 1)), len(cluster)]
    drawn = np.empty((draws, len(group)), np.int64)
    for begin, end in itertools.pairwise(bounds):
        part = people[begin:end].astype(np.int64)
        drawn[:, begin:end] = rng.multivariate_hypergeometric(
            part, int(correct[begin:end].sum()), draws, method="marginals"
        )
    observed = _between(group, correct, people)
    hits = sum(_between(group, one, people) >= observed * (1 - 1e-12) for one in drawn)
    return (1 + hits) / (1 + draws)


def _between(group: Array, correct: Array, people: Array) -> float:
    yes, total = np.bincount(group, correct), np.bincount(group, people)
    keep = total > 0
    return float((yes[keep] ** 2 / total[keep]).sum())


def gee(design: Array, names: tuple[str, ...], correct: Array, people: Array, cluster: Array) -> Logistic:
    """Logistic GEE with an independence working correlation (so that cells stand exactly for their people) and the bias-reduced
    sandwich of Mancl and DeRouen (2001), without which few clusters give too many false alarms.

    Raises:
        MissingExtraError: statsmodels is not installed.
    """
    try:
        from statsmodels.genmod.cov_struct import Independence
        from statsmodels.genmod.families import Binomial
        from statsmodels.genmod.generalized_estimating_equations import GEE
    except ImportError as error:
        raise MissingExtraError("tests need the extra `stats`: pip install 'maskbatch[stats]'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = GEE(
            correct / people, design, groups=cluster, family=Binomial(), cov_struct=Independence(), weights=people
        )
        fitted = model.fit(maxiter=60)
    beta = np.asarray(fitted.params)
    return Logistic(names, beta, _bias_reduced(design, correct, people, cluster, beta), "GEE", len(np.unique(cluster)))


def _bias_reduced(design: Array, correct: Array, people: Array, cluster: Array, beta: Array) -> Array:
    """Sandwich at `beta` with the residuals of each cluster blown up by (1 − H)⁻¹ (Mancl and DeRouen 2001, equation 6)."""
    mean = 1 / (1 + np.exp(-design @ beta))
    weight = people * mean * (1 - mean)
    bread = np.linalg.pinv((design * weight[:, None]).T @ design)
    meat = np.zeros_like(bread)
    order = np.argsort(cluster, kind="stable")
    edges = np.flatnonzero(np.diff(cluster[order])) + 1
    for rows in np.split(order, edges):
        part = design[rows]
        leverage = (weight[rows, None] * part) @ bread @ part.T
        residual = correct[rows] - people[rows] * mean[rows]
        score = part.T @ np.linalg.lstsq(np.eye(len(rows)) - leverage, residual, rcond=1e-8)[0]
        meat += np.outer(score, score)
    return np.asarray(bread @ meat @ bread)


def firth(design: Array, names: tuple[str, ...], correct: Array, people: Array, cluster: Array) -> Logistic:
    """Firth's penalised likelihood (1993; Heinze and Schemper 2002), which stays finite where a group is all correct or none is,
    with the same cluster-robust covariance."""
    beta = np.zeros(design.shape[1])
    for _ in range(200):
        mean = 1 / (1 + np.exp(-design @ beta))
        weight = people * mean * (1 - mean)
        inverse = np.linalg.pinv((design * weight[:, None]).T @ design)
        hat = weight * np.einsum("ij,jk,ik->i", design, inverse, design)
        step = inverse @ (design.T @ (correct - people * mean + hat * (0.5 - mean)))
        largest = float(np.abs(step).max())
        beta = beta + step * min(1.0, 2.0 / largest if largest else 1.0)
        if largest < 1e-8:
            break
    return Logistic(
        names, beta, _bias_reduced(design, correct, people, cluster, beta), "Firth", len(np.unique(cluster))
    )


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjustment (1979)."""
    order = np.argsort(p_values)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def dummies(group: Array, reference: int) -> tuple[Array, list[int]]:
    """Indicator columns of all groups that occur but the reference, and which groups they are."""
    levels = [int(level) for level in np.unique(group) if level != reference]
    columns: Any = np.column_stack([group == level for level in levels]) if levels else np.empty((len(group), 0))
    return columns.astype(float), levels
