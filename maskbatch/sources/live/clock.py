"""The time of a stream: its own time stamps as long as they can be believed, bridged or replaced by ours where they cannot."""

from __future__ import annotations

from fractions import Fraction

TOLERANCE_S = 5.0
"""A stream's clock may run ahead of ours or behind by this much (what a server has buffered) before it counts as wrong."""

BACK_S = 1.0
"""A step back of less is jitter; of more, a clock that was set or a recording that begins anew."""

MAX_REPAIRS = 5
"""A clock that was wrong more often than this is not asked any more."""

UNITS = 90_000
"""Units of `LiveClock.read` per second."""


class LiveClock:
    """Time of each frame since the first, in 1/90,000 s; never falls.

    Attributes:
        repairs: how often the stream's clock jumped, stood still or ran at another speed, and was bridged.
    """

    def __init__(self, speed: float = 1.0, began: float | None = None) -> None:
        """Nothing is read yet.

        Args:
            speed: how many times faster than ours the stream's clock is to run (recordings played faster).
            began: `time.monotonic()` that stands for the first frame; by default when that is read.
        """
        self._speed = speed
        self._began = began
        self._shift: Fraction | None = None
        self._own: Fraction | None = None
        self._last = -1
        self.repairs = 0

    @property
    def is_trusted(self) -> bool:
        """Whether the stream's own time stamps are used."""
        return self.repairs <= MAX_REPAIRS

    def read(self, pts: int | None, time_base: Fraction | None, now: float) -> int:
        """The time of the next frame.

        Args:
            pts: its time stamp, None where it has none.
            time_base: seconds per unit of it.
            now: `time.monotonic()` when it arrived.
        """
        if self._began is None:
            self._began = now
        elapsed = (now - self._began) * self._speed
        at = round(elapsed * UNITS)
        if pts is not None and time_base is not None and self.is_trusted:
            own = pts * time_base
            if self._shift is None:
                self._shift = -own
            seconds = float(own + self._shift)
            fell = self._own is not None and float(own - self._own) < -BACK_S
            self._own = own
            if fell or abs(seconds - elapsed) > TOLERANCE_S * max(1.0, self._speed):
                self.repairs += 1
                self._shift = Fraction(max(at, self._last + 1), UNITS) - own
            at = round((own + self._shift) * UNITS)
        self._last = max(self._last + 1, at)
        return self._last

    def wait_s(self, at: int, now: float) -> float:
        """Seconds by which a frame of time `at` is early."""
        if self._began is None:
            return 0.0
        return at / UNITS / self._speed - (now - self._began)
