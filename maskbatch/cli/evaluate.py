"""`maskbatch evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from maskbatch.cli.options import DetSize, Device, Json, Precision
from maskbatch.config import CLASSIFIER, DET_SIZE, DETECTOR, MIN_SCORE

if TYPE_CHECKING:
    from maskbatch.evaluate.report import Evaluation


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "evaluate", short_help="Measure detectors and the classifier on annotated images.", no_args_is_help=True
    )(evaluate)


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Annotated images: a Pascal VOC folder (annotations/, images/) or WIDER's boxes.json.",
        ),
    ],
    detector: Annotated[
        list[str] | None,
        typer.Option("--detector", help="Face detector, as for `scan`; repeat to compare. [default: retinaface]"),
    ] = None,
    classifier: Annotated[
        str, typer.Option(help="Classifier, as for `scan`; none = no end-to-end figures.")
    ] = CLASSIFIER,
    det_size: DetSize = DET_SIZE,
    part: Annotated[
        Literal["all", "train", "val", "test"],
        typer.Option(
            help="Evaluate only this part of the data, by near-duplicate group (groups.csv); our models were trained on train."
        ),
    ] = "all",
    min_score: Annotated[
        float,
        typer.Option(
            min=0.1, max=1.0, help="Detector score from which a scan keeps a face; used for the confusion matrix."
        ),
    ] = MIN_SCORE,
    false_per_picture: Annotated[
        float, typer.Option(min=0.0, help="False alarms per image at which recall is compared.")
    ] = 1.0,
    precision: Precision = "auto",
    device: Device = "auto",
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate at most N images.")] = None,
    bootstrap: Annotated[int, typer.Option(min=100, help="Draws of the paired bootstrap over images.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report.md, report.json, plots (with matplotlib) and the worst images."),
    ] = None,
    json_out: Json = False,
) -> None:
    """Measure detectors and the classifier on annotated images, and test whether one detector finds more than another.

    Gives AP at IoU .35, .5 and .5:.95, recall by face size and class, mAP over the classes, the confusion matrix, milliseconds per
    image; for each pair of detectors a paired bootstrap of AP and McNemar's test of the faces found.
    """
    import json

    from rich.console import Console
    from rich.progress import Progress

    from maskbatch.evaluate.main import EvaluationRequest, evaluate_models
    from maskbatch.evaluate.report import Rules, markdown

    request = EvaluationRequest(
        data=data,
        detectors=tuple(detector or (DETECTOR,)),
        classifier=None if classifier == "none" else classifier,
        part=part,
        precision=precision,
        device=device,
        limit=limit,
        rules=Rules(det_size, min_score, false_per_picture, bootstrap, seed),
    )
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("pictures", total=None)
        found = evaluate_models(request, lambda done, whole: bars.update(task, completed=done, total=whole))
    written = _write(found, out) if out is not None else []
    if json_out:
        typer.echo(json.dumps(found.as_dict(), indent=1))
        return
    typer.echo(markdown(found))
    for path in written:
        typer.echo(f"wrote {path}")


def _write(found: Evaluation, out: Path) -> list[Path]:
    import json

    from maskbatch.errors import OutputError
    from maskbatch.evaluate.plots import draw_diagrams, draw_worst, has_matplotlib
    from maskbatch.evaluate.report import markdown

    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.md").write_text(markdown(found), encoding="utf-8")
        (out / "report.json").write_text(json.dumps(found.as_dict(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}") from None
    written = [out / "report.md", out / "report.json"]
    if has_matplotlib():
        written += draw_diagrams(found, out)
    else:
        typer.echo("no diagrams: they need matplotlib, `uv pip install matplotlib`", err=True)
    if draw_worst(found, out):
        written.append(out / "worst")
    return written
