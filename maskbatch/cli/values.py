"""Values as people write them on a command line."""

from __future__ import annotations

import re
from typing import Literal

from maskbatch.config import FOLLOWING_FPS, Sampling
from maskbatch.errors import UsageError

_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str, option: str) -> float:
    """Seconds from ``1s``, ``500ms``, ``2m``, ``1.5``, ``1:30`` or ``01:02:03``; raises UsageError naming the option."""
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip()):
        number, unit = match.groups()
        if unit in _UNITS:
            return float(number) * _UNITS[unit]
    elif re.fullmatch(r"\d+(:\d{1,2}){1,2}(\.\d+)?", text.strip()):
        total = 0.0
        for part in text.strip().split(":"):
            total = total * 60 + float(part)
        return total
    raise UsageError(f"{option} {text}: not a time; write 1s, 500ms, 2m, 1:30 or 01:02:03")


def sampling_from(
    every: str | None,
    fps: float | None,
    keyframes: bool,
    all_frames: bool,
    start: str | None,
    end: str | None,
    gate: Literal["none", "motion"],
    gate_refresh: float,
    snap: str | None = None,
    track: bool = False,
    assume_fps: float = 0.0,
    video_stream: str = "default",
) -> Sampling:
    """The sampling that these options mean; with `track`, and no step given, one that can follow people.

    Raises:
        UsageError: they contradict each other.
    """
    given = [
        name
        for name, value in (("--every", every), ("--fps", fps), ("--keyframes", keyframes), ("--all", all_frames))
        if value
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other")
    every_s = seconds(every, "--every") if every else 1 / fps if fps else 1 / FOLLOWING_FPS if track else 1.0
    if every_s <= 0:
        raise UsageError(f"--every {every}: must be more than 0")
    start_s = seconds(start, "--start") if start else 0.0
    end_s = seconds(end, "--end") if end else None
    if end_s is not None and end_s <= start_s:
        raise UsageError(f"--end {end} is not after --start {start or 0}")
    return Sampling(
        mode="keyframes" if keyframes else "all" if all_frames else "every",
        every_s=every_s,
        start_s=start_s,
        end_s=end_s,
        gate=gate,
        snap_s=seconds(snap, "--snap") if snap else 0.0,
        gate_refresh_s=gate_refresh,
        assume_fps=assume_fps,
        video_stream=video_stream,
    )
