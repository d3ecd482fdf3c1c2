"""``--since``: which inputs are new enough."""

from __future__ import annotations

import datetime as dt
import re

from maskbatch.errors import UsageError
from maskbatch.types import Source

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def since_time(since: str | float | dt.datetime, zone: dt.tzinfo, now: float | None = None) -> float:
    """POSIX seconds of a time, or of how long ago something may have been.

    Args:
        since: ISO 8601 (a date is its midnight), ``7d``, ``12h``, ``90m``, ``2w``, POSIX seconds, or a `datetime`.
        zone: of times without an offset.
        now: POSIX seconds; the clock's if None.

    Raises:
        UsageError: it is none of these, or in the future, where nothing can be newer.
    """
    now = dt.datetime.now(dt.UTC).timestamp() if now is None else now
    found = _posix(since, zone, now)
    if found > now:
        raise UsageError(f"--since {since} is in the future")
    return found


def _posix(since: str | float | dt.datetime, zone: dt.tzinfo, now: float) -> float:
    if isinstance(since, int | float) and not isinstance(since, bool):
        return float(since)
    if isinstance(since, str):
        text = since.strip()
        if (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text)) and match[2] in _UNITS:
            return now - float(match[1]) * _UNITS[match[2]]
        try:
            since = dt.datetime.fromisoformat(text)
        except ValueError:
            since = ""
    if not isinstance(since, dt.datetime):
        raise UsageError("--since is a time such as 2026-03-01T08:00, or how long ago: 90m, 12h, 7d, 2w")
    return (since if since.tzinfo is not None else since.replace(tzinfo=zone)).timestamp()


def is_since(source: Source, since: float) -> bool:
    """Whether an input is from `since` (POSIX seconds) or later.

    The beginning of its capture counts where name or manifest tells it, else the last change of the file. What has neither (some web
    servers) and what cannot be read stays: it is better looked at twice than never.
    """
    if source.start_time is not None:
        return source.start_time >= since
    return not source.mtime_ns or source.problem is not None or source.mtime_ns / 1e9 >= since


def iso_time(posix: float) -> str:
    """ISO 8601 in UTC, to the second."""
    return dt.datetime.fromtimestamp(posix, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
