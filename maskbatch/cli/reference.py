"""docs/reference.md: all commands and options, made from the commands themselves.

``python -m maskbatch.cli.reference`` prints it; with ``--write FILE`` it is written there. A test compares. `maskbatch.cli.man` makes
manual pages of the same.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer.main

from maskbatch.cli import COMMANDS, build_app

TITLE = """# Reference

Every command with its arguments and options, made by `python -m maskbatch.cli.reference --write docs/reference.md`.
`maskbatch COMMAND --help` shows the same, grouped.

"""


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument or an option.

    Attributes:
        names: ``--out``, ``-o``; of an argument, its name in capitals.
        meaning: one line.
        choices: what it may be, where it is one of a few.
        default: as it would be typed; empty where there is none, or where it is off.
        takes_value: whether a value follows it.
    """

    names: tuple[str, ...]
    meaning: str
    choices: tuple[str, ...]
    default: str
    takes_value: bool
    is_argument: bool


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its name (``maskbatch models list``), paragraphs of help, and parameters."""

    name: str
    paragraphs: tuple[str, ...]
    parameters: tuple[Parameter, ...]


def commands() -> Iterator[Command]:
    """Every command, those of groups one by one, in the order of the command line's own help."""
    found: dict[str, Any] = typer.main.get_command(build_app()).commands  # type: ignore[attr-defined]
    for name in COMMANDS:
        yield from _commands(f"maskbatch {name}", found[name])


def _commands(name: str, command: Any) -> Iterator[Command]:
    if hasattr(command, "commands"):
        for sub in command.commands.values():
            yield from _commands(f"{name} {sub.name}", sub)
        return
    paragraphs = (" ".join(part.split()) for part in inspect.cleandoc(str(command.help)).split("\n\n"))
    parameters = (_parameter(parameter) for parameter in command.params if parameter.name != "help")
    yield Command(name, tuple(paragraphs), tuple(parameters))


def _parameter(parameter: Any) -> Parameter:
    is_argument = parameter.param_type_name == "argument"
    names = (
        ((parameter.metavar or parameter.name).upper(),)
        if is_argument
        else (*parameter.opts, *parameter.secondary_opts)
    )
    default = parameter.default
    shown = "" if default is None or default is False or callable(default) or parameter.required else str(default)
    annotation = parameter.type_descriptor.annotation
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    meaning = " ".join(str(parameter.help or "").split())
    return Parameter(
        names, meaning, tuple(map(str, choices)), shown, not getattr(parameter, "is_flag", False), is_argument
    )


def reference() -> str:
    """Markdown: a heading per command, a table of its arguments and options."""
    lines: list[str] = []
    for command in commands():
        lines += [f"## `{command.name}`", "", command.paragraphs[0], ""]
        lines += ["| option | meaning | default |", "| --- | --- | --- |"]
        for parameter in command.parameters:
            names = "`" + "`, `".join(parameter.names) + "`"
            meaning = parameter.meaning.replace("|", "\\|")
            if parameter.choices:
                meaning += " One of " + ", ".join(f"`{choice}`" for choice in parameter.choices) + "."
            lines.append(f"| {names} | {meaning} | {f'`{parameter.default}`' if parameter.default else ''} |")
        lines.append("")
    return TITLE + "\n".join(lines).strip() + "\n"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        Path(sys.argv[2]).write_text(reference())
    else:
        print(reference())
