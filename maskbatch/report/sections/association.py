"""Is correct wearing associated with place and time?"""

from __future__ import annotations

from maskbatch.report.sections.base import Content, Figures, Section


def make(figures: Figures) -> Content | None:
    if not len(figures.people.label):
        return None
    from maskbatch.report.statistics.plan import answer_questions

    return answer_questions(figures.people)


ASSOCIATION = Section("Place and time", make)
