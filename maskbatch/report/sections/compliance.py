"""The headline share by camera, hour of day, weekday and date."""

from __future__ import annotations

from typing import Any

import numpy as np

from maskbatch.report.people import Array, People
from maskbatch.report.sections.base import Chart, Content, Figures, Section
from maskbatch.report.statistics.intervals import share_interval
from maskbatch.web.tables import Table

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
SMALLEST = 5


def groups(people: People, by: str) -> tuple[Array, list[str]]:
    """Per cell the number of its group, -1 where it is not known, and the groups' names."""
    slot = people.cell_slot
    if by == "camera":
        return people.cell_camera, [name if name is not None else "unknown camera" for name in people.cameras]
    if by == "hour":
        return np.where(slot >= 0, slot % 24, -1), [f"{hour:02d}:00" for hour in range(24)]
    if by == "weekday":
        return np.where(slot >= 0, (slot // 24 + people.epoch.weekday()) % 7, -1), list(WEEKDAYS)
    days = int(slot.max(initial=-1)) // 24 + 1
    names = [str(np.datetime64(people.epoch) + np.timedelta64(day, "D")) for day in range(days)]
    return np.where(slot >= 0, slot // 24, -1), names


def make(figures: Figures) -> Content | None:
    people = figures.people
    if not len(people.label):
        return None
    tables = [_table(figures, by) for by in ("camera", "hour", "weekday", "date")]
    unknown = int(people.cell_count[people.cell_slot < 0].sum())
    warnings: tuple[str, ...] = ()
    if unknown and not figures.public:
        warnings = (f"For {unknown:,} {people.noun} the time is not known; they are in no chart by time.",)
    clocks = bool((people.cell_slot >= 0).any())
    charts = [Chart("shares", "By camera", "camera")]
    if clocks:
        charts += [
            Chart("heat", "Camera and hour of day"),
            Chart("shares", "By hour of day", "hour"),
            Chart("shares", "By date", "date"),
            Chart("shares", "By weekday", "weekday"),
        ]
    return Content(
        (
            f"Share of {people.task.headline}; bars and bands are 95 % intervals over clusters: camera-days, or inputs where the day is not known. Times are in {people.timezone}.",
        ),
        tuple(table for table in tables if table.rows),
        tuple(charts),
        warnings=warnings,
        notes=("Where fewer than five clusters stand behind a share, it has no interval.",),
    )


def _table(figures: Figures, by: str) -> Table:
    people = figures.people
    group, names = groups(people, by)
    correct, cluster = people.cell_correct, people.cell_cluster
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(len(names) + 1))
    rows: list[tuple[Any, ...]] = []
    for number, name in enumerate(names):
        chosen = order[bounds[number] : bounds[number + 1]]
        if not len(chosen):
            continue
        found = share_interval(correct[chosen], people.cell_count[chosen], cluster[chosen])
        hidden = figures.public and found.people < SMALLEST
        rows.append(
            (name, "< 5", None, None, None, None)
            if hidden
            else (name, found.people, found.clusters, found.share, found.low, found.high)
        )
    head = (by, people.noun, "clusters", f"share {people.task.headline}", "low", "high")
    return Table(f"By {by}", head, ("text", "integer", "integer", "percent", "percent", "percent"), tuple(rows))


COMPLIANCE = Section("Who, where and when", make)
