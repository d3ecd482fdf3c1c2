"""The planned questions."""

from __future__ import annotations

from maskbatch.report.people import People
from maskbatch.report.sections.base import Content

DEPENDENT = (
    "No p-value is given: sightings of the same person are not independent. Scan with --track to count people and to test."
)


def answer_questions(people: People) -> Content:
    if not people.independent:
        return Content((DEPENDENT,))
    return Content(())
