"""Which areas of a video hide its faces at each moment, from faces that were found at some moments.

Faces are linked from look to look into tracks, forward by constant velocity. Each track then covers more than was seen: the way between two
sightings, half a second before the first and after the last, and both ends of every gap, since the link over a gap may be wrong. All of
this looks backward as well as forward in time, which a live camera cannot. When in doubt, more is covered.

Memory: about 50 bytes per sighting (90 with landmarks), of the whole video.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from maskbatch.types import Floats

HOLD_S = 0.5
"""A face is hidden for this long before it is first seen and after it is last seen."""

SURE_SCORE = 0.35
"""A track is held over time if its best sighting has this score, or if there are `SURE_SIGHTINGS`; one below hides its own frame only."""

SURE_SIGHTINGS = 3
LONGEST_GAP_S = 1.0

_REACH, _REACH_PER_S, _LONGEST_REACH = 0.7, 8.0, 4.0
"""How far a face may have moved to be the same, in sides of its box: at once, per second, and at most. A brisk walk is 10 sides a second,
of which the prediction accounts for most."""

_SIZE_RATIO = 2.2
_LEAST_MARGIN = 0.05
_MOVED_MARGIN = 0.35


@dataclass(frozen=True, slots=True)
class Area:
    """Where a face may be.

    Attributes:
        box: x1, y1, x2, y2 in pixels.
        margin: pixels by which the face may be off.
        landmarks: 5×2, as in `Detections`; None where they are not known.
    """

    box: tuple[float, float, float, float]
    margin: float = 0.0
    landmarks: Floats | None = None


@dataclass(slots=True)
class Looks:
    """What was seen: append looks in order of time, then call `cover`."""

    _times: list[float] = field(default_factory=list)
    _counts: list[int] = field(default_factory=list)
    _boxes: list[Floats] = field(default_factory=list)
    _scores: list[Floats] = field(default_factory=list)
    _landmarks: list[Floats] = field(default_factory=list)

    def add(self, time_s: float, boxes: Floats, scores: Floats, landmarks: Floats | None = None) -> None:
        """Add the faces of one frame.

        Args:
            time_s: of the frame.
            boxes: n×4 float32; n may be 0.
            scores: n float32.
            landmarks: n×5×2 float32, NaN where unknown, or None.
        """
        self._times.append(time_s)
        self._counts.append(len(boxes))
        if len(boxes):
            self._boxes.append(boxes)
            self._scores.append(scores)
            self._landmarks.append(np.full((len(boxes), 5, 2), np.nan, np.float32) if landmarks is None else landmarks)

    def cover(self, step_s: float = 0.0, *, landmarks: bool = False) -> Cover:
        """The areas to hide.

        Args:
            step_s: time between two looks where frames between them were not looked at; 0 where every frame was.
            landmarks: whether areas have landmarks.
        """
        if not self._boxes:
            return Cover.nothing()
        times = np.array(self._times, np.float64)
        look = np.repeat(np.arange(len(times)), self._counts)
        boxes = np.concatenate(self._boxes).astype(np.float32)
        scores = np.concatenate(self._scores)
        points = np.concatenate(self._landmarks).astype(np.float32) if landmarks else None
        longest = max(LONGEST_GAP_S, 1.5 * step_s)
        tracks = _link(times, look, boxes, longest)
        spans = _Spans(times, look, boxes, points, step_s)
        for members in _groups(tracks):
            sure = len(members) >= SURE_SIGHTINGS or float(scores[members].max()) >= SURE_SCORE
            spans.add_track(members, HOLD_S if sure else 0.0)
        return spans.cover()


def _groups(tracks: npt.NDArray[np.int64]) -> list[npt.NDArray[np.intp]]:
    """Indices of the sightings of each track, in order of time."""
    order = np.argsort(tracks, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(tracks[order])) + 1)


def _link(
    times: npt.NDArray[np.float64], look: npt.NDArray[np.intp], boxes: Floats, longest_s: float
) -> npt.NDArray[np.int64]:
    """The number of the track of each sighting. Nearest pairs first; a track predicts its place by its velocity."""
    tracks = np.full(len(look), -1, np.int64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), 1.0)
    starts = np.searchsorted(look, np.arange(len(times) + 1))
    alive: list[int] = []  # last sighting of each track that may go on
    velocity: dict[int, npt.NDArray[np.float32]] = {}
    count = 0
    for at, time_s in enumerate(times.tolist()):
        new = np.arange(starts[at], starts[at + 1])
        alive = [i for i in alive if time_s - times[look[i]] <= longest_s]
        left = set(new.tolist())
        if alive and len(new):
            old = np.array(alive)
            passed = (time_s - times[look[old]])[:, None]
            moves = np.stack([velocity[tracks[i]] for i in alive]) * np.minimum(passed, HOLD_S)
            still = np.linalg.norm(centres[old][:, None] - centres[new][None], axis=2)
            ahead = np.linalg.norm((centres[old] + moves)[:, None] - centres[new][None], axis=2)
            side = np.sqrt(sides[old][:, None] * sides[new][None])
            far = np.minimum(still, ahead) / side
            ratio = np.maximum(sides[old][:, None] / sides[new][None], sides[new][None] / sides[old][:, None])
            reach = np.minimum(_REACH + _REACH_PER_S * passed, _LONGEST_REACH)
            far[(far > reach) | (ratio > _SIZE_RATIO)] = np.inf
            while far.size and np.isfinite(far).any():
                row, column = np.unravel_index(int(np.argmin(far)), far.shape)
                i, j = int(old[row]), int(new[column])
                tracks[j] = tracks[i]
                now = (centres[j] - centres[i]) / max(float(passed[row, 0]), 1e-3)
                before = velocity[tracks[i]]
                velocity[tracks[i]] = np.asarray(now if not before.any() else 0.5 * (before + now), np.float32)
                left.discard(j)
                alive[alive.index(i)] = j
                far[row, :], far[:, column] = np.inf, np.inf
        for j in sorted(left):
            tracks[j] = count
            velocity[count] = np.zeros(2, np.float32)
            count += 1
            alive.append(j)
    return tracks


class _Spans:
    """Collects stretches of time in which an area goes evenly from one box to another."""

    def __init__(
        self,
        times: npt.NDArray[np.float64],
        look: npt.NDArray[np.intp],
        boxes: Floats,
        landmarks: Floats | None,
        step_s: float,
    ) -> None:
        self._times = times
        self._look = look
        self._boxes = boxes
        self._landmarks = landmarks
        self._step_s = step_s
        self._moved: list[npt.NDArray[np.float32]] = []  # boxes that were not seen, behind those that were
        self._moved_from: list[int] = []
        self._rows: list[tuple[float, float, int, int, float, float]] = []

    def add_track(self, members: npt.NDArray[np.intp], hold_s: float) -> None:
        """Cover one track; `hold_s` is how long its ends are held, besides the way to the next look."""
        at = self._times[self._look[members]]
        boxes = self._boxes[members]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
        for k in range(len(members) - 1):
            i, j = int(members[k]), int(members[k + 1])
            moved = float(np.linalg.norm(centres[k + 1] - centres[k]))
            margin = _LEAST_MARGIN * max(sides[k], sides[k + 1]) + _MOVED_MARGIN * min(
                moved, 2 * max(sides[k], sides[k + 1])
            )
            self._rows.append((at[k], at[k + 1], i, j, margin, margin))
            if self._look[j] - self._look[i] > 1:  # it was missed in between: it may have stayed, or come early
                until, since = min(at[k + 1], at[k] + HOLD_S), max(at[k], at[k + 1] - HOLD_S)
                self._rows.append((at[k], until, i, i, margin, 1.5 * margin))
                self._rows.append((since, at[k + 1], j, j, 1.5 * margin, margin))
        self._hold(int(members[-1]), hold_s, _speed(at[::-1], centres[::-1]), 1)
        self._hold(int(members[0]), hold_s, _speed(at, centres), -1)

    def _hold(self, i: int, hold_s: float, speed: npt.NDArray[np.float32], way: int) -> None:
        """Cover what comes after the last sighting of a track (`way` 1) or before its first (-1).

        `speed` is in pixels per second, away from the track.
        """
        look = int(self._look[i])
        at = float(self._times[look])
        neighbour = look + way
        step = abs(float(self._times[neighbour]) - at) if 0 <= neighbour < len(self._times) else 0.0
        # Frames between two looks were not looked at, so the face is held up to the next look at least.
        length = max(hold_s, 1.05 * (step if step <= 2 * self._step_s else self._step_s))
        box = self._boxes[i]
        side = float((box[2:] - box[:2]).max())
        path = speed * min(length, HOLD_S)
        far = float(np.linalg.norm(path))
        if far > 3 * side:
            path *= 3 * side / far
        moved = np.concatenate([np.minimum(box[:2], box[:2] + path), np.maximum(box[2:], box[2:] + path)])
        self._moved.append(moved.astype(np.float32))
        self._moved_from.append(i)
        k = len(self._boxes) + len(self._moved) - 1
        least, most = _LEAST_MARGIN * side, (_LEAST_MARGIN + 0.15) * side + 0.2 * min(far, side)
        if way > 0:
            self._rows.append((at, at + length, i, k, least, most))
        else:
            self._rows.append((at - length, at, k, i, most, least))

    def cover(self) -> Cover:
        rows = sorted(self._rows)
        boxes = np.concatenate([self._boxes, np.stack(self._moved)])
        points = self._landmarks
        if points is not None:
            points = np.concatenate([points, points[self._moved_from]])
        since, until, first, second, low, high = (np.array(column) for column in zip(*rows, strict=True))
        return Cover(since, until, first.astype(np.int32), second.astype(np.int32), low, high, boxes, points)


def _speed(at: npt.NDArray[np.float64], centres: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Pixels per second at the beginning of a track, away from it, over its first fifth of a second or so."""
    if len(at) < 2:
        return np.zeros(2, np.float32)
    near = np.flatnonzero(np.abs(at - at[0]) <= 0.2)
    k = int(near[-1]) if near[-1] > 0 else 1
    passed = max(abs(float(at[k] - at[0])), 1e-3)
    return np.asarray((centres[0] - centres[k]) / passed, np.float32)


@dataclass(frozen=True, slots=True)
class Cover:
    """The areas to hide, for frames that are asked for in order of time. Made by `Looks.cover`."""

    _since: npt.NDArray[np.float64]
    _until: npt.NDArray[np.float64]
    _first: npt.NDArray[np.int32]
    _second: npt.NDArray[np.int32]
    _margin: npt.NDArray[np.float64]
    _margin_after: npt.NDArray[np.float64]
    _boxes: Floats
    _landmarks: Floats | None

    @classmethod
    def nothing(cls) -> Cover:
        """No face anywhere."""
        none, index = np.zeros(0), np.zeros(0, np.int32)
        return cls(none, none, index, index, none, none, np.zeros((0, 4), np.float32), None)

    def walk(self) -> CoverWalk:
        """Begin at the beginning."""
        return CoverWalk(self)

    def area(self, span: int, time_s: float) -> Area:
        """The area of one span at a moment of it."""
        since, until = float(self._since[span]), float(self._until[span])
        share = 0.0 if until <= since else min(1.0, max(0.0, (time_s - since) / (until - since)))
        i, j = int(self._first[span]), int(self._second[span])
        x1, y1, x2, y2 = ((1 - share) * self._boxes[i] + share * self._boxes[j]).tolist()
        margin = float((1 - share) * self._margin[span] + share * self._margin_after[span])
        points = None
        if self._landmarks is not None:
            points = np.asarray((1 - share) * self._landmarks[i] + share * self._landmarks[j], np.float32)
            if not np.isfinite(points).all():
                points = None
        return Area((x1, y1, x2, y2), margin, points)


class CoverWalk:
    """Goes through a cover in order of time, with the spans of the moment at hand."""

    def __init__(self, cover: Cover) -> None:
        self._cover = cover
        self._next = 0
        self._active: list[int] = []

    def at(self, time_s: float) -> Iterator[Area]:
        """The areas to hide at a time, which must not be before that of the last call."""
        cover, early, late = self._cover, time_s + 1e-4, time_s - 1e-4
        while self._next < len(cover._since) and cover._since[self._next] <= early:
            self._active.append(self._next)
            self._next += 1
        self._active = [span for span in self._active if cover._until[span] >= late]
        for span in self._active:
            yield cover.area(span, time_s)
