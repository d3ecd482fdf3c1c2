"""docs/reference.md and the command line cannot drift apart, and the README stays short."""

from __future__ import annotations

from pathlib import Path

import typer.main

from maskbatch.cli import COMMANDS, build_app
from maskbatch.cli.reference import reference

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference.md"


def parameters(command: object) -> list[object]:
    subcommands = getattr(command, "commands", None)
    if subcommands:
        return [parameter for sub in subcommands.values() for parameter in parameters(sub)]
    return list(command.params)  # type: ignore[attr-defined]


def test_the_reference_is_that_of_this_version() -> None:
    assert REFERENCE.read_text() == reference(), (
        "run: uv run python -m maskbatch.cli.reference --write docs/reference.md"
    )


def test_every_option_has_help_and_is_in_the_reference() -> None:
    commands = typer.main.get_command(build_app()).commands  # type: ignore[attr-defined]
    text = REFERENCE.read_text()
    for name in COMMANDS:
        assert commands[name].help, name
        for parameter in parameters(commands[name]):
            assert parameter.help, f"{name} {parameter.name} has no help"  # type: ignore[attr-defined]
            if parameter.param_type_name == "option" and parameter.name != "help":  # type: ignore[attr-defined]
                assert f"`{parameter.opts[0]}`" in text, f"{name} {parameter.opts[0]} is not in the reference"  # type: ignore[attr-defined]


def test_the_readme_is_read_in_three_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
