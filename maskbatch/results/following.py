"""Who is who from frame to frame: people are followed by where they go, not by how far their boxes overlap.

A face is as wide as its bearer walks in a tenth of a second, so between two samples of a second its boxes lie many widths apart, and overlap,
on which most trackers rest, says nothing. Here everybody has a place and a pace with an uncertainty that grows with time, in units of the face's own
width (which makes near and far alike): a person seen once may have gone any way at up to a fast walk, one seen twice is expected where the pace
leads. Faces and people are matched all at once by the most probable assignment (Kuhn 1955), sure faces first, then doubtful ones, which
prolong a track but begin none (ByteTrack, Zhang et al. 2022, arXiv:2110.06864).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from maskbatch.errors import MissingExtraError

Array = npt.NDArray[Any]

MEMORY_S = 3.0
"""A person who is not seen for longer than this (or than two and a half samples) is a new person."""
BEGINNING_SCORE = 0.5
"""Faces with a lower score prolong a track but do not begin one."""

FASTEST = 14.0
"""Widths a second: 2.2 m/s with faces of 16 cm."""
_STILL = 0.35
"""Widths: how far a face is from where it is expected, by a trembling box and a nod."""
_FIRST_PACE = 5.5
"""Widths a second: deviation of the pace of people of whom nothing is known."""
_NEXT_PACE = 1.2
"""Widths a second: deviation of the pace of people who have been seen walking; they slow down, stop and turn."""
_TURN = 2.0
"""Widths a second for each second: how that grows."""
_GROWTH = 0.15
"""Deviation of the logarithm of the width, besides …"""
_GROWTH_PER_S = 0.25
"""… that per second."""
_GATE = 3.0
"""Deviations within which a face can be somebody."""
_MISSED = 3.0
"""Cost of a sample in which somebody was not found."""
_UNMATCHED = 11.0
"""Cost of somebody who left and somebody else who came."""


@dataclass(slots=True)
class _Follow:
    """Somebody who is followed."""

    number: int
    centre: Array
    width: float
    seen_s: float
    pace: Array = field(default_factory=lambda: np.zeros(2))
    sightings: int = 1

    def cost(self, centres: Array, widths: Array, time_s: float) -> Array:
        """Twice the negative logarithm of how probable each face is this person; infinite beyond the gate."""
        passed = time_s - self.seen_s
        ratio = np.log(np.maximum(widths, 1.0) / self.width)
        unit = np.sqrt(self.width * np.maximum(widths, 1.0))
        # A pace is kept for a second or two; who is not seen for longer has probably stopped or turned.
        ahead = self.pace * (1 - math.exp(-passed / 1.5)) * 1.5
        away = np.hypot(*((centres - self.centre).T - ahead[:, None])) / unit
        spread = _STILL + (_FIRST_PACE if self.sightings == 1 else _NEXT_PACE + _TURN * passed) * passed
        spread = min(spread, _FIRST_PACE * passed + _STILL)
        grown = _GROWTH + _GROWTH_PER_S * passed
        gone = np.hypot(*(centres - self.centre).T) / unit
        cost: Array = (away / spread) ** 2 + (ratio / grown) ** 2 + 2 * math.log(spread / _STILL)
        possible = (away <= _GATE * spread) & (np.abs(ratio) <= _GATE * grown) & (gone <= FASTEST * passed + 2 * _STILL)
        return np.where(possible, cost, np.inf)

    def see(self, centre: Array, width: float, time_s: float) -> None:
        """Here the person is now."""
        passed = time_s - self.seen_s
        pace = (centre - self.centre) / passed
        # A box that trembles gives a wild pace over a short time: the shorter, the less it counts.
        weight = 1.0 if self.sightings == 1 and passed > 0.3 else 1 - math.exp(-passed / 0.25)
        self.pace = weight * pace + (1 - weight) * self.pace
        self.centre, self.width, self.seen_s = centre, 0.5 * (self.width + width), time_s
        self.sightings += 1


class Follower:
    """Follows people over frames that come in order, at any and changing steps.

    Args:
        times: seconds of the frames with faces, where they are known beforehand; they tell the step between two samples.

    Attributes:
        memory_s: seconds after which somebody who is not seen is a new person.

    Raises:
        MissingExtraError: SciPy is not installed.
    """

    def __init__(self, times: Array) -> None:
        try:
            from scipy.optimize import linear_sum_assignment
        except ImportError as error:
            raise MissingExtraError(
                "tracking needs the extra `track`: pip install 'maskbatch[track]' (or uv sync --extra track)"
            ) from error
        self._assign = linear_sum_assignment
        steps = np.diff(times)
        steps = steps[steps > 0]
        # The nominal step is that of neighbouring samples; gaps in which nobody is seen are longer.
        self._step = float(np.quantile(steps, 0.1)) if len(steps) else 1.0
        self.memory_s = max(MEMORY_S, 2.5 * self._step)
        self._people: list[_Follow] = []
        self._last: float | None = None
        self._count = 0

    def update(self, boxes: Array, scores: Array, time_s: float) -> npt.NDArray[np.int64]:
        """The next frame.

        Args:
            boxes: n×4, x1 y1 x2 y2 in pixels.
            scores: n, of the detector.
            time_s: seconds; where the clock falls back, another recording begins.

        Returns:
            n int64: number of each person, counted from 0 in the order of first appearance; -1 for a low-score face that is nobody.
        """
        if self._last is not None and time_s <= self._last:
            if time_s < self._last:
                self._people = []
            else:
                time_s = float(np.nextafter(time_s, np.inf))
        self._last = time_s
        self._people = [person for person in self._people if time_s - person.seen_s <= self.memory_s]
        found = np.full(len(boxes), -1, np.int64)
        if not len(boxes):
            return found
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        widths = np.maximum(np.sqrt(np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1.0)), 1.0)
        sure = scores >= BEGINNING_SCORE
        free = list(self._people)
        for rows in (np.flatnonzero(sure), np.flatnonzero(~sure)):
            taken = self._match(free, centres[rows], widths[rows], time_s)
            for place, person in taken.items():
                row = int(rows[place])
                person.see(centres[row], float(widths[row]), time_s)
                found[row] = person.number
            gone = {id(person) for person in taken.values()}
            free = [person for person in free if id(person) not in gone]
        for row in np.flatnonzero(sure & (found < 0)).tolist():
            self._people.append(_Follow(self._count, centres[row], float(widths[row]), time_s))
            found[row] = self._count
            self._count += 1
        return found

    def _match(self, people: list[_Follow], centres: Array, widths: Array, time_s: float) -> dict[int, _Follow]:
        if not people or not len(centres):
            return {}
        missed = [max(0.0, (time_s - person.seen_s) / self._step - 1) for person in people]
        cost = np.stack([person.cost(centres, widths, time_s) for person in people])
        # Somebody who was there and not found, frame after frame, has more probably left.
        cost += np.array([_MISSED * min(count, 4.0 + math.log1p(count)) for count in missed])[:, None]
        # Nobody has to be matched: a second block of columns and rows takes who is left over.
        size = len(people) + len(centres)
        square = np.full((size, size), 0.0)
        limit = _UNMATCHED
        square[: len(people), : len(centres)] = np.where(np.isfinite(cost), cost, 1e6)
        square[: len(people), len(centres) :] = limit / 2
        square[len(people) :, : len(centres)] = limit / 2
        rows, columns = self._assign(square)
        return {
            int(column): people[int(row)]
            for row, column in zip(rows, columns, strict=True)
            if row < len(people) and column < len(centres) and np.isfinite(cost[row, column])
        }
