"""``maskbatch export overflow``: what an INT8 file loses on a processor without VNNI, computed on any machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from maskbatch.errors import ModelError, UsageError
from maskbatch_export.saturation import Overflow, SaturatingModel, count_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray


def add_overflow(app: typer.Typer) -> None:
    """Give the group its command."""
    app.command()(overflow)


def overflow(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL.int8.onnx...", help="INT8 classifiers or detectors.")],
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="Pascal VOC folder; repeatable. Its validation part runs through the files."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Faces (classifier) or images (detector) that run.")] = 40,
) -> None:
    """Say whether INT8 files are exact on x86 without VNNI, where sums of two products saturate; with --data, what it costs."""
    import onnx

    for path in models:
        if not path.is_file():
            raise UsageError(f"{path} does not exist")
        try:
            found = count_pairs(onnx.load(path))
        except Exception as error:
            raise ModelError(f"{path} is not an ONNX file that can be read: {error}") from error
        line = f"{path}: {found.risky} of {found.pairs} pairs of weights can overflow"
        if not found.pairs:
            raise ModelError(f"{path} has no quantized convolutions")
        typer.echo(line + (": exact on every processor" if not found.risky else ""))
        if data:
            exact, lossy, seen, name = _classifier(path, data, count) or _detector(path, data, count)
            seen = replace(found, sums=seen.sums, saturated=seen.saturated)
            typer.echo(
                f"  {name} {exact:.4f} with VNNI, {lossy:.4f} without; {seen.saturated} of {seen.sums} sums of such pairs saturated"
            )


Judged = tuple[float, float, Overflow, str]


def _classifier(path: Path, data: list[Path], count: int) -> Judged | None:
    from maskbatch_export.classifier.cli import Part, crops_for
    from maskbatch_export.classifier.metrics import macro_f1
    from maskbatch_export.onnx_files import OnnxClassifier

    try:
        known = OnnxClassifier(path)
    except ModelError:
        return None
    crops, labels = crops_for(data, Part.VAL, count, known)
    figures, seen = [], Overflow(0, 0)
    for saturate in (False, True):
        model = SaturatingModel(path, saturate)
        found = [model.run({"images": crops[i : i + 8]})["probabilities"] for i in range(0, len(crops), 8)]
        figures.append(macro_f1(labels, np.concatenate(found).argmax(1), known.labels))
        seen = Overflow(0, 0, model.sums, model.saturated)
    return figures[0], figures[1], seen, f"macro-F1 of {len(crops)} faces"


def _detector(path: Path, data: list[Path], count: int) -> Judged:
    from maskbatch_export.detector.data import read_pictures
    from maskbatch_export.detector.evaluate import detector, evaluate

    pictures = [p for folder in data for p in read_pictures(folder.resolve().parent, "val", (folder.resolve().name,))]
    if not pictures:
        raise UsageError("the validation part of the data holds no image")
    chosen = np.random.default_rng(0).permutation(len(pictures))[:count]
    figures, seen = [], Overflow(0, 0)
    for saturate in (False, True):
        model = SaturatingModel(path, saturate)
        figures.append(evaluate(detector(_predict(model)), [pictures[i] for i in chosen])["ap50"])
        seen = Overflow(0, 0, model.sums, model.saturated)
    return figures[0], figures[1], seen, f"AP.5 of {len(chosen)} images"


def _predict(model: SaturatingModel) -> Callable[[NDArray[np.uint8]], Any]:
    def predict(images: NDArray[np.uint8]) -> Any:
        found = model.run({"images": images})
        return found["scores"], found["deltas"], found["landmark_deltas"]

    return predict
