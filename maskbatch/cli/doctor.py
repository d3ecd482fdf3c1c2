"""`maskbatch doctor`."""

from __future__ import annotations

import typer

from maskbatch.cli.options import Json

_SIGNS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "wrong": ("✗", "red")}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", short_help="Check versions, wheels, devices and models; say what to fix.")(doctor)


def doctor(json_out: Json = False) -> None:
    """Check the installation: versions, clashing wheels, devices that really start, models and their checksums.

    Exit code 1 if something is wrong; every finding comes with what to do about it.
    """
    from maskbatch.diagnose.doctor import as_dict, run_checks
    from maskbatch.errors import EXIT_FATAL

    checks = run_checks()
    if json_out:
        import json

        typer.echo(json.dumps(as_dict(checks), indent=1))
    else:
        for check in checks:
            sign, colour = _SIGNS[check.state]
            typer.echo(f"{typer.style(sign, fg=colour)} {check.name}: {check.detail}")
            if check.fix:
                typer.echo(f"  → {check.fix}")
        wrong = sum(check.state == "wrong" for check in checks)
        typer.echo(f"{wrong} problem{'s' if wrong > 1 else ''}" if wrong else "no problems found")
    if any(check.state == "wrong" for check in checks):
        raise typer.Exit(EXIT_FATAL)
