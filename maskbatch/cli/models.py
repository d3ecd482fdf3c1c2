"""`maskbatch models list | pull | use | verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskbatch.cli.options import Json

if TYPE_CHECKING:
    from maskbatch.models import Entry
    from maskbatch.models.defaults import OwnDefault


def register(app: typer.Typer) -> None:
    """Add the command."""
    models = typer.Typer(no_args_is_help=True, help="List, download, choose and verify models.")
    models.command("list")(list_models)
    models.command("pull", no_args_is_help=True)(pull)
    models.command("use", no_args_is_help=True)(use)
    models.command("verify")(verify)
    app.add_typer(models, name="models")


def list_models(
    json_out: Json = False,
) -> None:
    """List the registered models: what they are for, their licence, and whether they are installed."""
    from maskbatch.models import all_entries
    from maskbatch.models.defaults import check_default, own_default

    entries, own = all_entries(), own_default()
    if json_out:
        import json

        listed = [_as_dict(entry) for entry in entries]
        if own is not None:
            listed.append(_own_as_dict(own))
        typer.echo(json.dumps(listed, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "role", "installed", "size", "licence", "purpose", box=None, pad_edge=False)
    for entry in entries:
        size = f"{entry.size / 1e6:.1f} MB"
        table.add_row(entry.name, entry.role, _where(entry), size, entry.licence, entry.purpose)
    if own is not None:
        purpose = f"tells {', '.join(own.labels)} (DEFAULT classifier, SHA-256 {own.sha256[:12]}…, from {own.origin})"
        size = f"{own.path.stat().st_size / 1e6:.1f} MB" if own.path.is_file() else ""
        table.add_row(own.path.stem, "classifier", "no" if check_default(own) else "own", size, "your own", purpose)
    console = Console(width=None if Console().is_terminal else 200, markup=False, highlight=False)
    console.print(table)
    typer.echo("Get one with `maskbatch models pull NAME`; any ONNX file of a known family works as FAMILY:PATH.onnx.")


def pull(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names from `maskbatch models list`.")],
    accept_license: Annotated[
        bool,
        typer.Option("--accept-license", help="Confirm that you have read the licence and that it permits your use."),
    ] = False,
) -> None:
    """Download models into the cache folder, checked against their registered checksums."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from maskbatch.models.download import pull_model

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        for name in names:
            task = bars.add_task(name, total=None)

            def show(done: int, whole: int, task: object = task) -> None:
                bars.update(task, completed=done, total=whole or None)  # type: ignore[arg-type]

            path = pull_model(name, accept_license, show)
            bars.remove_task(task)
            typer.echo(f"{name}: {path}")


def use(
    model: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="ONNX classifier with its labels inside; mask_mobilenet_v2 = the packaged one again."
        ),
    ],
) -> None:
    """Make a classifier of your own the default of --classifier: a copy is kept in the cache folder with its checksum."""
    from maskbatch.classify.classifier import make_classifier
    from maskbatch.config import CLASSIFIER, ModelSettings
    from maskbatch.models.defaults import check_name, use_classifier, use_packaged

    if model == CLASSIFIER:
        use_packaged()
        typer.echo(f"the default classifier is {CLASSIFIER}, the packaged one")
        return
    from maskbatch.runtime import resolve_device

    check_name(model)
    make_classifier(ModelSettings(classifier=str(Path(model).expanduser())), resolve_device("cpu"))  # it really starts
    own = use_classifier(Path(model).expanduser())
    typer.echo(f"the default classifier is {own.path} (SHA-256 {own.sha256}; {', '.join(own.labels)})")


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Names to check. [default: all that are installed]")
    ] = None,
    json_out: Json = False,
) -> None:
    """Compare model files with their registered SHA-256 checksums; exit code 1 if one is missing or differs."""
    from maskbatch.errors import EXIT_FATAL, UsageError
    from maskbatch.models import all_entries, entry_path
    from maskbatch.models.registry import check_entry

    entries = {entry.name: entry for entry in all_entries()}
    unknown = [name for name in names or () if name not in entries]
    if unknown:
        raise UsageError(f"no model is called {unknown[0]!r}: see `maskbatch models list`")
    chosen = [entries[name] for name in names] if names else [e for e in entries.values() if _expected(e)]
    problems = {entry.name: check_entry(entry) for entry in chosen}
    if json_out:
        import json

        found = [{**_as_dict(entry), "problem": problems[entry.name] or None} for entry in chosen]
        typer.echo(json.dumps(found, indent=1))
    else:
        for entry in chosen:
            typer.echo(f"{entry.name}: {problems[entry.name] or 'ok'} ({entry_path(entry)})")
    if any(problems.values()) or _own_is_broken(json_out, named=bool(names)):
        raise typer.Exit(EXIT_FATAL)


def _expected(entry: Entry) -> bool:
    from maskbatch.models import entry_path

    return entry.packaged or entry_path(entry).exists()


def _where(entry: Entry) -> str:
    from maskbatch.models import entry_path

    if entry.packaged:
        return "packaged"
    return "yes" if entry_path(entry).exists() else "no"


def _as_dict(entry: Entry) -> dict[str, object]:
    from maskbatch.models import entry_path

    path = entry_path(entry)
    return {
        "name": entry.name,
        "role": entry.role,
        "family": entry.family,
        "purpose": entry.purpose,
        "licence": entry.licence,
        "restricted": entry.restricted,
        "packaged": entry.packaged,
        "url": entry.url,
        "size": entry.size,
        "sha256": entry.sha256,
        "path": str(path),
        "here": path.exists(),
    }


def _own_as_dict(own: OwnDefault) -> dict[str, object]:
    return {
        "name": own.path.stem,
        "role": "classifier",
        "default": True,
        "labels": list(own.labels),
        "origin": own.origin,
        "sha256": own.sha256,
        "path": str(own.path),
        "here": own.path.exists(),
    }


def _own_is_broken(json_out: bool, named: bool) -> bool:
    """Whether the user's own default, which is checked where all models are, is not what was chosen."""
    from maskbatch.models.defaults import check_default, own_default

    own = None if named else own_default()
    problem = "" if own is None else check_default(own)
    if own is not None:
        typer.echo(f"{own.path.stem}: {problem or 'ok'} ({own.path})", err=json_out)
    return bool(problem)
