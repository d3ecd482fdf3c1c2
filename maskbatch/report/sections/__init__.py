"""The sections of the report, in the order in which they are shown. A new one is a file here and a line below."""

from __future__ import annotations

from maskbatch.registry import Registry
from maskbatch.report.sections.base import Chart, Content, Figures, Section

SECTIONS: Registry[Section] = Registry(
    "report section",
    {
        "answer": "maskbatch.report.sections.answer:ANSWER",
        "audit": "maskbatch.report.sections.audit:AUDIT",
        "coverage": "maskbatch.report.sections.coverage:COVERAGE",
        "compliance": "maskbatch.report.sections.compliance:COMPLIANCE",
        "association": "maskbatch.report.sections.association:ASSOCIATION",
        "classes": "maskbatch.report.sections.classes:CLASSES",
        "doubt": "maskbatch.report.sections.doubt:DOUBT",
        "faces": "maskbatch.report.sections.faces:FACES",
        "failures": "maskbatch.report.sections.failures:FAILURES",
        "provenance": "maskbatch.report.sections.provenance:PROVENANCE",
    },
)

__all__ = ["SECTIONS", "Chart", "Content", "Figures", "Section"]
