"""Persons of one connection of a camera: followed online, with a vote on what they wear."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from maskbatch.results.following import Follower
from maskbatch.results.tracks import TRACKS
from maskbatch.tasks import Task
from maskbatch.types import Floats, Frame

REMEMBERED = 10
"""A person not seen for so many times as long as the tracker remembers is finished: no later sighting can join."""


@dataclass(slots=True)
class Person:
    """What is known of one person so far; times are seconds of the stream, and POSIX microseconds.

    Attributes:
        votes: per label, the sum of the confidences of the sightings with it.
        told: an event was made of this person.
    """

    track: int
    first_s: float
    last_s: float
    first_at: int
    last_at: int
    sightings: int = 0
    votes: np.ndarray[Any, np.dtype[np.float64]] = field(default_factory=lambda: np.zeros(0))
    best: float = -1.0
    best_frame: int | None = None
    best_face: int = 0
    best_box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    told: bool = False

    @property
    def winner(self) -> tuple[int, float]:
        """Index of the label that leads the vote, and its share."""
        index, total = int(self.votes.argmax()), float(self.votes.sum())
        return index, float(self.votes[index]) / total if total > 0 else 0.0


class People:
    """The persons of one connection.

    Args:
        task: whose labels are voted for.
        step_s: seconds between two samples.

    Raises:
        MissingExtraError: SciPy is not installed.
    """

    def __init__(self, task: Task, step_s: float) -> None:
        self._task = task
        self._tracker = Follower(np.array([0.0, max(step_s, 0.02)]))
        self.present: dict[int, Person] = {}

    def see(
        self, frame: Frame, at_us: int, boxes: Floats, scores: Floats, probabilities: Floats, sharpness: list[float]
    ) -> list[int]:
        """Take in the faces of the next frame, also of one without any.

        Args:
            frame: for its time and number.
            at_us: POSIX microseconds of it.
            boxes, scores, probabilities, sharpness: n faces in pixels of the original.

        Returns:
            Track per face, -1 for none.
        """
        time_s = frame.time_s or 0.0
        if not len(boxes):
            return []
        numbers = [int(n) for n in self._tracker.update(boxes.astype(np.float64), scores.astype(np.float64), time_s)]
        for face, number in enumerate(numbers):
            if number < 0:
                continue
            person = self.present.get(number)
            if person is None:
                votes = np.zeros(len(self._task.labels))
                person = self.present[number] = Person(number, time_s, time_s, at_us, at_us, votes=votes)
            person.last_s, person.last_at = time_s, at_us
            person.sightings += 1
            label = int(probabilities[face].argmax())
            person.votes[label] += float(probabilities[face][label])
            x1, y1, x2, y2 = (float(v) for v in boxes[face])
            quality = max(0.0, x2 - x1) * max(0.0, y2 - y1) * sharpness[face]
            if quality > person.best:
                person.best, person.best_frame = quality, frame.ordinal
                person.best_face, person.best_box = face, (x1, y1, x2, y2)
        return numbers

    def leave(self, time_s: float | None) -> list[Person]:
        """Take out those who were last seen long before `time_s`; all of them for None."""
        gone = [
            p
            for p in self.present.values()
            if time_s is None or time_s - p.last_s > REMEMBERED * self._tracker.memory_s
        ]
        for person in gone:
            del self.present[person.track]
        return gone

    def near(self, time_s: float) -> list[Person]:
        """Those seen in the last seconds."""
        return [p for p in self.present.values() if time_s - p.last_s <= self._tracker.memory_s]


def track_rows(source: str, camera: str, people: list[Person], task: Task) -> pa.Table:
    """Rows of the schema `TRACKS`, by number."""
    columns: dict[str, list[Any]] = {name: [] for name in TRACKS.names}
    for person in sorted(people, key=lambda p: p.track):
        index, share = person.winner
        values: dict[str, Any] = {
            "source": source,
            "camera": camera,
            "track": person.track,
            "first_s": person.first_s,
            "last_s": person.last_s,
            "first_at": person.first_at,
            "last_at": person.last_at,
            "sightings": person.sightings,
            "label": task.labels[index],
            "share": share,
            "best_frame": person.best_frame,
            "best_face": person.best_face,
        }
        values.update(zip(("best_x1", "best_y1", "best_x2", "best_y2"), person.best_box, strict=True))
        for name, column in columns.items():
            column.append(values.get(name))
    return pa.table({name: pa.array(columns[name], TRACKS.field(name).type) for name in TRACKS.names}, schema=TRACKS)
