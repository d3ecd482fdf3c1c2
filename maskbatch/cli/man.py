"""Manual pages, made from the commands themselves: ``python -m maskbatch.cli.man ~/.local/share/man/man1``, then ``man maskbatch-scan``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from maskbatch import __version__
from maskbatch.cli.reference import Command, Parameter, commands

SUMMARY = "who wore a face mask, correctly or not, when and where"

EXIT_CODES = (
    ("0", "All inputs are ok."),
    ("1", "Fatal: the output cannot be written, a model or a device is not available."),
    ("2", "The command or its options are wrong."),
    ("3", "Finished; some inputs failed or are partial, or there was none."),
    ("130", "Interrupted; the same command continues."),
)

ENVIRONMENT = (
    ("MASKBATCH_CONFIG", "Settings file, as with --config."),
    ("MASKBATCH_CACHE", "Folder of downloaded models and of engines. Without it, maskbatch in XDG_CACHE_HOME."),
)


def pages() -> dict[str, str]:
    """File name → manual page: one for the program, one per command."""
    every = list(commands())
    found = {f"{_dashed(command.name)}.1": "\n".join(_page(command)) + "\n" for command in every}
    found["maskbatch.1"] = "\n".join(_main_page(every)) + "\n"
    return found


def write_pages(folder: Path) -> list[Path]:
    """Write all pages to a folder, which should be a ``man1``; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in sorted(pages().items()):
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


def _dashed(name: str) -> str:
    return name.replace(" ", "-")


def _text(text: str) -> str:
    """A line of text: what groff would read as a request, an escape or a hyphen stays what it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


def _head(name: str, summary: str) -> Iterator[str]:
    yield f'.TH "{_text(name.upper())}" "1" "" "maskbatch {__version__}" "maskbatch"'
    yield ".SH NAME"
    yield f"{_text(name)} \\- {_text(summary.rstrip('.'))}"


def _page(command: Command) -> Iterator[str]:
    yield from _head(_dashed(command.name), command.paragraphs[0])
    yield ".SH SYNOPSIS"
    arguments = [parameter.names[0] for parameter in command.parameters if parameter.is_argument]
    yield f".B {_text(command.name)}"
    yield _text(" ".join([*arguments, "[options]"]))
    yield ".SH DESCRIPTION"
    for number, paragraph in enumerate(command.paragraphs):
        if number:
            yield ".PP"
        yield _text(paragraph)
    yield ".SH OPTIONS"
    for parameter in command.parameters:
        yield from _entry(parameter)
    yield from _tail("maskbatch")


def _entry(parameter: Parameter) -> Iterator[str]:
    yield ".TP"
    names = ", ".join(f"\\fB{_text(name)}\\fR" for name in parameter.names)
    value = " \\fIVALUE\\fR" if parameter.takes_value and not parameter.is_argument else ""
    yield names + value
    extra = f" One of {', '.join(parameter.choices)}." if parameter.choices else ""
    default = f" Default: {parameter.default}." if parameter.default else ""
    yield _text(f"{parameter.meaning}{extra}{default}")


def _main_page(every: list[Command]) -> Iterator[str]:
    yield from _head("maskbatch", SUMMARY)
    yield ".SH SYNOPSIS"
    yield ".B maskbatch"
    yield _text("COMMAND [arguments] [options]")
    yield ".SH DESCRIPTION"
    yield _text(
        "Scans archives of images and CCTV video into a table with a row per face. Each command has a page of its own, as maskbatch-scan(1)."
    )
    yield ".SH COMMANDS"
    for command in every:
        yield ".TP"
        yield f"\\fB{_text(command.name.removeprefix('maskbatch '))}\\fR"
        yield _text(command.paragraphs[0])
    yield from _tail("maskbatch-scan")


def _tail(other: str) -> Iterator[str]:
    for title, entries in (("EXIT STATUS", EXIT_CODES), ("ENVIRONMENT", ENVIRONMENT)):
        yield f".SH {title}"
        for name, meaning in entries:
            yield ".TP"
            yield f"\\fB{_text(name)}\\fR"
            yield _text(meaning)
    yield ".SH SEE ALSO"
    yield f".BR {_text(other)} (1)"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m maskbatch.cli.man FOLDER")
    for path in write_pages(Path(sys.argv[1])):
        print(path)
