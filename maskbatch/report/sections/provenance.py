"""Where the figures come from: models with checksums, settings, versions, machine, time per stage."""

from __future__ import annotations

from typing import Any

import maskbatch
from maskbatch.report.sections.base import Content, Figures, Section
from maskbatch.web.tables import Table


def make(figures: Figures) -> Content:
    run = figures.run
    summary: dict[str, Any] = run.get("summary") or {}
    rows: list[tuple[str, str]] = [("report", f"maskbatch {maskbatch.__version__}"), ("result", figures.name)]
    if figures.public:
        rows.pop()
    for key, name in (("tool", "scan"), ("finished_at", "finished")):
        if run.get(key):
            rows.append((name, str(run[key])))
    rows += [(f"model: {key}", str(value)) for key, value in (summary.get("models") or {}).items()]
    rows += [(f"machine: {key}", str(value)) for key, value in (run.get("machine") or {}).items()]
    rows += [(key, str(summary[key])) for key in ("device", "provider", "workers") if summary.get(key)]
    rows += [(key, f"{value}") for key, value in (run.get("settings") or {}).items()]
    tables = [Table("Scan", ("what", "value"), ("text", "text"), tuple(rows))]
    stages = summary.get("stages") or {}
    if stages:
        total = sum(stages.values()) or 1.0
        tables.append(
            Table(
                "Time of all workers by stage",
                ("stage", "time", "share"),
                ("text", "duration", "percent"),
                tuple((name, value, value / total) for name, value in stages.items()),
            )
        )
    warnings = () if run else ("The run file is not beside the result: models and settings are not known.",)
    return Content(tables=tuple(tables), warnings=warnings)


PROVENANCE = Section("Provenance", make)
