"""The worst inputs, by error."""

from __future__ import annotations

from maskbatch.report.sections.base import Content, Figures, Section
from maskbatch.web.tables import Table

SHOWN = 50


def make(figures: Figures) -> Content | None:
    coverage = figures.coverage
    if not coverage.failures:
        return None
    errors = Table("By error", ("error", "inputs"), ("text", "integer"), tuple(coverage.by_error.items()))
    if figures.public:
        return Content(tables=(errors,))
    rows = tuple(
        (f.source, f.camera or "–", f.status, f.error, f.frames_failed, f.message) for f in coverage.failures[:SHOWN]
    )
    worst = Table(
        f"The worst {len(rows)} of {len(coverage.failures):,}",
        ("input", "camera", "status", "error", "frames failed", "message"),
        ("text", "text", "text", "text", "integer", "text"),
        rows,
    )
    return Content(tables=(errors, worst))


FAILURES = Section("Inputs that are not ok", make)
