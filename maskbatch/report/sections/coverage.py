"""What was seen, failed and skipped, by camera: the denominator of everything."""

from __future__ import annotations

from maskbatch.report.coverage import COUNTS
from maskbatch.report.sections.base import Chart, Content, Figures, Section
from maskbatch.web.tables import Format, Table, counted

_HEAD = (
    "camera",
    "inputs",
    "ok",
    "partial",
    "failed",
    "images read",
    "video",
    "frames searched",
    "frames skipped",
    "frames failed",
)

_FORMATS: tuple[Format, ...] = (
    "text",
    "integer",
    "integer",
    "integer",
    "integer",
    "integer",
    "duration",
    "integer",
    "integer",
    "integer",
)


def make(figures: Figures) -> Content:
    coverage = figures.coverage
    if not coverage.known:
        return Content(
            warnings=("The table of the inputs is not beside the result, so what was not seen is not known.",)
        )
    total = coverage.total
    rows = tuple(
        (name if name is not None else "unknown camera", *(one[key] for key in COUNTS))
        for name, one in zip(coverage.cameras, coverage.by_camera, strict=True)
        if one["inputs"]
    )
    table = Table("By camera", _HEAD, _FORMATS, (*rows, ("all", *(total[key] for key in COUNTS))))
    seen = (
        f"{total['video_s'] / 3600:,.1f} hours of video"
        if total["video_s"] >= 3600
        else f"{counted(total['video_s'], 'second', 'seconds')} of video"
    )
    sentence = (
        f"{counted(total['inputs'], 'input', 'inputs')}: {counted(total['images'], 'image', 'images')} and {seen} were read; "
        f"frames searched for faces: {total['frames_read']:,.0f}, skipped by the sampling: {total['frames_skipped']:,.0f}."
    )
    warnings: tuple[str, ...] = ()
    if total["partial"] or total["error"]:
        warnings = (
            f"Inputs read in part: {total['partial']:,.0f}, not at all: {total['error']:,.0f}; who was in them is not in any figure. "
            "Charts mark the hours and cameras concerned.",
        )
    return Content(
        (sentence,),
        (table,),
        (Chart("coverage", "Hours seen, by date"),),
        notes=("Which camera an input without faces belongs to is read from its name.",),
        warnings=warnings,
        values={"total": total, "by_error": coverage.by_error},
    )


COVERAGE = Section("Coverage", make)
