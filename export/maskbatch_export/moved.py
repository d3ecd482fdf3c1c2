"""Commands of the first edition: each gives an error that names its new spelling."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from maskbatch.errors import UsageError


def add_moved(app: typer.Typer, prefix: str, moved: Mapping[str, str]) -> None:
    """Hidden commands that raise UsageError.

    Args:
        app: to which they are added.
        prefix: what stands before a command's name on the command line.
        moved: old name → new one.
    """
    for old, new in moved.items():
        _add(app, f"{prefix} {old}", f"{prefix} {new}", old)


def _add(app: typer.Typer, old: str, new: str, name: str) -> None:
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

    @app.command(name, hidden=True, context_settings=settings)
    def refuse(_context: typer.Context) -> None:
        raise UsageError(f"`{old}` is now `{new}` (see its --help)")
