"""What people who looked at a random sample say of the result, and how much of it they put right."""

from __future__ import annotations

from typing import Any

from maskbatch.report.sections.base import Content, Figures, Section
from maskbatch.web.tables import Table


def make(figures: Figures) -> Content | None:
    sentences, tables = [], []
    if figures.corrections:
        number = figures.corrections
        sentences.append(f"{number:,} {'decision' if number == 1 else 'decisions'} of people applied to these figures.")
    audit = figures.audit
    if audit is not None and audit.get("estimate"):
        whole: dict[str, Any] = audit["estimate"]
        sentences.append(
            f"Audited: {audit['headline']} {whole['value']:.1%}, with 95 % confidence between {whole['low']:.1%} and {whole['high']:.1%}, from "
            f"{whole['answers']:,} answers of people on a random sample of {audit['population']:,} {audit['units']}. "
            f"The model alone says {audit['by_model']:.1%}."
        )
        rows = [
            (one["camera"], one["answers"], *(one["estimate"][key] for key in ("value", "low", "high")))
            for one in audit.get("cameras", [])
            if one.get("estimate")
        ]
        if rows:
            table = Table(
                "Audited share",
                ("camera", "answers", "share", "low", "high"),
                ("text", "integer", "percent", "percent", "percent"),
                tuple(rows),
            )
            tables.append(table)
    if not sentences:
        return None
    notes = ("An audit says how right the table is; people whom the detector did not see are not in it.",)
    return Content(
        sentences=tuple(sentences),
        tables=tuple(tables),
        notes=notes if audit is not None else (),
        values={"corrections": figures.corrections, "audit": audit},
    )


AUDIT = Section("Audit and corrections", make)
