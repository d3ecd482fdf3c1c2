"""Is one detector better than another, or was it luck? Paired tests on the same images and the same faces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskbatch.evaluate.metrics import Match
from maskbatch.evaluate.scores import Scores


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class DetectorComparison:
    """Detector `first` against `second`.

    Attributes:
        ap_difference: AP@.5 of the first minus the second.
        ap_p: two-sided bootstrap p-value of that difference.
        only_first: faces that only the first found, each at its own operating score.
        only_second: faces that only the second found.
        found_p: two-sided exact p-value of McNemar's test on these two counts.
    """

    first: str
    second: str
    ap_difference: Interval
    ap_p: float
    only_first: int
    only_second: int
    found_p: float

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        difference = self.ap_difference
        return {
            "first": self.first,
            "second": self.second,
            "ap50_difference": difference.value,
            "ap50_difference_95": [difference.low, difference.high],
            "ap50_p": self.ap_p,
            "found_by_first_only": self.only_first,
            "found_by_second_only": self.only_second,
            "mcnemar_p": self.found_p,
        }

    def sentence(self) -> str:
        """The outcome in words."""
        d = self.ap_difference
        words = f"{self.first} against {self.second}: AP@.5 {d.value:+.3f} (95 % {d.low:+.3f} to {d.high:+.3f}, p {_p(self.ap_p)}); "
        if self.found_p >= 0.05 or self.only_first == self.only_second:
            verdict = "neither finds significantly more faces"
        else:
            verdict = f"{self.first if self.only_first > self.only_second else self.second} finds more faces"
        return (
            words
            + f"{self.only_first} faces only by the first, {self.only_second} only by the second: {verdict} (p {_p(self.found_p)})"
        )


class Resampling:
    """Bootstrap over images: the same draws for every detector, which is what pairs them.

    Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), chapters 13 and 16: percentile intervals, and a two-sided p-value
    from the share of draws on the other side of zero.
    """

    def __init__(self, pictures: int, draws: int = 1000, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self._weights = generator.multinomial(pictures, np.full(pictures, 1 / pictures), size=draws)

    def average_precision(self, matches: Sequence[Match]) -> npt.NDArray[np.float64]:
        """AP of each draw."""
        picture = np.repeat(np.arange(len(matches)), [len(m.scores) for m in matches])
        scores = np.concatenate([m.scores for m in matches])
        order = np.argsort(-scores, kind="stable")
        picture, correct = picture[order], np.concatenate([m.correct for m in matches])[order]
        faces = np.array([m.faces for m in matches])
        found = np.empty(len(self._weights))
        for draw, weights in enumerate(self._weights):
            weight = weights[picture]
            hits = np.cumsum(weight * correct)
            seen = np.cumsum(weight)
            total = int(weights @ faces)
            if not total:
                found[draw] = np.nan
                continue
            precision = np.divide(hits, seen, out=np.zeros(len(hits)), where=seen > 0)
            falling = np.maximum.accumulate(precision[::-1])[::-1]
            found[draw] = np.sum(np.diff(hits, prepend=0) * falling) / total
        return found


def interval(value: float, draws: npt.NDArray[np.float64]) -> Interval:
    """A value with the 2.5 and 97.5 percentiles of its draws."""
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def compare(
    first: Scores,
    second: Scores,
    first_draws: npt.NDArray[np.float64],
    second_draws: npt.NDArray[np.float64],
    counted: npt.NDArray[np.bool_],
) -> DetectorComparison:
    """Test two detectors against each other.

    Args:
        first: one detector's figures.
        second: the other's, on the same images.
        first_draws: AP@.5 per draw of one `Resampling`.
        second_draws: the other's, of the same `Resampling`.
        counted: per face, in the order of the images: whether it counts.
    """
    differences = first_draws - second_draws
    found_first = np.concatenate([m.found >= first.operating_score for m in first.matches])[counted]
    found_second = np.concatenate([m.found >= second.operating_score for m in second.matches])[counted]
    only_first = int((found_first & ~found_second).sum())
    only_second = int((found_second & ~found_first).sum())
    return DetectorComparison(
        first.name,
        second.name,
        interval(first.ap["0.5"] - second.ap["0.5"], differences),
        _bootstrap_p(differences),
        only_first,
        only_second,
        mcnemar(only_first, only_second),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value (McNemar 1947, with the binomial distribution in place of chi squared)."""
    count = only_first + only_second
    if not count:
        return 1.0
    term = tail = 1
    for k in range(1, min(only_first, only_second) + 1):
        term = term * (count - k + 1) // k
        tail += term
    # Integers throughout: 2**count overflows a float from 1,024 faces on.
    return (
        min(1.0, 2 * tail / (1 << count)) if count < 1000 else min(1.0, math.exp(_log(2 * tail) - count * math.log(2)))
    )


def _log(number: int) -> float:
    """Natural logarithm of an integer of any size."""
    shift = max(0, number.bit_length() - 1000)
    return math.log(number >> shift) + shift * math.log(2)


def _bootstrap_p(differences: npt.NDArray[np.float64]) -> float:
    usable = differences[np.isfinite(differences)]
    if not len(usable):
        return math.nan
    # One is added to both, since a p-value of 0 cannot be known from a finite number of draws.
    smaller = min(int((usable <= 0).sum()), int((usable >= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (len(usable) + 1))


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"= {value:.3f}".replace("0.", ".", 1)
