"""`maskbatch review`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

Results = Annotated[str, typer.Argument(metavar="RESULTS", help="results.parquet, or the folder of a result.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 = a free one.")]
Host = Annotated[str, typer.Option(help="Address to listen on. Anything but loopback lets others on the network ask.")]
Redact = Annotated[bool, typer.Option("--redact", help="Cover the eyes of faces, blur all faces in frames.")]
By = Annotated[str, typer.Option(help="Who decides, for the log of corrections.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "review", short_help="Look at the faces of a result and put them right, on a page.", no_args_is_help=True
    )(review)


def review(
    results: Results,
    port: Port = 0,
    host: Host = "127.0.0.1",
    redact: Redact = False,
    by: By = "",
) -> None:
    """Look at the faces of a result in a browser and put them right; decisions go into a file beside the result.

    The page is for this machine alone: its address is printed with a token that works once.
    """
    from maskbatch.review.serve import ReviewOptions, serve

    serve(results, ReviewOptions(host, port, redact, by), opened(host))


def opened(host: str) -> Callable[[str], None]:
    """Says where the page is."""
    from maskbatch.web.server import LOOPBACK

    def say(address: str) -> None:
        if host not in LOOPBACK:
            typer.echo(
                f"warning: others on the network can reach {host}; whoever has this address sees the faces", err=True
            )
        typer.echo(f"open {address}\n(it works once; Ctrl+C ends)")

    return say
