"""`maskbatch warmup`."""

from __future__ import annotations

from typing import Annotated

import typer

from maskbatch.cli.options import Classifier, Detector, DetSize, Device, Json, Precision
from maskbatch.config import CLASSIFIER, DET_SIZE, DETECTOR


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("warmup", short_help="Run every model shape once; builds TensorRT's engines.")(warmup)


def warmup(
    device: Device = "auto",
    detector: Detector = DETECTOR,
    classifier: Classifier = CLASSIFIER,
    det_size: DetSize = DET_SIZE,
    batch_size: Annotated[
        int, typer.Option(min=0, max=1024, help="Images and faces per call, as for `scan`; 0 = auto.")
    ] = 0,
    precision: Precision = "auto",
    json_out: Json = False,
) -> None:
    """Run every model shape of a scan once, before it: builds TensorRT's engines, which takes minutes, and keeps them.

    Give the same options as to `scan`. On a CPU it only shows that the models load and how long a batch takes.
    """
    from maskbatch.config import ModelSettings
    from maskbatch.diagnose.warmup import warm_up_all

    config = ModelSettings(detector=detector, classifier=classifier, det_size=det_size, precision=precision)
    found = warm_up_all(config, device, batch_size, None if json_out else typer.echo)
    if json_out:
        import json

        typer.echo(json.dumps(found.as_dict(), indent=1))
    else:
        typer.echo(f"{found.device.name} is ready" + (f"; engines are in {found.engines}" if found.engines else ""))
