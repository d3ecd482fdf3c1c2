"""`maskbatch bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from maskbatch.cli.options import Classifier, Detector, DetSize, Device, Json, Precision
from maskbatch.config import CLASSIFIER, DET_SIZE, DETECTOR


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench", short_help="Measure this machine on these files: kernels alone, then scans.")(bench)


def bench(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Images and videos as for `scan`. [default: synthetic images]"),
    ] = None,
    device: Device = "auto",
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            "-j",
            min=0,
            help="Number of worker processes; 0 = auto: one per usable CPU core, or one per GPU.",
        ),
    ] = 0,
    detector: Detector = DETECTOR,
    classifier: Classifier = CLASSIFIER,
    det_size: DetSize = DET_SIZE,
    precision: Precision = "auto",
    every: Annotated[str, typer.Option(help="Interval between the sampled frames of a video.")] = "1s",
    rounds: Annotated[int, typer.Option(min=1, max=99, help="Number of rounds; kernels and scans take turns.")] = 3,
    limit: Annotated[int, typer.Option(min=1, help="Process at most N inputs.")] = 1000,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of kernels alone in each round.")] = 5.0,
    json_out: Json = False,
) -> None:
    """Measure this machine on these files: every kernel alone, the ceiling, a whole scan, and how near it comes.

    The ceiling is the number of cores over the sum of the kernels' times per image. Nothing is written; the result of each scan goes to
    a temporary folder.
    """
    from maskbatch.cli.values import seconds as seconds_of
    from maskbatch.config import Execution, ModelSettings, Sampling, ScanConfig
    from maskbatch.diagnose.bench.session import bench_paths

    config = ScanConfig(
        models=ModelSettings(detector, classifier, det_size, precision=precision),
        sampling=Sampling(every_s=seconds_of(every, "--every")),
        execution=Execution(device=device, workers=workers),
    )
    found = bench_paths(
        paths or [],
        config,
        rounds=rounds,
        limit=limit,
        kernel_s=seconds,
        told=lambda text: typer.echo(text, err=True),
    )
    if json_out:
        import json

        typer.echo(json.dumps(found, indent=1))
        return
    from maskbatch.diagnose.bench.session import report_lines

    for line in report_lines(found):
        typer.echo(line)
