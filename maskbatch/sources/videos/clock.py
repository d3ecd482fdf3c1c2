"""One model of a recording's time: from the time stamps of a file's packets to when each frame was shown.

Time stamps may be absolute, start anywhere, wrap, jump, stand still or be missing. What can be told is put right in silence (an offset, a
wrap); what is a guess is said. Times never fall, and no gap is longer than the file's own unless that is remarked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from maskbatch.types import Problem, joined

Int64s = npt.NDArray[np.int64]

ASSUMED_RATE = Fraction(25)
"""Frames per second where nothing tells."""

_SLOWEST, _FASTEST = Fraction(1, 60), Fraction(1000)
_LONGEST, _LONGEST_ONE_PAUSE = 1000, 100
"""How many times longer than its frames at their usual distance a recording of over an hour is at most; with a single long pause."""

_MOST_BYTES = 2_000_000_000
"""Bytes per second above which nothing is recorded; 8K without compression at 25 frames has 1.2 thousand millions (4:2:0)."""

_WRAP = 1 << 33
"""MPEG clocks have 33 bits (ISO/IEC 13818-1, 2.4.3.7)."""

_BACK_S = 1
"""A step back of less is jitter, as writers of decoding time stamps leave it."""

_JUMP_S = 3600
"""In MPEG streams a longer step forward is another clip, not a pause: recorders write those into one file, with clocks of their own."""


@dataclass(frozen=True, slots=True)
class Clock:
    """When the frames of a file are shown.

    Attributes:
        pts: in units of the time base, per packet; in the order of the file where `by_stamp`, else in order of presentation.
        by_stamp: a decoded frame is told by its own time stamp; otherwise by its place in the order of presentation.
        problem: what is guessed, and what could not be right.
    """

    pts: Int64s
    by_stamp: bool
    problem: Problem | None = None


def plausible_rate(*rates: Fraction | None) -> Fraction | None:
    """The first of them that a camera can have. Raw streams without timing come as 1,200,000 frames per second."""
    return next((Fraction(rate) for rate in rates if rate and _SLOWEST <= rate <= _FASTEST), None)


def read_clock(
    pts: Sequence[int | None],
    dts: Sequence[int | None],
    time_base: Fraction,
    rate: Fraction | None,
    *,
    mpeg: bool,
    given: Fraction | None = None,
) -> Clock:
    """The clock of a file whose packets have time stamps, as far as they have.

    Args:
        pts: presentation time stamps, in the order of the file.
        dts: decoding time stamps, which rise in a sound file.
        time_base: seconds per unit.
        rate: frames per second as the stream's headers tell, None where they do not.
        mpeg: the container's clock starts anywhere, wraps, and may be several clips' (MPEG transport and program streams).
        given: frames per second that somebody says, where they have to be counted.
    """
    counted_at = given or rate
    known = [stamp for stamp in pts if stamp is not None]
    if len(known) < len(pts) and (len(set(known)) < len(known) or not known):
        return counted(len(pts), time_base, counted_at)
    if len(known) > 2 and 2 * len(set(known)) < len(known):
        return counted(len(pts), time_base, counted_at, "the time stamps stand still")
    if len(known) < len(pts):
        return counted(len(pts), time_base, counted_at, "packets without time stamps")
    stamps = np.array(pts, np.int64)
    span = max(1, round(1 / ((rate or ASSUMED_RATE) * time_base)))
    shift, jumps, late = _shifts(dts, span, round(_BACK_S / time_base), round(_JUMP_S / time_base) if mpeg else None)
    moved, still = _spread(np.sort(stamps + shift), span)
    remark = (
        Problem("ok", None, f"the time stamps of {still} frames stand still and were spread evenly") if still else None
    )
    if late:
        message = f"{late} packets lie behind their place in the file"
        remark = joined(
            [remark, Problem("ok", None, message if late > 1 else "1 packet lies behind its place in the file")]
        )
    if not shift.any() and not still:
        return Clock(stamps, True, remark)
    if not jumps:
        return Clock(moved, False, remark)
    before, after = (_clock(stamp - int(stamps[0]), time_base) for stamp in jumps[0])
    count = f"{len(jumps)} times, first" if len(jumps) > 1 else "once,"
    message = f"the clock jumps {count} from {before} to {after}; what follows is taken to follow on, which is a guess"
    return Clock(moved, False, joined([Problem("partial", "corrupt", message), remark]))


def counted(count: int, time_base: Fraction, rate: Fraction | None, why: str | None = None) -> Clock:
    """A clock made by counting frames.

    Args:
        count: of frames.
        time_base: seconds per unit.
        rate: frames per second, `ASSUMED_RATE` where None.
        why: what is wrong with the file's own time stamps; None where the container has none.
    """
    span = 1 / ((rate or ASSUMED_RATE) * time_base)
    pts = np.array([round(i * span) for i in range(count)], np.int64)
    if rate is not None and why is None:
        return Clock(pts, False)
    reason = why or "no time stamps"
    how = f"{float(rate or ASSUMED_RATE):g} frames per second{'' if rate else ', which is assumed'}"
    return Clock(pts, False, Problem("ok", None, f"{reason}: times are counted at {how}"))


def out_of_proportion(times: Int64s, frame_span: int, time_base: Fraction, size: int) -> Problem | None:
    """What is wrong where a recording lasts too long or too short for its frames and bytes; None where it may be right.

    Long pauses are kept, since cameras that record on motion write them; what is told is a recording of more than an hour with less
    than a frame a minute, or that would last a thousandth at the usual distance of its frames (a hundredth where one pause is nearly all).

    Args:
        times: time stamps of the frames, ascending.
        frame_span: duration of the last frame, in units.
        time_base: seconds per unit.
        size: bytes of all packets.
    """
    count = len(times)
    if count < 2:
        return None
    length = int(times[-1] - times[0]) + frame_span
    seconds = float(length * time_base)
    lasts = f"by its time stamps the recording lasts {_clock(length, time_base)}"
    if seconds > 3600:
        steps = np.diff(times)
        usual, longest = int(np.median(steps)), int(steps.max())
        at_most = _LONGEST_ONE_PAUSE if longest * time_base > 3600 and longest > 0.9 * length else _LONGEST
        if length > at_most * usual * count:
            reason = f"its {count:,} frames at their usual distance make {_clock(usual * count, time_base)}"
        elif count / seconds < _SLOWEST:
            reason = f"that is {seconds / count:,.0f} seconds for each of its {count:,} frames"
        else:
            return None
        return Problem("partial", "corrupt", f"{lasts}, but {reason}; its times cannot be right")
    if count / max(seconds, 1e-9) > _FASTEST or size / max(seconds, 1e-9) > _MOST_BYTES:
        return Problem(
            "partial",
            "corrupt",
            f"by its time stamps the recording lasts {seconds:.3g} seconds, too short for {count:,} frames and {size:,} bytes; "
            "its times cannot be right",
        )
    return None


def _shifts(
    dts: Sequence[int | None], span: int, back: int, longest: int | None
) -> tuple[Int64s, list[tuple[int, int]], int]:
    """What to add to each packet's time stamps, the decoding time stamps around each jump that is bridged by a guess, and how many
    single packets come late, which are no jumps: FFmpeg gives out the last of a PID that is left at the end of the file.
    """
    shift = np.zeros(len(dts), np.int64)
    at = np.array([i for i, stamp in enumerate(dts) if stamp is not None], np.int64)
    steady = np.array([stamp for stamp in dts if stamp is not None], np.int64)
    steps = np.diff(steady)
    jumps: list[tuple[int, int]] = []
    odd = steps < -back
    if longest is not None:
        odd |= steps > longest
    late = 0
    for where in np.flatnonzero(odd).tolist():
        step = int(steps[where])
        if longest is not None and _is_late(steady, where, span):
            late += 1
            continue
        if longest is not None and 0 <= step + _WRAP <= longest:
            shift[at[where + 1] :] += _WRAP
        else:
            shift[at[where + 1] :] += span - step
            wrapped = _WRAP if step > _WRAP // 2 else 0  # a step back that the reader took for a wrap
            jumps.append((int(steady[where]), int(steady[where + 1]) - wrapped))
    return shift, jumps, late


def _is_late(steady: Int64s, where: int, span: int) -> bool:
    """Whether behind a step back one packet follows from within the recording, and then what went before goes on or the file ends."""
    if not steady[0] < steady[where + 1] < steady[where]:
        return False
    return where + 2 >= len(steady) or 0 < steady[where + 2] - steady[where] <= 2 * span


def _spread(times: Int64s, span: int) -> tuple[Int64s, int]:
    """Times that rise, with three and more equal ones spread up to the next, and of how many frames that is a guess.

    Two are left as they are: the fields of interlaced video may be packets of their own.
    """
    values, first, counts = np.unique(times, return_index=True, return_counts=True)
    spread = times.copy()
    still = 0
    for at in np.flatnonzero(counts >= 3).tolist():
        count = int(counts[at])
        room = int(values[at + 1] - values[at]) if at + 1 < len(values) else span * count
        spread[first[at] : first[at] + count] += np.arange(count) * room // count
        still += count - 1
    return spread, still


def _clock(units: int, time_base: Fraction) -> str:
    seconds = round(units * time_base)
    sign, seconds = ("−" if seconds < 0 else ""), abs(seconds)
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
