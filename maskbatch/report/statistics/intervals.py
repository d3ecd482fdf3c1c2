"""95 % intervals of shares, where people of one camera and day are not independent of each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from maskbatch.report.people import Array

FEW_CLUSTERS = 30
LEAST_CLUSTERS = 5
DRAWS = 400
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class ShareInterval:
    """A share and its 95 % interval; `low` and `high` are None where there are too few clusters to know."""

    share: float | None
    low: float | None
    high: float | None
    people: int
    clusters: int
    method: str


def t_quantile(freedom: int) -> float:
    """97.5 % quantile of Student's t (expansion in 1/ν; Abramowitz and Stegun 26.7.5); within .01 from 4 degrees on."""
    z, v = _Z, float(freedom)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )


def share_interval(correct: Array, people: Array, cluster: Array) -> ShareInterval:
    """The share of `correct` among `people`.

    From `FEW_CLUSTERS` on, the linearised cluster-robust variance of a ratio, put as an effective sample size into Wilson's interval
    with Student's t (Dean and Pagano 2015, J. Surv. Stat. Methodol. 3(4), section 2); below, the percentiles of a bootstrap
    over the clusters; below `LEAST_CLUSTERS` none. Where all or none are correct, each cluster counts as one observation.

    Args:
        correct: c int, per cell.
        people: c int, per cell.
        cluster: c int, which cells belong together.
    """
    _, index = np.unique(cluster[people > 0], return_inverse=True)
    y = np.bincount(index, correct[people > 0])
    n = np.bincount(index, people[people > 0])
    clusters, total = len(n), int(n.sum())
    if not total:
        return ShareInterval(None, None, None, 0, 0, "none")
    share = float(y.sum() / total)
    if clusters < LEAST_CLUSTERS:
        return ShareInterval(share, None, None, total, clusters, "too few camera-days")
    t = t_quantile(clusters - 1)
    if share in (0.0, 1.0):
        return ShareInterval(share, *_wilson(share, clusters, t), total, clusters, "Wilson over camera-days")
    if clusters < FEW_CLUSTERS:
        drawn = np.random.default_rng(0).integers(0, clusters, (4 * DRAWS, clusters))
        low, high = np.quantile(y[drawn].sum(1) / n[drawn].sum(1), (0.025, 0.975))
        return ShareInterval(share, float(low), float(high), total, clusters, "bootstrap over camera-days")
    variance = clusters / (clusters - 1) * float(((y - share * n) ** 2).sum()) / total**2
    effective = share * (1 - share) / variance if variance > 0 else float(total)
    return ShareInterval(share, *_wilson(share, effective, t), total, clusters, "cluster-robust")


def _wilson(share: float, count: float, t: float) -> tuple[float, float]:
    centre = (share + t * t / (2 * count)) / (1 + t * t / count)
    half = t / (1 + t * t / count) * math.sqrt(share * (1 - share) / count + t * t / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)
