"""When and where: `camera` and the wall-clock time of a file's first frame.

Asked in this order, and for each of the two on its own: the manifest; ``--camera`` and ``--start-time``; ``--time-pattern``;
the built-in patterns. The time in a container's metadata is the last resort (`PieceResult.started_at`), the folder that of
the camera.
"""

from __future__ import annotations

import datetime as dt

_EARLIEST = dt.datetime(1990, 1, 1, tzinfo=dt.UTC)
_LATEST = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


def plausible_iso(text: str, zone: dt.tzinfo = dt.UTC) -> float | None:
    """POSIX seconds of an ISO 8601 time (without an offset: in `zone`); None if it is none, or one of a clock never set.

    Recorders without a clock write the epoch of their format (1904, 1970) or 1980.
    """
    try:
        moment = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return moment.timestamp() if _EARLIEST <= moment < _LATEST else None
