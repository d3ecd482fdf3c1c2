"""Settings from a file: ``--config maskbatch.toml`` and ``$MASKBATCH_CONFIG``, for every command.

A TOML file holds long options by name, as ``every = "2s"``. Those at its top are options of ``maskbatch scan``, a table ``[report]``
holds those of ``maskbatch report``. The command line wins. A file is read only where it is named: one that happens to lie in the
working folder would change what a command means.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import inspect
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from maskbatch.errors import MaskbatchError, UsageError

VARIABLE = "MASKBATCH_CONFIG"
MAIN_COMMAND = "scan"
"""The command whose options stand at the top of a file."""

MAX_BYTES = 1 << 20
OURS = frozenset({"config", "show-config", "help", "version"})
EXCLUSIVE = (frozenset({"every", "fps", "keyframes", "all"}),)
"""Options of which one replaces the others: one that is typed takes the place of another that is in the file."""

_SECRET = re.compile(
    r"//[^/\s@]*:[^/\s@]+@|[?&;](?:[\w-]*(?:token|secret|signature|password|passwd|credential)|sig|pwd|key)=",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A settings file that was read.

    Attributes:
        path: as it was named.
        sha256: of its bytes.
        values: long option → value, those of them that this command uses.
    """

    path: str
    sha256: str
    values: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For the run file."""
        return {"path": self.path, "sha256": self.sha256, "values": self.values}


_in_use: ContextVar[SettingsFile | None] = ContextVar("settings_file", default=None)


def settings_in_use() -> SettingsFile | None:
    """The file that the running command took settings from."""
    return _in_use.get()


def with_settings_file(function: Callable[..., None]) -> Callable[..., None]:
    """The command with ``--config`` and ``--show-config``."""
    signature = inspect.signature(function, eval_str=True)
    panel = next((p for p in map(_panel, reversed([*signature.parameters.values()])) if p), None)
    file_option = typer.Option(
        "--config",
        metavar="FILE",
        envvar=VARIABLE,
        is_eager=True,
        callback=_read,
        help="Take options from this TOML file; those of the command line win.",
        rich_help_panel=panel,
    )
    show_option = typer.Option(
        "--show-config",
        is_eager=True,
        callback=_without_arguments,
        help="Print every option with its value and where that comes from, and exit.",
        rich_help_panel=panel,
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter("_context", keyword, annotation=typer.Context),
        inspect.Parameter("config_file", keyword, default=None, annotation=Annotated[Path | None, file_option]),
        inspect.Parameter("show_config", keyword, default=False, annotation=Annotated[bool, show_option]),
    ]

    @functools.wraps(function)
    def command(*, _context: typer.Context, config_file: Path | None, show_config: bool, **values: Any) -> None:
        displaced = _displaced(_context)
        for name in displaced:
            values[name] = signature.parameters[name].default
        chosen = _chosen_models(_context)
        values |= chosen
        if show_config:
            for line in _shown(_context, values, displaced, chosen):
                typer.echo(line)
            raise typer.Exit
        if config_file is not None:
            _in_use.set(_used(_context, displaced))
        function(**values)

    parameters = [*signature.parameters.values(), *added]
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[parameter.replace(kind=keyword) for parameter in parameters]
    )
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _chosen_models(context: typer.Context) -> dict[str, str]:
    """The user's own default classifier (`maskbatch models use`), for commands that take one and were not given any."""
    source = context.get_parameter_source("classifier") if "classifier" in context.params else None
    if source is None or source.name != "DEFAULT":
        return {}
    from maskbatch.models.defaults import default_classifier

    own = default_classifier()
    return {} if own is None else {"classifier": own}


def _panel(parameter: inspect.Parameter) -> str | None:
    return next((m.rich_help_panel for m in getattr(parameter.annotation, "__metadata__", ())), None)


def _without_arguments(context: typer.Context, value: bool) -> bool:
    """Settings can be shown without naming what they would be applied to."""
    if value and not context.resilient_parsing:
        for parameter in context.command.params:
            parameter.required = False
    return value


def _read(context: typer.Context, path: Path | None) -> Path | None:
    """Make the file's values the defaults of this command; what is wrong in the file is an error, used or not."""
    if path is None or context.resilient_parsing:  # a shell that completes a word must not stumble over the file
        return path
    content = _content(path)
    try:
        document = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} is not a TOML file: {error}") from None
    try:
        found = _checked(document, context)
    except MaskbatchError as error:
        raise UsageError(f"{path}: {error}") from None
    context.default_map = {name: value for name, (_, value, _) in found.items()}
    given = {option: original for option, _, original in found.values()}
    context.meta[__name__] = SettingsFile(str(path), hashlib.sha256(content).hexdigest(), given)
    return path


def _content(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise UsageError(f"the settings file {path} is a folder")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"the settings file {path} cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path} is too large for a settings file")
    return content


def _checked(document: Mapping[str, Any], context: typer.Context) -> dict[str, tuple[str, Any, Any]]:
    """Parameter name → option, value for the parameter, and value as it stands in the file (JSON-ready), for this command.

    All keys of the file are checked, since a misspelt one would otherwise be found only by the command that it is meant for.

    Raises:
        UsageError: an unknown command or option, or a value that the option refuses.
    """
    root = context.parent.command if context.parent is not None else context.command
    commands: dict[str, Any] = getattr(root, "commands", {context.command.name: context.command})
    top = {key: value for key, value in document.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in document.items() if isinstance(value, dict)}
    for name in tables:
        if not _known(commands.get(name)):
            raise UsageError(f"there is no command {name!r} with settings{_nearest(name, [*commands])}")
    if double := next((key for key in top if key in tables.get(MAIN_COMMAND, {})), None):
        raise UsageError(f"{double} is set twice, at the top and in [{MAIN_COMMAND}]")
    found: dict[str, tuple[str, Any, Any]] = {}
    for name, table in ((MAIN_COMMAND, top), *tables.items()):
        known = _known(commands.get(name))
        for key, value in table.items():
            option = key.replace("_", "-")
            if option not in known:
                raise UsageError(f"{name} has no setting {key!r}{_nearest(option, [*known])}")
            parameter, negated = known[option]
            if name == context.command.name:
                if parameter.name in found:
                    raise UsageError(f"{found[parameter.name][0]} and {key} are the same setting")
                checked = _value(parameter, key, value, negated, context)
                found[parameter.name] = (option, checked, value if isinstance(value, bool | int | float) else checked)
    return found


def _known(command: Any) -> dict[str, tuple[Any, bool]]:
    """Long options of a command by name, each with its parameter and whether it says no to it; empty for groups of commands."""
    if command is None or hasattr(command, "commands"):
        return {}
    known = {}
    for parameter in command.params:
        if parameter.param_type_name == "option":
            for names, negated in ((parameter.opts, False), (parameter.secondary_opts, True)):
                for name in names:
                    if name.startswith("--") and name[2:] not in OURS:
                        known[name[2:]] = (parameter, negated)
    return known


def _nearest(word: str, words: list[str]) -> str:
    close = get_close_matches(word, words, 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _value(parameter: Any, key: str, value: Any, negated: bool, context: typer.Context) -> Any:
    """The value as the command line would have given it; raises UsageError where the option does not take it."""
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{key} is true or false, not {value!r}")
        return value != negated
    if parameter.multiple:
        entries = value if isinstance(value, list) else [value]
        checked: Any = [_text(key, entry) for entry in entries]
    else:
        checked = _text(key, value)
    try:
        parameter.process_value(context, checked)
    except typer.BadParameter as error:
        raise UsageError(f"{key} = {value!r}: {error.message}") from None
    return checked


def _text(key: str, value: Any) -> str:
    if isinstance(value, dt.datetime | dt.date | dt.time):
        value = value.isoformat()
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"{key} is a text or a number, not {value!r}")
    if _SECRET.search(str(value)):
        raise UsageError(f"{key} holds a password or a key; a settings file must not (leave it to the environment)")
    return str(value)


def _options(context: typer.Context) -> Iterator[tuple[str, str, str]]:
    """Parameter name, long option, and source (``COMMANDLINE``, ``DEFAULT_MAP`` …) of every option of the command, except ours."""
    for option, (parameter, negated) in _known(context.command).items():
        source = context.get_parameter_source(parameter.name)
        if not negated and source is not None:
            yield parameter.name, option, source.name


def _displaced(context: typer.Context) -> dict[str, str]:
    """Parameters whose value in the file gives way to another option on the command line, with that option."""
    found: dict[str, str] = {}
    options = list(_options(context))
    for group in EXCLUSIVE:
        typed = next((o for _, o, source in options if o in group and source == "COMMANDLINE"), None)
        if typed is not None:
            found |= {name: typed for name, o, source in options if o in group and source == "DEFAULT_MAP"}
    return found


def _used(context: typer.Context, displaced: Mapping[str, str]) -> SettingsFile | None:
    """What was really taken from the file."""
    read: SettingsFile | None = context.meta.get(__name__)
    if read is None:
        return None
    taken = {
        option
        for option, (parameter, _) in _known(context.command).items()
        if parameter.name not in displaced
        and getattr(context.get_parameter_source(parameter.name), "name", "") == "DEFAULT_MAP"
    }
    return SettingsFile(read.path, read.sha256, {key: value for key, value in read.values.items() if key in taken})


def _as_text(value: Any) -> str:
    if value in (None, "", [], ()):
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(
    context: typer.Context, values: Mapping[str, Any], displaced: Mapping[str, str], chosen: Mapping[str, str]
) -> Iterator[str]:
    read: SettingsFile | None = context.meta.get(__name__)
    origins = {
        "COMMANDLINE": "command line",
        "DEFAULT_MAP": read.path if read is not None else "",
        "ENVIRONMENT": "environment",
    }
    rows = []
    for name, option, source in _options(context):
        shown = _as_text(values[name])
        origin = f"default (in place of the file's, for --{displaced[name]})" if name in displaced else ""
        origin = "maskbatch models use" if name in chosen else origin
        rows.append((option, _SECRET.sub("//…@", shown), origin or origins.get(source, "default")))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    for option, shown, origin in rows:
        yield f"{option:{widths[0]}}  {shown:{widths[1]}}  {origin}"
    if not rows:
        yield "this command has no options"
