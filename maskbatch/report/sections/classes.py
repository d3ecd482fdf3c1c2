"""How the labels share out."""

from __future__ import annotations

import numpy as np

from maskbatch.report.sections.base import Chart, Content, Figures, Section
from maskbatch.report.statistics.intervals import share_interval
from maskbatch.web.tables import Table


def make(figures: Figures) -> Content | None:
    people = figures.people
    if not len(people.label):
        return None
    cells, cluster = people.cells, people.cell_cluster
    rows = []
    for code, name in enumerate(people.task.labels):
        count = np.bincount(cells, people.label == code, len(people.cell_count))
        found = share_interval(count, people.cell_count, cluster)
        rows.append((name, int(count.sum()), found.share, found.low, found.high))
    table = Table(
        "Labels",
        ("label", people.noun, "share", "low", "high"),
        ("text", "integer", "percent", "percent", "percent"),
        tuple(rows),
    )
    return Content(tables=(table,), charts=(Chart("classes", "Labels"),))


CLASSES = Section("Class mix", make)
