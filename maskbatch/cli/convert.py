"""`maskbatch convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("convert", short_help="Write a result in another format: csv, jsonl.", no_args_is_help=True)(convert)


def convert(
    results: Annotated[str, typer.Argument(metavar="RESULTS", help="results.parquet, or the folder of a result.")],
    to: Annotated[str, typer.Option("--to", help="Format: csv, jsonl, or one that another package brings.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")],
) -> None:
    """Write a result for another tool; the result itself stays as it is."""
    from maskbatch.formats import convert as run_convert

    for path in run_convert(results, to, out):
        typer.echo(f"wrote {path}")
