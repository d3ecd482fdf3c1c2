"""How sure the classifier was, and how small the faces were."""

from __future__ import annotations

import itertools

from maskbatch.report.people import SIZES_PER_DOUBLING, STEPS, Array
from maskbatch.report.sections.base import Chart, Content, Figures, Section
from maskbatch.web.tables import Table

_CONFIDENCE = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.01)
_SIZES = (0, 16, 24, 32, 48, 64, 96, 128, 1 << 30)


def make(figures: Figures) -> Content | None:
    people = figures.people
    if not len(people.label) or figures.public:
        return None
    correct = people.label == people.task.labels.index(people.task.headline)
    confidence = people.confidence / STEPS
    size = 2.0 ** (people.size / SIZES_PER_DOUBLING)

    def table(title: str, unit: str, values: Array, edges: tuple[float, ...], form: str) -> Table:
        rows = []
        for low, high in itertools.pairwise(edges):
            inside = (values >= low) & (values < high)
            count = int(inside.sum())
            name = f"{form.format(low)} and more" if high == edges[-1] else f"{form.format(low)} to {form.format(high)}"
            if count:
                rows.append((name, count, count / len(values), float(correct[inside].mean())))
        head = (unit, people.noun, "of all", f"share {people.task.headline}")
        return Table(title, head, ("text", "integer", "percent", "percent"), tuple(rows))

    unsure = float((confidence < 0.8).mean())
    small = float((size < 24).mean())
    return Content(
        (
            f"{100 * unsure:.1f} % of {people.noun} were labelled with a confidence below 0.8; "
            f"{100 * small:.1f} % have faces smaller than 24 pixels, where the label is least reliable.",
        ),
        (
            table("By confidence", "confidence", confidence, _CONFIDENCE, "{:.2f}"),
            table("By face size", "longer side, pixels", size, _SIZES, "{:.0f}"),
        ),
        (Chart("histogram", "Confidence", "confidence"), Chart("histogram", "Face size in pixels", "size")),
        notes=(
            "Of a person: the mean confidence of the sightings, and the largest face."
            if people.independent
            else "Of each sighting.",
        ),
    )


DOUBT = Section("Confidence and face size", make)
