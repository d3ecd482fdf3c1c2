"""Faces, where they were asked for: per label, the least certain, random ones."""

from __future__ import annotations

from maskbatch.report.sections.base import Content, Figures, Section


def make(figures: Figures) -> Content | None:
    if not figures.faces and not figures.faces_missing:
        return None
    notes = ["These are people: keep this file as you would keep the recordings."]
    if figures.redacted:
        notes.append(
            "The eyes are covered. That is mitigation, not anonymity: hair, skin, clothes and place can still tell who it is."
        )
    warnings: tuple[str, ...] = ()
    if figures.faces_missing:
        warnings = (
            f"{figures.faces_missing:,} of the chosen faces cannot be shown: their inputs are not where they were scanned.",
        )
    return Content(warnings=warnings, notes=tuple(notes), faces=figures.faces)


FACES = Section("Faces", make)
