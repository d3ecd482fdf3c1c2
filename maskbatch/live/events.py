"""What is worth telling, and to whom. An event is a JSON object on one line.

::

    {"event": "no_mask", "id": "9f…-12", "at": "2026-11-27T14:05:03.120Z", "camera": "gate", "label": "without_mask", "share": 0.97,
     "source": "gate/20261127T140212Z", "track": 4, "frame": 812, "sightings": 3, "box": [412.0, 97.5, 460.1, 160.3]}

Others: ``share_under``, ``share_recovered``, ``camera_lost``, ``camera_back``.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import threading
import uuid
from collections import deque
from pathlib import Path
from typing import IO, Any

from maskbatch.errors import OutputError
from maskbatch.live.options import AlarmRules
from maskbatch.live.people import Person
from maskbatch.tasks import Task

Event = dict[str, Any]


def iso(at: float) -> str:
    """POSIX seconds as ISO 8601 in UTC with milliseconds."""
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Alarms:
    """The rules, and what of them is under way. Not thread-safe: the watch holds its lock.

    Attributes:
        suppressed: alarms not told, since their camera had one a moment ago.
    """

    def __init__(self, rules: AlarmRules, task: Task) -> None:
        self._rules = rules
        self._task = task
        wanted = rules.labels or (
            ("without_mask",)
            if "without_mask" in task.labels
            else tuple(name for name in task.labels if name != task.headline)
        )
        self._labels = {task.labels.index(name) for name in wanted if name in task.labels}
        self._run = uuid.uuid4().hex[:12]
        self._count = 0
        self._quiet_until: dict[str, float] = {}
        self._judged: deque[tuple[float, bool]] = deque()
        self._under = False
        self._lost: dict[str, tuple[float, str, bool]] = {}
        self.suppressed = 0

    def event(self, kind: str, at: float, **more: Any) -> Event:
        """An event with a number of its own."""
        self._count += 1
        return {"event": kind, "id": f"{self._run}-{self._count}", "at": iso(at), **more}

    def person(self, camera: str, source: str, person: Person, at: float) -> Event | None:
        """After a sighting: an event, the first time that this person counts as one without a mask."""
        rules = self._rules
        index, share = person.winner
        if person.told or index not in self._labels or person.sightings < rules.sightings or share < rules.share:
            return None
        if at < self._quiet_until.get(camera, 0.0):
            if person.sightings == rules.sightings:
                self.suppressed += 1
            return None  # not told, so it may still be when the camera may speak again; and the pause is not prolonged
        person.told = True
        self._quiet_until[camera] = at + rules.cooldown_s
        return self.event(
            "no_mask",
            at,
            camera=camera,
            label=self._task.labels[index],
            share=round(share, 3),
            source=source,
            track=person.track,
            frame=person.best_frame,
            sightings=person.sightings,
            box=[round(v, 1) for v in person.best_box],
        )

    def finished(self, person: Person, at: float) -> None:
        """A person has left: their vote counts for the share."""
        index, _ = person.winner
        if self._rules.share_under is not None:
            self._judged.append((at, self._task.labels[index] == self._task.headline))

    def share(self, at: float) -> Event | None:
        """Whether the share of people with the headline label has just fallen under the limit, or recovered."""
        rules = self._rules
        while self._judged and self._judged[0][0] < at - rules.window_s:
            self._judged.popleft()
        if rules.share_under is None or len(self._judged) < rules.window_people:
            return None
        share = sum(good for _, good in self._judged) / len(self._judged)
        if (share < rules.share_under) == self._under:
            return None
        self._under = not self._under
        kind = "share_under" if self._under else "share_recovered"
        return self.event(
            kind,
            at,
            share=round(share, 3),
            limit=rules.share_under,
            people=len(self._judged),
            window_s=rules.window_s,
            label=self._task.headline,
        )

    def lost(self, camera: str, at: float, reason: str) -> None:
        """A camera is not seen since `at`."""
        self._lost.setdefault(camera, (at, reason, False))

    def check_lost(self, at: float) -> list[Event]:
        """Events of cameras that have been lost for long enough."""
        found = []
        for camera, (since, reason, told) in self._lost.items():
            if not told and at - since >= self._rules.lost_after_s:
                self._lost[camera] = (since, reason, True)
                found.append(self.event("camera_lost", at, camera=camera, since=iso(since), reason=reason))
        return found

    def back(self, camera: str, at: float) -> Event | None:
        """A camera is seen (again)."""
        since, _, told = self._lost.pop(camera, (at, "", False))
        if not told:
            return None
        return self.event("camera_back", at, camera=camera, lost_s=round(at - since, 1))


class EventWriter:
    """Events as lines, whole and at once.

    Raises:
        OutputError: the file cannot be opened.
    """

    def __init__(self, target: str) -> None:
        self._lock = threading.Lock()
        self._file: IO[str] = sys.stdout
        if target != "-":
            try:
                self._file = Path(target).open("a", encoding="utf-8")  # noqa: SIM115  (closed by `close`)
            except OSError as error:
                raise OutputError(f"cannot write {target}: {error.strerror or error}") from error

    def write(self, event: Event) -> None:
        """Append an event."""
        line = json.dumps(event, ensure_ascii=True) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        """Close the file; not standard output."""
        if self._file is not sys.stdout:
            self._file.close()
