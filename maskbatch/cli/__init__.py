"""The command line: one file per command, each thin. Nothing heavy is imported until a command runs, so that `--help` is quick."""

from __future__ import annotations

import contextlib
import importlib
import keyword
import sys
from importlib.metadata import entry_points
from typing import Annotated, NoReturn

import typer

COMMANDS = (
    "scan",
    "watch",
    "status",
    "summary",
    "report",
    "review",
    "audit",
    "convert",
    "import",
    "demo",
    "evaluate",
    "models",
    "warmup",
    "bench",
    "doctor",
)
EXPORT_HINT = (
    "`maskbatch export` makes models and needs TensorFlow; install it with `uv sync --all-packages` in a clone "
    "(or `pip install ./export`)"
)


def _version(value: bool) -> None:
    if value:
        from maskbatch import __version__

        typer.echo(f"maskbatch {__version__}")
        raise typer.Exit


def build_app() -> typer.Typer:
    """The Typer application with all commands."""
    app = typer.Typer(
        name="maskbatch",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        # The list of commands is plain text, since rich alone takes as long to import as all else that it needs; a command's many
        # options are shown in panels.
        rich_markup_mode="rich" if sys.argv[1:2] and sys.argv[1] in COMMANDS else None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Who wore a face mask, correctly or not, when and where: images and CCTV video in, a Parquet table out.",
    )

    @app.callback()
    def _main(
        _version_flag: Annotated[
            bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
        ] = False,
    ) -> None:
        """Who wore a face mask, correctly or not, when and where: images and CCTV video in, a Parquet table out."""

    for name in COMMANDS:
        importlib.import_module(f"maskbatch.cli.{name}{'_' * keyword.iskeyword(name)}").register(app)
    _add_settings_file(app)
    _add_installed_commands(app)
    return app


def _add_settings_file(app: typer.Typer) -> None:
    """Every command takes ``--config`` and ``--show-config``; those of groups (`models list`) have too few options for it."""
    from maskbatch.cli.settings_file import with_settings_file

    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = with_settings_file(command.callback)


def _add_installed_commands(app: typer.Typer) -> None:
    """`maskbatch export …` comes from the training package's own package, where that is installed."""
    if sys.argv[1:2] == ["export"]:  # loaded only when it is called: other commands must not wait for it
        for point in entry_points(group="maskbatch.commands", name="export"):
            app.add_typer(point.load(), name="export", help="Make models: data set, training, evaluation, conversion.")
            return

    @app.command(
        "export",
        short_help="Make models (needs the package maskbatch-export).",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def _export(_context: typer.Context) -> None:
        """Make models: data set, training, evaluation, conversion (needs the package maskbatch-export)."""
        typer.echo(f"error: {EXPORT_HINT}", err=True)
        raise typer.Exit(1)


def main() -> None:
    """Entry point of the `maskbatch` command."""
    from maskbatch.cli.completion import complete_zsh_script, is_completing, skip_conversion
    from maskbatch.cli.streams import guarded_streams
    from maskbatch.errors import EXIT_FATAL, EXIT_INTERRUPTED, MaskbatchError

    if is_completing():
        skip_conversion()
    if sys.argv[1:2] in (["--install-completion"], ["--show-completion"]):
        complete_zsh_script()
    try:
        with guarded_streams():
            build_app()()
    except MaskbatchError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED, prefix="")
    except BrokenPipeError:  # `maskbatch … | head`
        sys.exit(0)
    except UnicodeError as error:
        _fail(f"a name or a text cannot be written or read in this environment's encoding: {error}", EXIT_FATAL)
    except OSError as error:
        name = f" ({error.filename})" if error.filename else ""
        _fail(f"{error.strerror or error}{name}", EXIT_FATAL)


def _fail(message: str, code: int, prefix: str = "error: ") -> NoReturn:
    from maskbatch.cli.reporters import printable

    # It may name a file, and a file's name must not steer a terminal.
    with contextlib.suppress(OSError, ValueError):
        typer.echo(printable(f"{prefix}{message}"), err=True)
    sys.exit(code)
