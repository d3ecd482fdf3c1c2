"""Options that several verbs share, so that they read the same everywhere. `scan` has its own, with a panel for each."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Device = Annotated[
    Literal["auto", "cpu", "cuda", "tensorrt"],
    typer.Option(help="Where models run: auto = the best that works; any other fails if it is not available."),
]
Detector = Annotated[str, typer.Option(help="Face detector, as for `scan`.")]
Classifier = Annotated[str, typer.Option(help="Classifier, as for `scan`.")]
DetSize = Annotated[
    int, typer.Option(min=64, max=4096, help="Long side of the detector's input in pixels (multiple of 32).")
]
Precision = Annotated[Literal["auto", "fp32", "fp16", "int8"], typer.Option(help="Model variant, as for `scan`.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON on standard output.")]
