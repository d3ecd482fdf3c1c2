"""`maskbatch import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SHOWN = 10
"""Of images that were not found."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "import",
        short_help="Take labels from COCO, VOC, YOLO, Label Studio or CVAT, as corrections or as a data set.",
        no_args_is_help=True,
    )(import_labels)


def import_labels(
    labels: Annotated[list[Path], typer.Argument(metavar="LABELS...", help="Files or folders that other tools wrote.")],
    results: Annotated[
        str | None,
        typer.Option("--results", help="Result to correct: what differs goes into the corrections beside it."),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option("--dataset", help="Folder for a Pascal VOC data set, for `evaluate` and training.")
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="Format of the labels. [default: by what they look like]")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Where the images of a data set are. [default: beside the labels]")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="NAME=LABEL: what a label of other spelling is in the result; repeatable.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who labelled, for the log of corrections.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would change.")] = False,
) -> None:
    """Take in what people labelled elsewhere; the result itself stays as it is."""
    from maskbatch.errors import EXIT_SOME_FAILED, UsageError
    from maskbatch.formats.importing import import_corrections, read_labels
    from maskbatch.formats.voc_dataset import import_dataset

    if (results is None) == (dataset is None):
        raise UsageError("name either --results, to correct a result, or --dataset, to make a data set")
    names = {}
    for pair in label or []:
        spelling, sign, name = pair.partition("=")
        if not sign or not spelling or not name:
            raise UsageError(f"--label {pair}: write NAME=LABEL")
        names[spelling] = name
    found = read_labels(labels, format_)
    if dataset is not None:
        done = import_dataset(found, dataset, images)
        typer.echo(f"{done.images} images in {dataset}")
    else:
        assert results is not None
        origin = f"import:{format_}" if format_ else "import"
        done = import_corrections(
            (image for _, image in found), results, names=names, by=by, origin=origin, dry_run=dry_run
        )
        changed = done.actions
        typer.echo(
            f"{done.images} images: {changed['label']} labels changed, {changed['not_a_face']} detections that are no face, "
            f"{changed['missed']} missed faces"
            + (" (nothing written)" if dry_run else f"; in {done.written}" if changed else ": nothing to correct")
        )
    if done.unknown:
        typer.echo(f"{len(done.unknown)} images were not found:", err=True)
        for name in done.unknown[:SHOWN]:
            typer.echo(f"  {name}", err=True)
        raise typer.Exit(EXIT_SOME_FAILED)
