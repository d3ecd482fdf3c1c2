"""``maskbatch export classifier prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskbatch.errors import InputNotFoundError


def add_prune(app: typer.Typer) -> None:
    """Give the group its command."""
    app.command()(prune)


def prune(
    model: Annotated[Path, typer.Argument(help="float32 ONNX MobileNetV2 from `convert`.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
    data: Annotated[
        list[Path], typer.Option("--data", help="Pascal VOC folder; train is fitted to, val judges; repeatable.")
    ],
    size: Annotated[int, typer.Option(min=32, help="Side of the crops that the lighter model takes.")] = 112,
    keep: Annotated[float, typer.Option(min=0.1, max=1, help="Share of the hidden channels that stays.")] = 0.85,
    faces: Annotated[int, typer.Option(min=16, help="Training faces that layers are fitted to.")] = 1500,
) -> None:
    """Make a lighter classifier without training: smaller crops, fewer channels, layers fitted anew. Says what it loses."""
    import onnx

    from maskbatch.storage.atomic import written_whole
    from maskbatch_export.classifier.cli import Part, crops_for
    from maskbatch_export.classifier.metrics import macro_f1
    from maskbatch_export.classifier.prune import prune as run_pruning
    from maskbatch_export.onnx_files import OnnxClassifier

    if not model.is_file():
        raise InputNotFoundError(f"{model} does not exist")
    known = OnnxClassifier(model)
    large = crops_for(data, Part.TRAIN, faces, known, jitters=(1.0,))[0]
    judged, labels = crops_for(data, Part.VAL, 0, known, jitters=(0.0, 1.0))
    before = macro_f1(labels, known.predict(judged).argmax(1), known.labels)
    known.size = size  # the same faces as the lighter model is to see them
    small = crops_for(data, Part.TRAIN, faces, known, jitters=(1.0,))[0]
    pruned = run_pruning(onnx.load(model), small, large, keep, typer.echo)
    with written_whole(out) as temporary:
        onnx.save(pruned, temporary)
    lighter = OnnxClassifier(out)
    judged = crops_for(data, Part.VAL, 0, lighter, jitters=(0.0, 1.0))[0]
    after = macro_f1(labels, lighter.predict(judged).argmax(1), lighter.labels)
    typer.echo(f"{out}: macro-F1 {after:.4f} on the validation part in two views ({before:.4f} before)")
