"""`maskbatch status`."""

from __future__ import annotations

from typing import Annotated

import typer

from maskbatch.cli.options import Json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "status", short_help="Show a scan's progress: what is done, what failed, what is left.", no_args_is_help=True
    )(status)


def status(
    work: Annotated[
        str, typer.Argument(metavar="WORK", help="The result (results.parquet) or its work folder (results.work).")
    ],
    json_out: Json = False,
) -> None:
    """Show a scan's progress: what is done, what failed and what is left, while it runs or after it was interrupted."""
    import json

    from maskbatch.cli.reporters import printable
    from maskbatch.scanning.status import read_status

    found = read_status(work)
    if json_out:
        typer.echo(json.dumps(found.as_dict(), indent=1))
        return
    for line in found.lines():
        typer.echo(printable(line))
