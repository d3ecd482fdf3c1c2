"""The answer in one sentence, with its interval."""

from __future__ import annotations

from maskbatch.report.sections.base import Content, Figures, Section
from maskbatch.report.statistics.intervals import share_interval
from maskbatch.web.tables import counted


def make(figures: Figures) -> Content:
    people = figures.people
    found = share_interval(people.cell_correct, people.cell_count, people.cell_cluster)
    values = {
        "counted": people.counted,
        "label": people.task.headline,
        "people": found.people,
        "share": found.share,
        "low": found.low,
        "high": found.high,
        "clusters": found.clusters,
        "method": found.method,
    }
    if found.share is None:
        return Content(("No face was found in the inputs that could be read.",), values=values)
    interval = (
        f"95 % interval {100 * found.low:.1f} to {100 * found.high:.1f} %"
        if found.low is not None and found.high is not None
        else f"no interval: too few camera-days, {found.clusters}"
    )
    verb = "is" if found.people == 1 else "are"
    who = counted(found.people, people.noun_of_one, people.noun)
    sentence = f"{100 * found.share:.1f} % of {who} {verb} judged {people.task.headline} ({interval})."
    return Content((sentence,), notes=tuple(_notes(figures)), values=values)


def _notes(figures: Figures) -> list[str]:
    people = figures.people
    notes = []
    if not people.independent:
        notes.append(
            "Sightings are counted, not people: somebody who stays in view is counted in every sampled frame "
            "(scan with --track to count people)."
            if people.counted == "sightings"
            else "People are counted in tracked videos, sightings in all other inputs."
        )
    else:
        notes.append(
            "A person counts once per video, at first sight; somebody who returns or is seen by two cameras counts again."
        )
    if people.untracked:
        notes.append(
            f"Low-score faces in tracked videos that belong to no person and are not counted: {people.untracked:,}."
        )
    if figures.public:
        notes.append(
            f"Public report: no file names, no faces; hours of a camera with fewer than five people are not told apart"
            f"{f'; people left out: {figures.suppressed:,}' if figures.suppressed else ''}."
        )
    notes.append("The classifier's own mistakes are not part of the interval.")
    return notes


ANSWER = Section("Answer", make)
