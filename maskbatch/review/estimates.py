"""From a random sample of answers to shares with intervals: stratified, prediction-powered estimates of a ratio.

The model answered for everybody, people for a sample. The share is estimated by the model's answers plus the mean error seen in the sample
(Angelopoulos et al. 2023, *Prediction-powered inference*, Science 382), weighted by a factor that makes the variance smallest (Angelopoulos, Duchi
and Zrnic 2023, *PPI++*, arXiv:2311.01453). The sample is drawn without replacement within strata, so the variance is that of the design (Cochran 1977,
*Sampling Techniques*, chapters 5 and 6), with the finite-population correction, and holds whatever the faces have in common: it needs no
model of how those of one camera depend on each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
LEVEL = 0.95
_PRIOR = 0.5
"""Errors, and right answers, that are added to each group when its variance is estimated: a group in which nobody found an error still may hold some
(the idea of Agresti and Coull 1998)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A stratified random sample of n units with answers.

    Attributes:
        stratum: n int, of each unit.
        group: n int: strata of one group (the same predicted label) share their variance.
        sizes: units per stratum in the population.
        prediction: n float, the model's probability of the headline label.
        means: mean of that over each whole stratum.
        positive: n bool: by the answer it is a face with the headline label.
        real: n bool: by the answer it is a face.
    """

    stratum: Array
    group: Array
    sizes: Array
    prediction: Array
    means: Array
    positive: Array
    real: Array

    def __len__(self) -> int:
        return len(self.stratum)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share.

    Attributes:
        value: estimate.
        low: of the 95 % interval.
        high: of it.
        answers: that it rests on.
        power: weight of the model's answers, 0 (they say nothing) to 1.
        labels_only: half the width of the interval from the answers alone, by a simple random sample of the same size.
    """

    value: float
    low: float
    high: float
    answers: int
    power: float
    labels_only: float

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    def more_for(self, half_width: float) -> int:
        """Answers that are missing until the interval is so narrow, if the errors go on as they were; 0 = none."""
        if self.half_width <= half_width:
            return 0
        return math.ceil(self.answers * ((self.half_width / half_width) ** 2 - 1))


def estimate(sample: Sample) -> Estimate | None:
    """The share of the headline label among the faces of a population; None where no answer says that there is one."""
    count = np.bincount(sample.stratum, minlength=len(sample.sizes)).astype(float)
    used = count > 0
    if not used.any() or not sample.real.any():
        return None
    # A stratum nobody answered in is taken to be as the others of its kind; the draw gives each at least one.
    sizes = np.where(used, sample.sizes, 0).astype(float)
    weight = sizes / sizes.sum()
    per_unit = (weight / np.maximum(count, 1))[sample.stratum]
    finite = np.maximum(0.0, 1 - count / np.maximum(sample.sizes, 1))
    positive, real = sample.positive.astype(float), sample.real.astype(float)
    share_real = float(per_unit @ real)
    first = float(per_unit @ positive) / share_real
    spread = (weight**2 * finite / np.maximum(count, 1))[sample.stratum]
    power = _power(positive - first * real, sample.prediction, sample.group, spread)
    model = float(weight @ np.where(used, sample.means, 0))
    value = (power * model + float(per_unit @ (positive - power * sample.prediction))) / share_real
    value = min(1.0, max(0.0, value))
    rest = positive - power * sample.prediction - value * real
    variance, freedom = _variance(rest, sample, weight**2 * finite / np.maximum(count, 1), used)
    error = math.sqrt(variance) / share_real
    low, high = _interval(value, error, freedom)
    plain = math.sqrt(max(first * (1 - first), 1e-9) / len(sample) * float(finite[used].mean()))
    return Estimate(value, low, high, len(sample), power, _quantile(len(sample) - 1) * plain)


def interval_of_ratio(part: Array, whole: Array, population: int) -> Estimate | None:
    """The ratio of two sums over n units drawn at random (frames), with a 95 % interval (Cochran 1977, 6.4); None where `whole` sums to 0.

    Args:
        part: n numbers, of what counts in each unit.
        whole: n numbers, of all in each unit.
        population: units there are.
    """
    count, total = len(whole), float(whole.sum())
    if not total:
        return None
    value = float(part.sum()) / total
    rest = part - value * whole
    squares = float((rest**2).sum()) + _PRIOR * ((1 - value) ** 2 + value**2)
    finite = max(0.0, 1 - count / max(1, population))
    error = math.sqrt(squares * count / max(1, count - 1) * finite) / total
    low, high = _interval(value, error, max(1.0, count - 1.0))
    return Estimate(value, low, high, count, 0.0, error)


def _power(residual: Array, prediction: Array, group: Array, spread: Array) -> float:
    """The weight of the predictions that makes the variance smallest, from 0 to 1."""
    covariance = variance = 0.0
    for number in np.unique(group):
        inside = group == number
        if inside.sum() < 3:
            continue
        weight = float(spread[inside].mean() * inside.sum())
        r, p = residual[inside] - residual[inside].mean(), prediction[inside] - prediction[inside].mean()
        covariance += weight * float((r * p).mean())
        variance += weight * float((p * p).mean())
    return 0.0 if variance <= 1e-12 else min(1.0, max(0.0, covariance / variance))


def _variance(rest: Array, sample: Sample, factor: Array, used: Array) -> tuple[float, float]:
    """Variance of the stratified mean of `rest`, and its degrees of freedom (Satterthwaite 1946)."""
    group_of = np.zeros(len(sample.sizes), np.int64)
    group_of[sample.stratum] = sample.group
    total = scale = 0.0
    for number in np.unique(sample.group):
        inside = sample.group == number
        values = rest[inside]
        n = len(values)
        # One unit as far from the mean as an error would be, on each side.
        centre = float(values.mean())
        squares = float(((values - centre) ** 2).sum()) + _PRIOR * ((1 - abs(centre)) ** 2 + centre**2)
        spread = squares / max(1, n - 1 + 2 * _PRIOR)
        part = spread * float(factor[used & (group_of == number)].sum())
        total += part
        scale += part**2 / max(1.0, n - 1)
    return total, (total**2 / scale if scale > 0 else 1.0)


def _interval(value: float, error: float, freedom: float) -> tuple[float, float]:
    """On the scale of the logit, where shares near 0 and 1 have room on one side only."""
    reach = _quantile(freedom) * error
    inside = min(max(value, 1e-4), 1 - 1e-4)
    step = reach / (inside * (1 - inside))
    if step > 4:  # hardly anything is known
        return max(0.0, value - reach), min(1.0, value + reach)
    middle = math.log(inside / (1 - inside))
    low, high = (1 / (1 + math.exp(-(middle + sign * step))) for sign in (-1, 1))
    return min(low, value), max(high, value)


def _quantile(freedom: float) -> float:
    """Of Student's t at 97.5 % (the expansion of Abramowitz and Stegun, 26.7.5)."""
    z, n = 1.959963985, max(1.0, freedom)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / n ** (power + 1) for power, term in enumerate(terms))


def allocate(sizes: Array, total: int) -> Array:
    """Units to draw from each stratum: in proportion, at least two, never more than there are."""
    sizes = np.asarray(sizes, np.int64)
    least = np.minimum(sizes, 2)
    wanted = np.maximum(least, np.floor(total * sizes / max(1, sizes.sum())).astype(np.int64))
    drawn: Array = np.minimum(sizes, wanted)
    return drawn
