"""`maskbatch audit`."""

from __future__ import annotations

from typing import Annotated

import typer

from maskbatch.cli.review import By, Host, Port, Redact, Results, opened


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("audit", short_help="Say how far a result can be trusted, from a random sample.", no_args_is_help=True)(
        audit
    )


def audit(
    results: Results,
    sample: Annotated[int, typer.Option(min=10, max=100_000, help="Answers to ask for.")] = 300,
    seed: Annotated[
        int | None, typer.Option(help="Of the draw. [default: that of the audit that was begun, else 0]")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Print what the answers so far say, as JSON; open no page.")
    ] = False,
    port: Port = 0,
    host: Host = "127.0.0.1",
    redact: Redact = False,
    by: By = "",
) -> None:
    """Answer a random sample without seeing the model's answers; get the corrected share with an interval, for the whole and each camera.

    People are sampled where the scan followed them, else faces. The same command goes on where it stopped; a larger --sample keeps the answers.
    """
    from maskbatch.review.serve import ReviewOptions, estimates, serve

    if estimate:
        import json

        typer.echo(json.dumps(estimates(results, sample, seed), indent=1))
        return
    serve(results, ReviewOptions(host, port, redact, by, sample, seed), opened(host))
    found = estimates(results, sample, seed)
    whole = found["estimate"]
    typer.echo(f"{found['answers']} of {found['asked']} answers")
    if whole is not None:
        typer.echo(
            f"{found['headline']}: {whole['value']:.1%} (95 % interval {whole['low']:.1%} to {whole['high']:.1%})"
        )
        if whole["more_for_2_points"]:
            typer.echo(
                f"review {whole['more_for_2_points']} more for ± 2 points: --sample {found['answers'] + whole['more_for_2_points']}"
            )
