"""Which frames of a video are looked at.

``every``: a frame is taken if it is the first at or after a multiple of the step in presentation time. The multiples count
from the first frame of the recording, as `time_s` in the results does, so the choice depends on nothing but the frame and the one
before it: not on where a file is cut, nor on where reading began.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from maskbatch.config import Sampling
from maskbatch.errors import UsageError

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def step_of(sampling: Sampling) -> Fraction:
    """Seconds between samples as an exact fraction (0.1 is one tenth, 1/29.97 is 100/2997).

    Raises:
        UsageError: the step is not a positive number.
    """
    seconds = sampling.every_s
    if not 0 < seconds < 1e9:
        raise UsageError(f"the step between samples must be a positive number of seconds, not {seconds}")
    return _exact(seconds)


def multiples(times: Int64s, time_base: Fraction, step: Fraction) -> Int64s:
    """Number of the last multiple of `step` at or before each time stamp, in exact integer arithmetic."""
    ratio = time_base / step
    largest = int(np.abs(times).max(initial=0))
    if largest * ratio.numerator < 1 << 62 and ratio.denominator < 1 << 62:
        return np.floor_divide(times * ratio.numerator, ratio.denominator)
    return np.array([int(t) * ratio.numerator // ratio.denominator for t in times], np.int64)


def bounds(sampling: Sampling, time_base: Fraction, origin: int) -> tuple[int | None, int | None]:
    """``--start`` and ``--end`` as time stamps (first in, first out); None is open."""
    start = None if sampling.start_s <= 0 else _ceil(_exact(sampling.start_s) / time_base) + origin
    end = None if sampling.end_s is None else _ceil(_exact(sampling.end_s) / time_base) + origin
    return start, end


def chosen(times: Int64s, is_key: Bools, time_base: Fraction, origin: int, sampling: Sampling) -> Bools:
    """Which of a video's frames are taken.

    Args:
        times: time stamps of all frames of the video, ascending.
        is_key: whether each is a key frame.
        time_base: seconds per unit.
        origin: time stamp of the first frame, from which times count.
        sampling: what was asked for.
    """
    if sampling.mode == "all":
        taken = np.ones(len(times), bool)
    elif sampling.mode == "keyframes":
        taken = is_key.copy()
    else:
        number = multiples(times - origin, time_base, step_of(sampling))
        taken = np.ones(len(times), bool)
        taken[1:] = number[1:] > number[:-1]
        if sampling.snap_s:
            taken = _snapped(times, is_key, taken, number, time_base, origin, sampling)
    start, end = bounds(sampling, time_base, origin)
    if start is not None:
        taken &= times >= start
    if end is not None:
        taken &= times < end
    return taken


def _snapped(
    times: Int64s,
    is_key: Bools,
    taken: Bools,
    number: Int64s,
    time_base: Fraction,
    origin: int,
    sampling: Sampling,
) -> Bools:
    """The samples with those replaced that have a key frame near their multiple: decoding that needs no other frame.

    Of two key frames at the same distance the earlier one is taken.
    """
    found = taken.copy()
    keys = np.flatnonzero(is_key)
    if not len(keys):
        return found
    samples = np.flatnonzero(taken)
    # Times in units in which both a time stamp and a multiple are whole, so that nothing is rounded.
    unit = step_of(sampling) / time_base
    reach = int(_exact(sampling.snap_s) / time_base * unit.denominator)
    whole: type = np.int64
    if int(np.abs(times - origin).max()) * unit.denominator + unit.numerator >= 1 << 62:
        whole = object
    at: Any = (times[keys] - origin).astype(whole) * unit.denominator
    points: Any = number[samples].astype(whole) * unit.numerator
    behind = np.clip(np.searchsorted(at, points), 0, len(keys) - 1)
    before = np.maximum(behind - 1, 0)
    nearest = np.where(np.abs(at[before] - points) <= np.abs(at[behind] - points), before, behind)
    near = np.abs(at[nearest] - points) <= reach
    found[samples[near]] = False
    found[keys[nearest[near]]] = True
    return found


class RunningSampler:
    """The same choice frame by frame, for files whose time stamps are known only as they are decoded, without `snap_s`: there every
    frame is decoded anyway.

    Where time jumps back (clips joined, a camera restarted), the frame after the jump is taken and counting goes on from it.
    """

    def __init__(self, time_base: Fraction, origin: int, sampling: Sampling) -> None:
        self._sampling = sampling
        self._ratio = time_base / step_of(sampling) if sampling.mode == "every" else Fraction(1)
        self._origin = origin
        self._start, self._end = bounds(sampling, time_base, origin)
        self._last: int | None = None

    def takes(self, pts: int, is_key: bool) -> bool:
        """Whether the next frame is taken; call it once for every frame, in order of presentation."""
        if self._sampling.mode == "every":
            number = (pts - self._origin) * self._ratio.numerator // self._ratio.denominator
            taken = number != self._last
            self._last = number
        else:
            taken = self._sampling.mode == "all" or is_key
        return taken and (self._start is None or pts >= self._start) and (self._end is None or pts < self._end)


def _exact(seconds: float) -> Fraction:
    """The fraction that a person meant: 0.1 is a tenth, not the nearest binary number."""
    return Fraction(seconds).limit_denominator(1_000_000) or Fraction(seconds)


def _ceil(value: Fraction) -> int:
    return -((-value.numerator) // value.denominator)
