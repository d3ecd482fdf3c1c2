"""The README's reference and the command line cannot drift apart."""

from __future__ import annotations

from pathlib import Path

import typer.main

from maskbatch.cli import VERBS, build_app
from maskbatch.cli.reference import with_reference

README = Path(__file__).parents[2] / "README.md"


def parameters(command: object) -> list[object]:
    subcommands = getattr(command, "commands", None)
    if subcommands:
        return [parameter for sub in subcommands.values() for parameter in parameters(sub)]
    return list(command.params)  # type: ignore[attr-defined]


def test_readme_holds_the_reference_of_this_version() -> None:
    text = README.read_text()
    assert text == with_reference(text), "run: uv run python -m maskbatch.cli.reference --write README.md"


def test_every_option_has_help_and_is_in_the_readme() -> None:
    commands = typer.main.get_command(build_app()).commands  # type: ignore[attr-defined]
    text = README.read_text()
    for verb in VERBS:
        assert commands[verb].help, verb
        for parameter in parameters(commands[verb]):
            assert parameter.help, f"{verb} {parameter.name} has no help"  # type: ignore[attr-defined]
            if parameter.param_type_name == "option" and parameter.name != "help":  # type: ignore[attr-defined]
                assert f"`{parameter.opts[0]}`" in text, f"{verb} {parameter.opts[0]} is not in the README"  # type: ignore[attr-defined]
