"""`maskbatch convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SHOWN = 10
"""Of images that could not be written."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "convert",
        short_help="Write a result in another format: csv, jsonl, coco, voc, yolo, labelstudio, cvat, fiftyone.",
        no_args_is_help=True,
    )(convert)


def convert(
    results: Annotated[str, typer.Argument(metavar="RESULTS", help="results.parquet, or the folder of a result.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="Format: csv, jsonl, coco, voc, yolo, labelstudio, cvat, fiftyone, or one that another package brings.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")],
    frames: Annotated[
        bool,
        typer.Option(
            "--frames",
            help="Write the images too: copies of the stills, and the frames of videos that hold faces. "
            "[default: they are only named]",
        ),
    ] = False,
    redact: Annotated[bool, typer.Option("--redact", help="Blur every face in these images.")] = False,
    corrections: Annotated[
        bool, typer.Option("--corrections", help="The result as people decided, by the corrections beside it.")
    ] = False,
    prefix: Annotated[
        str, typer.Option(help="Put before the names of images, as in /data/local-files/?d= for Label Studio.")
    ] = "",
) -> None:
    """Write a result for another tool; the result itself stays as it is."""
    from maskbatch.errors import EXIT_SOME_FAILED
    from maskbatch.formats import convert as run_convert

    done = run_convert(results, to, out, frames=frames, redact=redact, corrections=corrections, prefix=prefix)
    for path in done.files:
        typer.echo(f"wrote {path}")
    for note in done.notes:
        typer.echo(f"note: {note}", err=True)
    if done.not_written:
        typer.echo(f"{len(done.not_written)} inputs could not be written as images:", err=True)
        for line in done.not_written[:SHOWN]:
            typer.echo(f"  {line}", err=True)
        if len(done.not_written) > SHOWN:
            typer.echo(f"  … and {len(done.not_written) - SHOWN} more", err=True)
        raise typer.Exit(EXIT_SOME_FAILED)
