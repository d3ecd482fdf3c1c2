"""``maskbatch export …``: the workshop's commands. Heavy libraries are imported when a command runs."""

from __future__ import annotations

import enum
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskbatch.classify.crops import CROP_CONTEXT
from maskbatch.errors import InputNotFoundError, UsageError

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(no_args_is_help=True, help="Make models: data set, training, evaluation, conversion.")


def _mount_detector() -> None:
    try:
        from maskbatch_export.detector.cli import app as detector
    except ImportError:  # a dependency of the detector's workshop is missing; the classifier's commands still work
        return
    app.add_typer(detector, name="detector")


_mount_detector()

DataArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="DATA...", help="Pascal VOC folders: annotations/*.xml, images/*, groups.csv if there is one."
    ),
]


class Architecture(enum.StrEnum):
    """Names of `architectures.ARCHITECTURES`, as the command line offers them."""

    MOBILENET = "mobilenet-v2"
    MOBILENET_FLAT = "mobilenet-v2-flat"
    SMALL = "small-cnn"
    EFFICIENTNET = "efficientnet-lite2"


class Part(enum.StrEnum):
    """A part of the split by group."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"
    ALL = "all"


class Variant(enum.StrEnum):
    """A faster variant of an exported model."""

    INT8 = "int8"
    FP16 = "fp16"


class Scale(enum.StrEnum):
    """Pixel ranges that classifiers expect."""

    SYMMETRIC = "-1..1"
    UNIT = "0..1"
    BYTES = "0..255"


class Channels(enum.StrEnum):
    """Orders of the channels that classifiers expect."""

    BGR = "bgr"
    RGB = "rgb"


@app.command()
def stats(
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="Report without suffix; .md, .html, .csv and plots are written.")] = Path(
        "out/stats/data"
    ),
    seed: Annotated[int, typer.Option(help="Which faces the contact sheets show.")] = 0,
) -> None:
    """Say what data sets hold: classes, sizes, near copies, problems."""
    from maskbatch_export.data import read_tables
    from maskbatch_export.stats import write_stats

    summary = write_stats(read_tables(data), out, seed)
    typer.echo(json.dumps(summary, indent=1))
    typer.echo(f"{out.with_suffix('.md')} and {out.with_suffix('.html')}", err=True)


@app.command()
def train(
    data: DataArgument,
    run: Annotated[Path, typer.Option(help="Folder of this run; an unfinished run in it is continued.")],
    architecture: Annotated[Architecture, typer.Option(help="Network.")] = Architecture.MOBILENET,
    start: Annotated[
        str | None,
        typer.Option(
            help="Where to begin: an .npz of torchvision's ImageNet arrays, `keras` (downloads its own), EfficientNet-Lite2's .pth, or an earlier run's .keras."
        ),
    ] = None,
    wider: Annotated[
        Path | None, typer.Option(help="WIDER FACE folder; its faces become further without_mask.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of fine-tuning, at most.")] = 20,
    head_epochs: Annotated[int, typer.Option(min=0, help="Epochs before, with the backbone frozen.")] = 1,
    patience: Annotated[int, typer.Option(min=0, help="Stop after so many epochs without a better one; 0 never.")] = 6,
    small_epochs: Annotated[int, typer.Option(min=0, help="The first fine-tuning epochs run on 96×96 crops.")] = 0,
    batch: Annotated[int, typer.Option(min=2, help="Crops per step.")] = 32,
    rate: Annotated[float, typer.Option(help="Peak of the learning rate.")] = 5e-4,
    context: Annotated[
        float, typer.Option(help="Side of a crop as a multiple of the box's longer side.")
    ] = CROP_CONTEXT,
    balance: Annotated[float, typer.Option(min=0, max=1, help="0 as in the data, 1 all classes equally often.")] = 0.5,
    extra: Annotated[float, typer.Option(min=0, max=1, help="Share of the crops that --wider gives.")] = 0.06,
    cctv: Annotated[float, typer.Option(min=0, help="Strength of low resolution, blur, JPEG, noise, infra-red.")] = 0.6,
    mixup: Annotated[float, typer.Option(min=0, help="Alpha of mixup; 0 is off.")] = 0.0,
    smoothing: Annotated[float, typer.Option(min=0, max=0.5, help="Label smoothing.")] = 0.05,
    synthesis: Annotated[float, typer.Option(min=0, max=1, help="Share of synthesised incorrectly worn masks.")] = 0.0,
    keras_geometry: Annotated[
        bool,
        typer.Option(help="Turn, shift, zoom and shear by Keras layers, not by one OpenCV warp (faster on a CPU)."),
    ] = False,
    folds: Annotated[int, typer.Option(min=0, help="Cross-validation by group with so many folds; one run each.")] = 0,
    average: Annotated[
        float, typer.Option(min=0, max=0.9999, help="Momentum of the weight average; 0 is off.")
    ] = 0.995,
    keep_last: Annotated[bool, typer.Option(help="Keep the last epoch, not the best validated one.")] = False,
    with_validation: Annotated[
        bool, typer.Option(help="Learn from the validation part too; the last epoch is kept.")
    ] = False,
    corrections: Annotated[
        Path | None, typer.Option(help="CSV of wrong labels to mend or leave out among the faces learned from.")
    ] = None,
    teacher: Annotated[
        list[Path] | None, typer.Option(help="Trained .keras model to learn from besides the labels; may be repeated.")
    ] = None,
    distil: Annotated[float, typer.Option(min=0, max=1, help="Share of the targets that the teachers give.")] = 0.7,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
) -> None:
    """Train a classifier on face crops, in Keras on any backend (KERAS_BACKEND=torch, jax or tensorflow)."""
    from maskbatch_export.batches import Recipe
    from maskbatch_export.train import TrainConfig, limit_threads
    from maskbatch_export.train import train as run_training

    limit_threads()
    recipe = Recipe(
        context=context,
        balance=balance,
        extra=extra,
        cctv=cctv,
        mixup=mixup,
        smoothing=smoothing,
        synthesis=synthesis,
        keras_geometry=keras_geometry,
    )
    results = []
    for fold in range(folds or 1):
        config = TrainConfig(
            data=tuple(map(str, data)),
            architecture=architecture.value,
            start=start,
            wider=str(wider) if wider else None,
            head_epochs=head_epochs,
            epochs=epochs,
            patience=patience,
            small_epochs=small_epochs,
            batch=batch,
            rate=rate,
            seed=seed,
            folds=folds,
            fold=fold,
            average=average,
            keep_last=keep_last,
            with_validation=with_validation,
            corrections=str(corrections) if corrections else None,
            teachers=tuple(str(path) for path in teacher or ()),
            distil=distil,
            recipe=recipe,
        )
        result = run_training(config, run / f"fold{fold}" if folds else run)
        results.append(result.macro_f1)
        typer.echo(f"{result.model}: epoch {result.epoch}, validation macro-F1 {result.macro_f1:.4f}")
    if folds:
        mean = sum(results) / len(results)
        typer.echo(f"macro-F1 over {folds} folds: mean {mean:.4f}, from {min(results):.4f} to {max(results):.4f}")


@app.command()
def average(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL.keras...", help="Two runs' best.keras, or more.")],
    out: Annotated[Path, typer.Option(help="The .keras file to write.")],
) -> None:
    """Average the weights of runs that went on from the same weights: one model, mostly better than each of them."""
    from maskbatch_export.soup import average_weights

    average_weights([_existing(path) for path in models], out)
    typer.echo(f"{out}: the mean of {len(models)} models")


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="ONNX classifier.")],
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="Report without suffix.")] = Path("out/evaluation/classifier"),
    part: Annotated[Part, typer.Option(help="Part of the split by group.")] = Part.TEST,
    jitter: Annotated[float, typer.Option(min=0, help="Judge boxes moved like a detector's too; 0 does not.")] = 1.0,
    draws: Annotated[int, typer.Option(min=1, help="How often every box is moved and judged.")] = 5,
    corrections: Annotated[
        Path | None,
        typer.Option(help="Judge by mended labels, to see what wrong ones cost; not a figure to compare with others."),
    ] = None,
) -> None:
    """Judge a classifier on the part of the data that it never saw."""
    from maskbatch_export.data import correct_labels
    from maskbatch_export.evaluate import Judge, write_evaluation
    from maskbatch_export.onnx_files import sha256_of

    faces, note = _part(data, part), ""
    if corrections is not None:
        faces, mended = correct_labels(faces, corrections)
        note = f", {mended} labels mended or faces left out"
    judge = Judge(_existing(model), faces)
    result, moved = judge(), judge(jitter, draws) if jitter else None
    about = {
        "Model": f"`{model.name}`, SHA-256 `{sha256_of(model)}`",
        "Data": f"part `{part.value}` of {', '.join(f'`{folder.name}`' for folder in data)}{note}",
        "Command": f"`maskbatch export {' '.join(shlex.quote(word) for word in _own_arguments())}`",
    }
    summary = write_evaluation(result, moved, out, about)
    for name, value in summary["figures"].items():
        low, high = summary["intervals"][name]
        typer.echo(f"{name:32} {value:.4f}  ({low:.3f}–{high:.3f})")
    typer.echo(f"{out.with_suffix('.md')} and {out.with_suffix('.html')}", err=True)


@app.command()
def convert(
    model: Annotated[Path, typer.Argument(help="`.keras`, `.h5`, or a SavedModel folder.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
    data: Annotated[list[Path], typer.Option(help="Pascal VOC folder with the faces that prove parity; repeatable.")],
    architecture: Annotated[
        Architecture | None, typer.Option(help="Build this network and load only the weights of MODEL.")
    ] = None,
    scale: Annotated[Scale, typer.Option(help="Pixel range that MODEL takes.")] = Scale.SYMMETRIC,
    channels: Annotated[Channels, typer.Option(help="Channel order that MODEL takes; ours take bgr.")] = Channels.BGR,
    classes: Annotated[str, typer.Option(help="MODEL's outputs in order, by comma.")] = "",
    context: Annotated[float, typer.Option(help="Crop context that MODEL was trained with.")] = CROP_CONTEXT,
    version: Annotated[str, typer.Option(help="Version to write into the file.")] = "1",
    crops: Annotated[int, typer.Option(min=1, help="How many faces prove parity.")] = 256,
) -> None:
    """Turn a Keras model into the ONNX file that a scan takes, and prove that both say the same."""
    _use_tensorflow()
    from maskbatch.tasks.mask import LABELS
    from maskbatch_export.convert import Source, refuse_unsafe
    from maskbatch_export.convert import convert as run_conversion

    refuse_unsafe(model)
    names = tuple(name.strip() for name in classes.split(",")) if classes else LABELS
    source = Source(scale.value, channels.value, names, context)
    kind = architecture.value if architecture else None
    sample = _crops(data, Part.VAL, crops, context)[0]
    run_conversion(model, out, sample, source, kind, {"version": version}, typer.echo)
    typer.echo(f"{out} written")


@app.command()
def quantize(
    model: Annotated[Path, typer.Argument(help="float32 ONNX classifier from `convert`.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write, e.g. NAME.int8.onnx.")],
    data: Annotated[list[Path], typer.Option(help="Pascal VOC folder; train calibrates, test compares; repeatable.")],
    variant: Annotated[Variant, typer.Option(help="int8 for CPUs, fp16 for GPUs.")] = Variant.INT8,
    calibration: Annotated[int, typer.Option(min=1, help="How many training crops set the ranges of INT8.")] = 512,
) -> None:
    """Make a faster variant; one that loses more than half a point of macro-F1 is refused."""
    from maskbatch_export.onnx_files import context_of
    from maskbatch_export.quantize import make_variant

    context = context_of(_existing(model))
    sample = _crops(data, Part.TRAIN, calibration, context)[0]
    crops, labels = _crops(data, Part.TEST, 0, context, jitters=(0.0, 1.0, 1.0))
    found = make_variant(model, out, variant.value, sample, crops, labels)
    typer.echo(
        f"{out}: macro-F1 {found.macro_f1:.4f} (float32 {found.macro_f1_float:.4f}), same label {found.agreement:.2%}, "
        f"largest difference {found.largest:.3f}, {found.speed:.0f} crops/s on one thread (float32 {found.speed_float:.0f})"
    )


@app.command()
def suspects(
    model: Annotated[Path, typer.Argument(help="ONNX classifier.")],
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="CSV to write.")] = Path("out/suspects.csv"),
    part: Annotated[
        Part, typer.Option(help="Part of the split; a model disagrees honestly only with what it never saw.")
    ] = Part.TEST,
    least: Annotated[float, typer.Option(help="Least confidence in another class.")] = 0.8,
) -> None:
    """List annotations that a model firmly disagrees with: wrong labels to mend, or hard faces to learn from."""
    import numpy as np

    from maskbatch.tasks.mask import LABELS
    from maskbatch_export.evaluate import Judge

    result = Judge(_existing(model), _part(data, part))()
    confidence = result.probabilities.max(1)
    chosen = (result.predicted != result.labels) & (confidence >= least)
    table = result.faces.loc[chosen, ["set", "filename", "label", "xmin", "ymin", "xmax", "ymax", "group"]].copy()
    table["said"] = np.array(LABELS)[result.predicted[chosen]]
    table["confidence"] = confidence[chosen].round(3)
    out.parent.mkdir(parents=True, exist_ok=True)
    table.sort_values("confidence", ascending=False).to_csv(out, index=False)
    typer.echo(f"{len(table)} of {len(result.labels)} faces listed in {out}")


def _use_tensorflow() -> None:
    """Conversion traces a TensorFlow graph, whatever backend trained the model."""
    if "keras" in sys.modules:
        import keras

        if keras.backend.backend() != "tensorflow":
            raise UsageError("conversion needs Keras on TensorFlow; start it in a process of its own")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


def _own_arguments() -> list[str]:
    arguments = sys.argv[1:]
    return arguments[1:] if arguments[:1] == ["export"] else arguments


def _existing(path: Path) -> Path:
    if not path.exists():
        raise InputNotFoundError(f"{path} does not exist")
    return path


def _part(data: list[Path], part: Part) -> pd.DataFrame:
    from maskbatch_export.data import read_tables
    from maskbatch_export.split import part_of_group

    faces = read_tables(data).faces
    if part is Part.ALL:
        return faces
    return faces[faces["group"].map(part_of_group) == part.value]


def _crops(
    data: list[Path], part: Part, count: int, context: float, jitters: tuple[float, ...] = (0.0,)
) -> tuple[Any, Any]:
    """`count` faces of a part (0 is all), always the same, once for each of `jitters`, and their classes."""
    import numpy as np

    from maskbatch_export.data import cut_patches

    faces = _part(data, part)
    if faces.empty:
        raise UsageError(f"the {part.value} part of the data holds no face")
    if 0 < count < len(faces):
        faces = faces.sample(count, random_state=0)
    patches = cut_patches(faces)
    views = [patches.crops(context, 128, jitter, seed) for seed, jitter in enumerate(jitters)]
    return np.concatenate(views), np.tile(patches.labels, len(jitters))
