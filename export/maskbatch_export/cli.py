"""``maskbatch export …``: the commands of the training package. Heavy libraries are imported when a command runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from maskbatch.errors import MissingExtraError
from maskbatch_export.classifier.cli import app as classifier
from maskbatch_export.detector.cli import app as detector
from maskbatch_export.moved import add_moved
from maskbatch_export.overflow import add_overflow


@contextlib.contextmanager
def missing_packages_named() -> Iterator[None]:
    """An ImportError of the block becomes one sentence that says which package is missing.

    Raises:
        MissingExtraError: in its place.
    """
    try:
        yield
    except ImportError as error:
        name = (error.name or str(error)).partition(".")[0]
        package = {"cv2": "opencv-python-headless", "sklearn": "scikit-learn", "tensorflow": "tensorflow-cpu"}.get(
            name, name
        )
        raise MissingExtraError(f"this command needs the package {package}: uv pip install {package}") from error


class _Group(TyperGroup):
    """Runs a command; where a package is missing, says which."""

    def invoke(self, ctx: Any) -> Any:
        with missing_packages_named():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Group, no_args_is_help=True, help="Make models: train, evaluate, convert, quantize, average, look at the data."
)
app.add_typer(classifier, name="classifier")
app.add_typer(detector, name="detector")
add_overflow(app)

MOVED = {
    "stats": "classifier stats",
    "train": "classifier train",
    "average": "classifier average",
    "evaluate": "classifier evaluate",
    "convert": "classifier convert",
    "quantize": "classifier quantize",
    "suspects": "classifier suspects",
}
"""Commands of the first edition → what they are called now."""


add_moved(app, "maskbatch export", MOVED)
