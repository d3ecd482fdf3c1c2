"""`maskbatch report`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report", short_help="Write one HTML file that answers the question, offline.", no_args_is_help=True)(
        report
    )


def report(
    results: Annotated[str, typer.Argument(metavar="RESULTS", help="results.parquet, or the folder of a result.")],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="File to write. [default: the result's name with .html; md and json on standard output]",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        Literal["html", "md", "json"], typer.Option("--format", help="html, or the same figures as md or json.")
    ] = "html",
    timezone: Annotated[
        str, typer.Option("--timezone", help="Time zone of hours, weekdays and dates, as in Europe/Berlin.")
    ] = "UTC",
    public: Annotated[
        bool, typer.Option("--public", help="Leave out file names; do not tell groups of fewer than five people apart.")
    ] = False,
    faces: Annotated[
        int,
        typer.Option(
            "--faces", min=0, max=500, help="Show N faces of each label, N of the least certain, N at random."
        ),
    ] = 0,
    redact: Annotated[
        bool, typer.Option("--redact", help="Cover the eyes of the faces that are shown (mitigation, not anonymity).")
    ] = False,
    corrections: Annotated[
        bool, typer.Option("--corrections", help="Count as people decided, by the corrections beside the result.")
    ] = False,
) -> None:
    """Who wore a mask, where and when, how sure that is, and what was not seen: one file that needs no network and no server."""
    from pathlib import Path

    from maskbatch.report.make import ReportOptions, make_report, write_report
    from maskbatch.report.people import result_name
    from maskbatch.storage.opener import is_url

    options = ReportOptions(timezone, public, faces, redact, corrections=corrections)
    if out is None and form != "html":
        typer.echo(make_report(results, form, options), nl=False)
        return
    if out is None:
        stem = result_name(results).removesuffix(".parquet")
        out = f"{stem}.html" if is_url(results) else str(Path(results.rstrip("/")).with_name(f"{stem}.html"))
    write_report(results, Path(out), form, options)
    typer.echo(f"wrote {out}")
