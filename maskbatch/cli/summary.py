"""`maskbatch summary`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from maskbatch.results.summary import ResultSummary


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "summary", short_help="Count people by camera and hour: with, without, incorrect.", no_args_is_help=True
    )(summary)


def summary(
    results: Annotated[str, typer.Argument(metavar="RESULTS", help="results.parquet, or the folder of a result.")],
    by: Annotated[
        str, typer.Option("--by", help="Columns to split by: source, camera, hour, hour-of-day, date, weekday.")
    ] = "camera,hour",
    output: Annotated[
        Literal["text", "csv", "json"], typer.Option("--format", help="How the table is printed.")
    ] = "text",
    timezone: Annotated[
        str, typer.Option("--timezone", help="Time zone of hours and dates, as in Europe/Berlin.")
    ] = "UTC",
    corrections: Annotated[
        bool, typer.Option("--corrections", help="Count as people decided, by the corrections beside the result.")
    ] = False,
) -> None:
    """Count people (faces, in a scan without --track) by label, camera and hour: with a mask, without one, incorrectly worn."""
    from maskbatch.results.summary import summarize

    found = summarize(results, tuple(part.strip() for part in by.split(",") if part.strip()), timezone, corrections)
    printers = {"text": _text, "csv": _csv, "json": _json}
    printers[output](found)


def _text(found: ResultSummary) -> None:
    from maskbatch.cli.reporters import printable, shorter

    explained = {
        "people": "people: each person of each video counts once, when first seen, with the label that the sightings voted for",
        "faces": "faces: every sighting counts (scan with --track to count people)",
        "people and faces": "people in tracked videos, faces in all other inputs",
    }
    typer.echo(explained[found.counted])
    head = [*found.by, "count", *(shorter(label) for label in found.labels), f"share {shorter(found.headline)}"]
    lines = [_cells(found, row) for row in found.rows]
    lines.append(
        _cells(
            found,
            {**dict.fromkeys(found.by, ""), **({found.by[0]: "total"} if found.by else {}), **found.total},
        )
    )
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    keys = len(found.by)
    for line in [head, ["-" * width for width in widths], *lines]:
        cells = [c.ljust(w) if i < keys else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        typer.echo("  ".join(cells).rstrip())
    if any("hour" in key or key in ("date", "weekday") for key in found.by):
        typer.echo(f"times in {found.timezone}; +hh:00 is the hour of the recording where the wall clock is not known")
    if found.untracked:
        noun, verb = ("face", "belongs") if found.untracked == 1 else ("faces", "belong")
        typer.echo(f"{found.untracked} low-score {noun} in tracked videos {verb} to no person; not counted")


def _cells(found: ResultSummary, row: dict[str, Any]) -> list[str]:
    share = "-" if row["share"] is None else f"{100 * row['share']:.1f} %"
    return [
        *("-" if row[key] is None else str(row[key]) for key in found.by),
        f"{row['count']:,}",
        *(f"{row[label]:,}" for label in found.labels),
        share,
    ]


def _csv(found: ResultSummary) -> None:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*found.by, found.counted.replace(" ", "_"), *found.labels, f"share_{found.headline}"])
    for row in found.rows if found.by else (found.total,):
        share = "" if row["share"] is None else f"{row['share']:.4f}"
        writer.writerow(
            [
                *("" if row[key] is None else row[key] for key in found.by),
                row["count"],
                *(row[k] for k in found.labels),
                share,
            ]
        )
    typer.echo(text.getvalue(), nl=False)


def _json(found: ResultSummary) -> None:
    import dataclasses
    import json

    typer.echo(json.dumps(dataclasses.asdict(found), indent=1))
