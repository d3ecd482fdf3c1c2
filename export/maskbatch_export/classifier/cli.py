"""``maskbatch export classifier …``. Heavy libraries are imported when a command runs."""

from __future__ import annotations

import enum
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskbatch.classify.crops import CROP_CONTEXT, CROP_SIZE
from maskbatch.errors import InputNotFoundError, UsageError
from maskbatch_export.classifier.lighten import add_prune

if TYPE_CHECKING:
    import pandas as pd

    from maskbatch_export.onnx_files import OnnxClassifier

app = typer.Typer(no_args_is_help=True, help="Make the classifier: train, evaluate, convert, quantize, average, stats.")
add_prune(app)

DataOption = Annotated[
    list[Path],
    typer.Option(
        "--data", help="Pascal VOC folder: annotations/*.xml, images/*, groups.csv if there is one; repeatable."
    ),
]


class Architecture(enum.StrEnum):
    """Names of `architectures.ARCHITECTURES`, as the command line offers them."""

    MOBILENET = "mobilenet-v2"
    MOBILENET_HALF = "mobilenet-v2-half"
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
    """Pixel ranges that classifiers expect, and modes of Keras's preprocess_input."""

    SYMMETRIC = "-1..1"
    UNIT = "0..1"
    BYTES = "0..255"
    TF = "tf"
    CAFFE = "caffe"
    TORCH = "torch"


class Channels(enum.StrEnum):
    """Orders of the channels that classifiers expect."""

    BGR = "bgr"
    RGB = "rgb"


@app.command()
def stats(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Report without suffix; .md, .html, .csv and plots are written.")] = Path(
        "out/stats/data"
    ),
    seed: Annotated[int, typer.Option(help="Which faces the contact sheets show.")] = 0,
) -> None:
    """Describe data sets: classes, sizes, near-duplicates, problems."""
    from maskbatch_export.classifier.data import read_tables
    from maskbatch_export.classifier.stats import write_stats

    summary = write_stats(read_tables(data), out, seed)
    typer.echo(json.dumps(summary, indent=1))
    typer.echo(f"{out.with_suffix('.md')} and {out.with_suffix('.html')}", err=True)


@app.command()
def train(
    data: DataOption,
    run: Annotated[Path, typer.Option(help="Folder of this run; an unfinished run in it is continued.")],
    architecture: Annotated[Architecture, typer.Option(help="Network.")] = Architecture.MOBILENET,
    start: Annotated[
        str | None,
        typer.Option(
            help="Initial weights: an .npz of torchvision's ImageNet arrays, `keras` (downloads its own), EfficientNet-Lite2's .pth, or an earlier run's .keras."
        ),
    ] = None,
    wider: Annotated[
        Path | None, typer.Option(help="WIDER FACE folder; its faces become further without_mask.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of fine-tuning, at most.")] = 20,
    head_epochs: Annotated[int, typer.Option(min=0, help="Epochs before, with the backbone frozen.")] = 1,
    patience: Annotated[
        int, typer.Option(min=0, help="Stop after this many epochs without improvement; 0 = never.")
    ] = 6,
    small_epochs: Annotated[int, typer.Option(min=0, help="The first fine-tuning epochs run on 96×96 crops.")] = 0,
    size: Annotated[int, typer.Option(min=32, help="Side of the crops in pixels, a multiple of 32.")] = CROP_SIZE,
    batch: Annotated[int, typer.Option(min=2, help="Crops per step.")] = 32,
    rate: Annotated[float, typer.Option(help="Peak of the learning rate.")] = 5e-4,
    context: Annotated[
        float, typer.Option(help="Side of a crop as a multiple of the box's longer side.")
    ] = CROP_CONTEXT,
    balance: Annotated[float, typer.Option(min=0, max=1, help="0 as in the data, 1 all classes equally often.")] = 0.5,
    extra: Annotated[float, typer.Option(min=0, max=1, help="Share of the crops that --wider gives.")] = 0.06,
    cctv: Annotated[float, typer.Option(min=0, help="Strength of low resolution, blur, JPEG, noise, infra-red.")] = 0.6,
    mixup: Annotated[float, typer.Option(min=0, help="Alpha of mixup; 0 = off.")] = 0.0,
    smoothing: Annotated[float, typer.Option(min=0, max=0.5, help="Label smoothing.")] = 0.05,
    synthesis: Annotated[float, typer.Option(min=0, max=1, help="Share of synthesised incorrectly worn masks.")] = 0.0,
    keras_geometry: Annotated[
        bool,
        typer.Option(help="Turn, shift, zoom and shear by Keras layers, not by one OpenCV warp (faster on a CPU)."),
    ] = False,
    folds: Annotated[
        int, typer.Option(min=0, help="Cross-validation by group with this many folds; one run each.")
    ] = 0,
    average: Annotated[float, typer.Option(min=0, max=0.9999, help="Momentum of the weight average; 0 = off.")] = 0.995,
    keep_last: Annotated[bool, typer.Option(help="Keep the last epoch, not the best validated one.")] = False,
    with_validation: Annotated[
        bool, typer.Option(help="Train on the validation part too; the last epoch is kept.")
    ] = False,
    corrections: Annotated[
        Path | None, typer.Option(help="CSV of wrong labels to correct or leave out among the faces trained on.")
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(help="Trained .keras or .onnx model to distil besides the labels; may be repeated."),
    ] = None,
    distil: Annotated[float, typer.Option(min=0, max=1, help="Share of the targets that the teachers give.")] = 0.7,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
) -> None:
    """Train a classifier on face crops, in Keras on any backend (KERAS_BACKEND=torch, jax or tensorflow)."""
    from maskbatch_export.classifier.batches import CropRecipe
    from maskbatch_export.classifier.train import TrainConfig, limit_threads
    from maskbatch_export.classifier.train import train as run_training

    limit_threads()
    recipe = CropRecipe(
        size=size,
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
    """Average the weights of runs that continued from the same weights: one model, mostly better than each of them."""
    from maskbatch_export.classifier.average import average_weights

    average_weights([_existing(path) for path in models], out)
    typer.echo(f"{out}: the mean of {len(models)} models")


@app.command()
def improve(
    data: DataOption,
    corrections: Annotated[Path, typer.Option(help="The log of a review: results.corrections.csv.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write where the new classifier is better.")],
    base: Annotated[str, typer.Option(help="Classifier to train on: mask_mobilenet_v2, or a float32 ONNX file.")] = (
        "mask_mobilenet_v2"
    ),
    results: Annotated[
        str | None, typer.Option(help="The result that was reviewed. [default: the one beside the corrections]")
    ] = None,
    replay: Annotated[int, typer.Option(min=100, help="Faces of --data to mix in, at most.")] = 2000,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 600,
    report: Annotated[Path | None, typer.Option(help="JSON file for the comparison, written in any case.")] = None,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
) -> None:
    """Train on with the faces that people put right; written only if it is better on untouched faces, with an interval that says so."""
    from maskbatch.models import find_model
    from maskbatch_export.classifier.improve import ImproveConfig, as_text, require_better
    from maskbatch_export.classifier.improve import improve as run

    ending = ".corrections.csv"
    if results is None:
        if not corrections.name.endswith(ending):
            raise UsageError(f"name the result that {corrections} belongs to with --results")
        beside = corrections.with_name(corrections.name.removesuffix(ending))
        results = str(beside if beside.is_dir() else beside.with_name(f"{beside.name}.parquet"))
    config = ImproveConfig(
        find_model(base, "classifier").path,
        results,
        _existing(corrections),
        tuple(data),
        replay=replay,
        steps=steps,
        seed=seed,
    )
    found = run(config, out, lambda line: typer.echo(line, err=True))
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(found.as_dict(), indent=1) + "\n", encoding="utf-8")
    for line in as_text(found):
        typer.echo(line)
    require_better(found)
    typer.echo(f"{out} written; make it the default with `maskbatch models use {out}`")


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="ONNX classifier.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Report without suffix.")] = Path("out/evaluation/classifier"),
    part: Annotated[Part, typer.Option(help="Part of the split by group.")] = Part.TEST,
    jitter: Annotated[
        float, typer.Option(min=0, help="Evaluate boxes jittered like a detector's too; 0 = do not.")
    ] = 1.0,
    draws: Annotated[int, typer.Option(min=1, help="Number of jittered draws of every box.")] = 5,
    corrections: Annotated[
        Path | None,
        typer.Option(
            help="Evaluate on corrected labels, to see what wrong ones cost; not a figure to compare with others."
        ),
    ] = None,
) -> None:
    """Evaluate a classifier on the part of the data that it was not trained on."""
    from maskbatch_export.classifier.data import correct_labels
    from maskbatch_export.classifier.evaluate import Evaluator, write_evaluation
    from maskbatch_export.onnx_files import sha256_of

    faces, note = _part(data, part, _labels_of(model)), ""
    if corrections is not None:
        faces, corrected = correct_labels(faces, corrections)
        note = f", {corrected} labels corrected or faces left out"
    evaluator = Evaluator(_existing(model), faces)
    if evaluator.left_out:
        note += f", {evaluator.left_out} faces of other classes left out"
    result, jittered = evaluator(), evaluator(jitter, draws) if jitter else None
    about = {
        "Model": f"`{model.name}`, SHA-256 `{sha256_of(model)}`",
        "Data": f"part `{part.value}` of {', '.join(f'`{folder.name}`' for folder in data)}{note}",
        "Command": f"`maskbatch export {' '.join(shlex.quote(word) for word in _own_arguments())}`",
    }
    summary = write_evaluation(result, jittered, out, about)
    for name, value in summary["figures"].items():
        low, high = summary["intervals"][name]
        typer.echo(f"{name:32} {value:.4f}  ({low:.3f}–{high:.3f})")
    typer.echo(f"{out.with_suffix('.md')} and {out.with_suffix('.html')}", err=True)


@app.command()
def convert(
    model: Annotated[Path, typer.Argument(help="`.keras`, `.h5`, a SavedModel folder, or an `.onnx` of float images.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
    data: Annotated[list[Path], typer.Option(help="Pascal VOC folder with the faces that prove parity; repeatable.")],
    architecture: Annotated[
        Architecture | None, typer.Option(help="Build this network and load only the weights of MODEL.")
    ] = None,
    scale: Annotated[
        Scale,
        typer.Option(
            help="Pixel range that MODEL takes, or the mode of Keras's preprocess_input: tf (MobileNet, -1..1), caffe "
            "(VGG, ResNet), torch (DenseNet)."
        ),
    ] = Scale.SYMMETRIC,
    channels: Annotated[Channels, typer.Option(help="Channel order that MODEL takes; ours take bgr.")] = Channels.BGR,
    labels: Annotated[
        str,
        typer.Option(
            help="What MODEL's outputs mean, in order, separated by commas. [default: the three of the mask set]"
        ),
    ] = "",
    softmax: Annotated[bool, typer.Option("--softmax", help="MODEL gives logits; add a softmax.")] = False,
    classes: Annotated[str, typer.Option(hidden=True)] = "",
    context: Annotated[float, typer.Option(help="Crop context that MODEL was trained with.")] = CROP_CONTEXT,
    version: Annotated[str, typer.Option(help="Version to write into the file.")] = "1",
    crops: Annotated[int, typer.Option(min=1, help="How many faces prove parity.")] = 256,
) -> None:
    """Turn a Keras (or float ONNX) classifier into the ONNX file that a scan takes, and prove that both give the same."""
    if classes:
        raise UsageError("--classes is now --labels")
    _use_tensorflow()
    from maskbatch.tasks.mask import LABELS
    from maskbatch_export.classifier.convert import convert as run_conversion
    from maskbatch_export.classifier.convert import refuse_unsafe
    from maskbatch_export.classifier.inputs import Source

    if model.suffix != ".onnx":
        refuse_unsafe(model)
    names = tuple(name.strip() for name in labels.split(",")) if labels else LABELS
    range_ = Scale.SYMMETRIC if scale is Scale.TF else scale
    source = Source(range_.value, channels.value, names, context, softmax)  # type: ignore[arg-type]
    kind = architecture.value if architecture else None
    sample = _crops(data, Part.VAL, crops, context, any_label=True)[0]
    run_conversion(model, out, sample, source, kind, {"version": version}, typer.echo)
    typer.echo(f"{out} written")


@app.command()
def quantize(
    model: Annotated[Path, typer.Argument(help="float32 ONNX classifier from `convert`.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write, e.g. NAME.int8.onnx.")],
    data: Annotated[list[Path], typer.Option(help="Pascal VOC folder; train calibrates, val compares; repeatable.")],
    variant: Annotated[Variant, typer.Option(help="int8 for CPUs, fp16 for GPUs.")] = Variant.INT8,
    calibration: Annotated[int, typer.Option(min=1, help="How many training crops set the ranges of INT8.")] = 512,
) -> None:
    """Make a faster variant; one that loses more than .3 points of macro-F1 on the validation part is refused."""
    from maskbatch_export.classifier.quantize import make_variant
    from maskbatch_export.onnx_files import OnnxClassifier

    known = OnnxClassifier(_existing(model))
    sample = crops_for(data, Part.TRAIN, calibration, known)[0]
    crops, labels = crops_for(data, Part.VAL, 0, known, jitters=(0.0, 1.0, 1.0))
    found = make_variant(model, out, variant.value, sample, crops, labels)
    typer.echo(
        f"{out}: macro-F1 {found.macro_f1:.4f} (float32 {found.macro_f1_float:.4f}), same label {found.agreement:.2%}, "
        f"largest difference {found.largest:.3f}, {found.speed:.0f} crops/s on one thread (float32 {found.speed_float:.0f})"
    )


@app.command()
def suspects(
    model: Annotated[Path, typer.Argument(help="ONNX classifier.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="CSV to write.")] = Path("out/suspects.csv"),
    part: Annotated[
        Part, typer.Option(help="Part of the split; only faces that it was not trained on count.")
    ] = Part.TEST,
    least: Annotated[float, typer.Option(help="Least confidence in another class.")] = 0.8,
) -> None:
    """List annotations that a model firmly disagrees with: wrong labels to correct, or hard faces to train on."""
    import numpy as np

    from maskbatch_export.classifier.evaluate import Evaluator

    result = Evaluator(_existing(model), _part(data, part))()
    confidence = result.probabilities.max(1)
    chosen = (result.predicted != result.labels) & (confidence >= least)
    table = result.faces.loc[chosen, ["set", "filename", "label", "xmin", "ymin", "xmax", "ymax", "group"]].copy()
    table["predicted"] = np.array(result.names)[result.predicted[chosen]]
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


def _labels_of(model: Path) -> tuple[str, ...]:
    """What an ONNX classifier tells apart."""
    from maskbatch_export.onnx_files import OnnxClassifier

    return OnnxClassifier(_existing(model)).labels


def _part(data: list[Path], part: Part, names: Sequence[str] = ()) -> pd.DataFrame:
    """The faces of a part; those of the classes `names` (of the mask set without them)."""
    from maskbatch.tasks.mask import LABELS
    from maskbatch_export.classifier.data import read_tables
    from maskbatch_export.split import part_of_group

    faces = read_tables(data, (*dict.fromkeys((*names, *LABELS)),)).faces
    if part is Part.ALL:
        return faces
    return faces[faces["group"].map(part_of_group) == part.value]


def crops_for(
    data: list[Path], part: Part, count: int, model: OnnxClassifier, jitters: tuple[float, ...] = (0.0,)
) -> tuple[Any, Any]:
    """As `_crops`, the way a model takes them."""
    return _crops(data, part, count, model.context, jitters, names=model.labels, size=model.size)


def _crops(
    data: list[Path],
    part: Part,
    count: int,
    context: float,
    jitters: tuple[float, ...] = (0.0,),
    names: Sequence[str] = (),
    any_label: bool = False,
    size: int = 128,
) -> tuple[Any, Any]:
    """`count` faces of a part (0 = all), always the same, once for each of `jitters`, and their classes.

    `names` are the classes to take, in the order of the numbers that are given; without them those of the mask set. With `any_label`
    the classes do not matter.
    """
    import numpy as np

    from maskbatch.tasks.mask import LABELS
    from maskbatch_export.classifier.data import cut_patches

    wanted = tuple(names) or LABELS
    faces = _part(data, part, wanted)
    if not any_label:
        faces = faces[faces["label"].isin(wanted)]
    if faces.empty:
        raise UsageError(f"the {part.value} part of the data holds no face")
    if 0 < count < len(faces):
        faces = faces.sample(count, random_state=0)
    patches = cut_patches(faces, wanted if not any_label else tuple(sorted(set(faces["label"]))))
    views = [patches.crops(context, size, jitter, seed) for seed, jitter in enumerate(jitters)]
    return np.concatenate(views), np.tile(patches.labels, len(jitters))
