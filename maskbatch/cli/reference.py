"""docs/reference.md: all commands and options, made from the commands themselves.

``python -m maskbatch.cli.reference`` prints it; with ``--write FILE`` it is written there. A test compares.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer.main

from maskbatch.cli import COMMANDS, build_app

TITLE = """# Reference

Every command with its arguments and options, made by `python -m maskbatch.cli.reference --write docs/reference.md`.
`maskbatch COMMAND --help` shows the same, grouped.

"""


def reference() -> str:
    """Markdown: a heading per command, a table of its arguments and options."""
    commands: dict[str, Any] = typer.main.get_command(build_app()).commands  # type: ignore[attr-defined]
    lines: list[str] = []
    for name in COMMANDS:
        lines += _command(f"maskbatch {name}", commands[name])
    return TITLE + "\n".join(lines).strip() + "\n"


def _command(name: str, command: Any) -> list[str]:
    if hasattr(command, "commands"):
        return [line for sub in command.commands.values() for line in _command(f"{name} {sub.name}", sub)]
    summary = " ".join(str(command.help).split("\n\n")[0].split())
    lines = [f"## `{name}`", "", summary, "", "| option | meaning | default |", "| --- | --- | --- |"]
    for parameter in command.params:
        if parameter.name == "help":
            continue
        names = "`" + "`, `".join([*parameter.opts, *parameter.secondary_opts]) + "`"
        if parameter.param_type_name == "argument":
            names = f"`{(parameter.metavar or parameter.name).upper()}`"
        default = parameter.default
        shown = "" if default is None or default is False or callable(default) or parameter.required else f"`{default}`"
        annotation = parameter.type_descriptor.annotation
        choices = get_args(annotation) if get_origin(annotation) is Literal else ()
        meaning = " ".join(str(parameter.help or "").split()).replace("|", "\\|")
        if choices:
            meaning += " One of " + ", ".join(f"`{choice}`" for choice in choices) + "."
        lines.append(f"| {names} | {meaning} | {shown} |")
    return [*lines, ""]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        Path(sys.argv[2]).write_text(reference())
    else:
        print(reference())
