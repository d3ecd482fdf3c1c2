"""`maskbatch report` as a function."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from maskbatch.errors import UsageError
from maskbatch.report.coverage import read_coverage
from maskbatch.report.faces import sample_faces
from maskbatch.report.packed import SMALLEST, for_public, pack
from maskbatch.report.people import SIZES_PER_DOUBLING, STEPS, read_people, result_name
from maskbatch.report.sections import SECTIONS, Content, Figures
from maskbatch.results.reader import ResultReader
from maskbatch.storage.atomic import write_bytes
from maskbatch.web.look import label_css
from maskbatch.web.page import Page, render, static_text
from maskbatch.web.tables import plain_markdown, shown

ReportFormat = Literal["html", "md", "json"]


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        timezone: IANA name for hours, weekdays and dates.
        public: without file names and faces, and without cells of fewer than five people.
        faces: to show of each label, of the least certain and at random.
        redact: cover the eyes of those.
        title: heading.
        corrections: count as people decided.
    """

    timezone: str = "UTC"
    public: bool = False
    faces: int = 0
    redact: bool = False
    title: str = "Face masks: who, where and when"
    corrections: bool = False


Made = list[tuple[str, str, Content]]


def make_report(
    results: str | os.PathLike[str],
    form: ReportFormat = "html",
    options: ReportOptions | None = None,
    beside: Path | None = None,
) -> str:
    """The report of a result.

    Args:
        results: ``results.parquet``, the folder of a data set, or a URL.
        form: ``html`` is one file that needs nothing else; ``md`` and ``json`` have the same figures.
        options: what it shows.
        beside: the folder where the report will lie; faces are linked to those inputs that lie in or below it.

    Raises:
        UsageError: not a result, or not a time zone.
    """
    options = options or ReportOptions()
    if options.public and options.faces:
        raise UsageError("--public leaves out faces; --faces cannot be given with it")
    reader = ResultReader(results, options.corrections)
    figures = _figures(reader, options, beside)
    made: Made = []
    for name in SECTIONS.names:
        section = SECTIONS.load(name)
        content = section.make(figures)
        if content is not None:
            made.append((name, section.title, content))
    if form == "json":
        return _json(made, figures)
    return _markdown(made, options) if form == "md" else _html(made, figures, options)


def write_report(
    results: str | os.PathLike[str], out: Path, form: ReportFormat = "html", options: ReportOptions | None = None
) -> None:
    """Make a report and write it whole. Raises as `make_report`, and OutputError."""
    write_bytes(out, make_report(results, form, options, out.parent).encode())


def _figures(reader: ResultReader, options: ReportOptions, beside: Path | None) -> Figures:
    people = read_people(reader, options.timezone)
    coverage = read_coverage(reader, people)
    suppressed = 0
    if options.public:
        people, suppressed = for_public(people)
    faces, missing = (
        sample_faces(reader, options.faces, redact=options.redact, beside=beside) if options.faces else ((), 0)
    )
    return Figures(
        name=result_name(reader.path),
        people=people,
        coverage=coverage,
        run=reader.run(),
        public=options.public,
        suppressed=suppressed,
        faces=faces,
        faces_missing=missing,
        redacted=options.redact,
        corrections=len(reader.corrections or ()),
        audit=None if options.public else reader.audit(),
    )


def _json(made: Made, figures: Figures) -> str:
    sections = {
        name: {
            "title": title,
            "sentences": list(content.sentences),
            "warnings": list(content.warnings),
            "notes": list(content.notes),
            "values": content.values,
            "tables": [table.as_dict() for table in content.tables],
        }
        for name, title, content in made
    }
    described = {"counted": figures.people.counted, "timezone": figures.people.timezone, "sections": sections}
    return json.dumps(described, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _markdown(made: Made, options: ReportOptions) -> str:
    parts = [f"# {options.title}"]
    for _, title, content in made:
        parts.append(f"## {title}")
        parts += [plain_markdown(text) for text in (*content.sentences, *content.warnings)]
        for table in content.tables:
            parts += [f"### {plain_markdown(table.title)}", table.markdown()]
        parts += [f"*{plain_markdown(note)}*" for note in content.notes]
    return "\n\n".join(parts) + "\n"


def _html(made: Made, figures: Figures, options: ReportOptions) -> str:
    page = files("maskbatch.report") / "page"
    people = figures.people
    packed = pack(people, figures.coverage)
    data: dict[str, Any] = {
        "layout": packed.layout,
        "labels": list(people.task.labels),
        "headline": people.task.labels.index(people.task.headline),
        "cameras": list(figures.coverage.cameras),
        "epoch": people.epoch.isoformat(),
        "steps": STEPS,
        "sizes": SIZES_PER_DOUBLING,
        "public": SMALLEST if figures.public else 0,
        "noun": people.noun,
        "one": people.noun_of_one,
        "failed": [one["partial"] + one["error"] for one in figures.coverage.by_camera],
    }
    sections = [
        {"name": name, "title": title, **{f.name: getattr(content, f.name) for f in dataclasses.fields(content)}}
        for name, title, content in made
    ]
    values = {
        "title": options.title,
        "name": "" if options.public else figures.name,
        "sections": sections,
        "labels": people.task.labels,
        "shown": shown,
        "filters": bool(len(people.label)),
        "public": figures.public,
        "clocks": bool((people.cell_slot >= 0).any()),
    }
    return render(
        Page(
            title=options.title,
            template=(page / "report.html.j2").read_text(encoding="utf-8"),
            values=values,
            styles=[static_text("look.css") + label_css(people.task)],
            scripts=[static_text("charts.js"), (page / "report.js").read_text(encoding="utf-8")],
            data=data,
            columns=packed.text,
        )
    )
