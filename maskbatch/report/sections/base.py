"""What a section is: words, tables and charts, made once from the figures and shown by the page, by Markdown and by JSON alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from maskbatch.report.coverage import Coverage
from maskbatch.report.faces import FaceSample
from maskbatch.report.people import People
from maskbatch.web.tables import Table


@dataclass(frozen=True, slots=True)
class Figures:
    """All that a section may speak of.

    Attributes:
        name: of the result.
        people: who is counted.
        coverage: what was looked at.
        run: ``results.run.json``, empty where it is missing.
        public: names of files are left out and small groups are not told apart.
        suppressed: people left out for that.
        faces: to be shown; none unless asked for.
        faces_missing: chosen faces whose input cannot be read.
        redacted: their eyes are covered.
        corrections: decisions of people that are applied.
        audit: what ``results.audit.json`` says, None where there is none.
    """

    name: str
    people: People
    coverage: Coverage
    run: dict[str, Any]
    public: bool = False
    suppressed: int = 0
    faces: tuple[FaceSample, ...] = ()
    faces_missing: int = 0
    redacted: bool = False
    corrections: int = 0
    audit: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart that the page draws from its data; `kind` is known to ``page/report.js``."""

    kind: str
    title: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """What a section says.

    Attributes:
        sentences: paragraphs.
        tables: shown after the charts.
        charts: only in the page.
        notes: what must be known to read the section rightly.
        warnings: what is missing or wrong.
        values: further figures for JSON.
        faces: only in the page.
    """

    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)
    faces: tuple[FaceSample, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report. `make` returns None where it has nothing to say."""

    title: str
    make: Callable[[Figures], Content | None]
